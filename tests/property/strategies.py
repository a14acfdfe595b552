"""Any evidence whatever, biased towards the few names that make parts of it speak of each other."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    ContainerRecord,
    Evidence,
    LeaseDirectory,
    NetworkNamespace,
    Observation,
    Process,
    RuntimeProcess,
    TaskDirectory,
)
from janitor.core.model.lease import identity
from janitor.core.model.reason import Fact, Reason, because
from tests import situations as s
from tests.reasons import not_seen

IDS = st.sampled_from([s.DEAD, s.LIVE, "c" * 64, "d" * 63, f"k8s.io-{'d' * 64}", ""])
ADDRESSES = st.sampled_from([s.ADDRESS, "10.52.0.2", "10.52.0.200", "fd00::7", "192.0.2.1"])
FACTS: st.SearchStrategy[dict[str, Fact]] = st.dictionaries(
    st.text(max_size=4), st.text() | st.integers() | st.lists(st.text()).map(tuple), max_size=3
)
st.register_type_strategy(
    Reason, st.builds(Reason, st.sampled_from(Code), FACTS.map(lambda facts: tuple(facts.items())), st.none())
)

UNKNOWN = st.builds(not_seen, st.sampled_from(["no permission", "no answer"]))
TIMES = st.integers(0, 2 * s.NOW)


def maybe(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Seen nearly always: evidence in which everything is Unknown shows little."""
    return st.one_of(part, part, part, part, UNKNOWN)


def some(item: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(item, max_size=most).map(tuple)


CONTENTS = st.one_of(
    st.builds(lambda i, e: f"{i}{e}".encode(), IDS, st.sampled_from(["\r\neth0", "\r\nnet1", "", "\n", "\neth0"])),
    st.sampled_from([b"", b"\0" * 70, b" \n", b"reserved by hand", b"d" * 40 + b"\0" * 30]),
    st.binary(max_size=80),
)


@st.composite
def lease_files(draw: st.DrawFn) -> Any:
    return s.lease(
        draw(ADDRESSES), draw(maybe(CONTENTS)), draw(TIMES), kind=draw(st.sampled_from(["file"] * 6 + ["fifo"]))
    )


SANDBOXES = st.builds(
    s.sandbox,
    IDS,
    st.booleans(),
    maybe(some(ADDRESSES, 2)),
    network_mode=st.sampled_from(["pod", "pod", "node", "other"]),
)
RECORDS = st.builds(ContainerRecord, st.just("k8s.io"), IDS, st.sampled_from(["container", "task", "sandbox"]))
LISTENERS = st.builds(
    RuntimeProcess,
    st.just(700),
    st.sampled_from(["containerd", "containerd", "systemd"]),
    TIMES,
    st.one_of(TIMES.map(lambda t: s.BOOT + t), TIMES),
)
ENDPOINTS = st.builds(
    s.endpoint,
    sandboxes=maybe(some(SANDBOXES)),
    records=maybe(some(RECORDS, 2)),
    origin=st.sampled_from(["kubelet", "flag", "well-known"]),
    listeners=maybe(st.one_of(some(LISTENERS, 1), st.just(s.endpoint().listeners))),
)  # fmt: skip
NAMESPACES = st.builds(
    NetworkNamespace, st.integers(1, 9), st.just("a process"), maybe(some(ADDRESSES, 2)), maybe(some(ADDRESSES, 1))
)
PROCESSES = st.builds(
    Process,
    st.integers(2, 9),
    st.just("shim"),
    TIMES,
    some(IDS, 1),
    st.sampled_from(["", "ADD"]),
    st.one_of(st.just(""), IDS),
)
TASKS = st.builds(lambda i: TaskDirectory(f"/run/{i}", i), IDS)
CACHE = st.builds(s.cache_entry, IDS, ADDRESSES, damage=st.sampled_from([None, None, because(Code.EMPTY)]))
NETWORKS = st.builds(
    s.network,
    used_by_cri=st.sampled_from([True, True, True, False]),
    disable_gc=st.sampled_from([False, False, False, True]),
    range_sets=maybe(st.just(s.network().range_sets)),
)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    # A node on which something is to be freed, with a thing or two changed: from anything whatever hardly ever is.
    nearly_healthy = draw(st.booleans())
    files = draw(some(lease_files(), 2 if nearly_healthy else 4))
    if nearly_healthy:
        files = (
            s.lease(s.ADDRESS, draw(st.sampled_from([f"{s.DEAD}\r\neth0".encode(), s.DEAD.encode(), b"", b"\0" * 70]))),
            *files,
        )
    found = s.evidence()
    noted = []
    for file in files:
        this = identity(f"{s.DIRECTORY}/{file.name}", file)
        if this is not None and draw(st.booleans()):
            noted.append((this, file))
    changes: dict[str, Any] = {
        "lease_directories": draw(maybe(st.just((LeaseDirectory(s.DIRECTORY, "k8s-pod-network", files, "ext4"),)))),
        "boot_id": draw(maybe(st.just("this-boot"))),
        "networks": draw(maybe(some(NETWORKS, 2))),
        "allowed_data_dirs": draw(st.sampled_from([(), ("/var/lib/cni/networks",)])),
        "cache": draw(maybe(some(CACHE))),
        "endpoints": draw(maybe(some(ENDPOINTS, 2))),
        "namespaces": draw(maybe(some(NAMESPACES))),
        "processes": draw(maybe(some(PROCESSES, 2))),
        "task_directories": draw(maybe(some(TASKS, 1))),
        "ledger": draw(maybe(st.just(tuple(this for this, _ in noted)))),
        "observations": draw(
            maybe(st.just(tuple(Observation(this, file.ctime_ns, 0, s.NOW - s.SECOND, 2) for this, file in noted)))
        ),
    }
    if nearly_healthy:
        changed = draw(st.sets(st.sampled_from(sorted(changes.keys() - {"lease_directories"})), max_size=1))
        directory = LeaseDirectory(s.DIRECTORY, "k8s-pod-network", files, "ext4")
        return replace(found, lease_directories=(directory,), **{name: changes[name] for name in changed})
    return replace(found, **changes)
