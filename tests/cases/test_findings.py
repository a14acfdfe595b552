"""Each finding: when it is made, how bad it is, and when it is not made."""

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.leases.plan import plan
from janitor.core.model.action import Plan, Refusal
from janitor.core.model.addresses import make_range
from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    Clock,
    Evidence,
    Holder,
    LeaseDirectory,
    LeaseFile,
    NetworkNamespace,
    Overlooked,
    Process,
    known,
)
from janitor.core.model.findings import Finding
from janitor.core.model.reason import because
from janitor.passes.scan import diagnose, select
from janitor.report.changes import plan_text
from janitor.report.document import make_report
from janitor.report.explain import explain
from janitor.report.headline import headlines
from janitor.report.table import to_table
from tests.lab.cache import REPOSITORY
from tests.reasons import not_seen, recorded
from tests.situations import (
    BOOT,
    DEAD,
    DIRECTORY,
    LIVE,
    NODE,
    SECOND,
    cache_entry,
    endpoint,
    evidence,
    lease,
    network,
    sandbox,
)


def found(what: Evidence, identifier: str) -> list[Finding]:
    return [finding for finding in diagnose(what).findings if finding.id == identifier]


def only(what: Evidence, identifier: str) -> Finding:
    (finding,) = found(what, identifier)
    return finding


def in_directory(*files: LeaseFile, filesystem: str = "ext4", **other: Any) -> Evidence:
    return evidence(lease_directories=(LeaseDirectory(DIRECTORY, "k8s-pod-network", files, filesystem),), **other)


def test_a_healthy_node_has_one_remark() -> None:
    assert [finding.id for finding in diagnose(evidence()).findings] == ["LEASE010"]


def test_orphaned_and_corrupt_are_summed_up_by_network() -> None:
    what = evidence(lease("10.52.0.10"), lease("10.52.0.11"), lease("10.52.0.12", b""))
    assert only(what, "LEASE001").summary == "k8s-pod-network: 2 leases left by containers that are gone"
    assert only(what, "LEASE001").evidence[0] == "10.52.0.10, 10.52.0.11"
    assert "1 lease, empty" in only(what, "LEASE002").summary


def test_missing() -> None:
    finding = only(in_directory(), "LEASE003")
    assert (finding.severity, finding.subject) == ("critical", f"{DIRECTORY}/10.52.0.2")
    assert finding.fix.text.startswith("janitor clean --only LEASE003: it waits a minute")
    assert finding.fix.text.endswith("kubectl delete pod -n default web-1")


def test_an_address_in_two_networks() -> None:
    other = LeaseDirectory(
        "/var/lib/cni/networks/two", "two", (lease("10.52.0.2", f"{DEAD}\r\neth0".encode()),), "ext4"
    )
    what = evidence(networks=(network(), network(name="two")))
    what = replace(what, lease_directories=(*what.lease_directories, other))  # type: ignore[misc]
    assert "10.52.0.2 is leased in 2 networks" in {f.summary for f in found(what, "LEASE004")}


def test_an_attachment_with_two_addresses_of_one_range() -> None:
    what = in_directory(lease("10.52.0.10"), lease("10.52.0.11"))
    assert "holds 2 addresses of one range" in only(what, "LEASE004").summary


@pytest.mark.parametrize(
    "second",
    [lease("fd00::7"), lease("10.52.0.11", f"{DEAD}\r\nnet1".encode())],
    ids=["other family", "other interface"],
)
def test_an_attachment_with_one_address_of_each(second: LeaseFile) -> None:
    dual = network(range_sets=((make_range("10.52.0.0/24"),), (make_range("fd00::/64"),)))
    assert found(in_directory(lease("10.52.0.10"), second, networks=(dual,)), "LEASE004") == []
    unknown = network(range_sets=not_seen("flannel has not written it"))
    assert found(in_directory(lease("10.52.0.10"), second, networks=(unknown,)), "LEASE004") == []


def test_a_live_address_leased_to_another() -> None:
    what = in_directory(lease("10.52.0.2", f"{DEAD}\r\neth0".encode()))
    assert "in use by default/web-1 but leased to another container" in only(what, "LEASE004").summary


@pytest.mark.parametrize(("used", "severity"), [(3, None), (4, "warning"), (5, "critical")])
def test_a_range_fills_up(used: int, severity: str | None) -> None:
    small = network(range_sets=((make_range("10.52.0.0/29"),),))
    mine = lease("10.52.0.2", f"{LIVE}\r\neth0".encode())
    files = [mine, *(lease(f"10.52.0.{3 + number}") for number in range(used - 1))]
    findings = found(in_directory(*files, networks=(small,)), "LEASE005")
    assert [f.severity for f in findings] == ([severity] if severity else [])
    if findings:
        assert f"{used} of 5 used" in findings[0].summary
        assert f"would free {used - 1}" in findings[0].evidence[1]  # one of them is live


def test_ninety_five_percent_is_an_error() -> None:
    files = [lease(f"10.52.0.{number}") for number in range(2, 244)]
    assert only(in_directory(*files), "LEASE005").severity == "error"
    missing = only(in_directory(*files[1:]), "LEASE005")  # the live pod's lease, which is no file to be counted
    assert missing.evidence[0] == f"241 files in {DIRECTORY}: 241 orphaned"


@pytest.mark.parametrize(("uptime", "made"), [(300, False), (1200, True)])
def test_held_since_the_boot(uptime: int, made: bool) -> None:
    dead = endpoint(sandbox(DEAD, ready=False, created_ns=BOOT - 86_400 * SECOND))
    what = in_directory(lease("10.52.0.10"), endpoints=(dead,), cache=())
    what = replace(what, started=Clock(BOOT + uptime * SECOND, uptime * SECOND))
    assert bool(found(what, "LEASE006")) == made


@pytest.mark.parametrize(("age", "made"), [(1_800, False), (7_200, True)])
def test_held_in_this_boot(age: int, made: bool) -> None:
    dead = endpoint(sandbox(DEAD, ready=False, created_ns=BOOT + 10_000 * SECOND - age * SECOND))
    assert bool(found(in_directory(lease("10.52.0.10"), endpoints=(dead,), cache=()), "LEASE006")) == made


def test_outside_every_range() -> None:
    finding = only(evidence(lease("10.99.0.7")), "LEASE007")
    assert "10.99.0.7 (foreign)" in finding.evidence[0]
    assert found(evidence(lease("10.99.0.7")), "LEASE008") == []


def test_foreign_files() -> None:
    assert "reserved" in only(evidence(lease("10.52.0.9", b"reserved by hand")), "LEASE008").evidence[1]


EMPTY_ENTRY = cache_entry(DEAD, damage=because(Code.EMPTY), cni_version="")
STOPPED = endpoint(sandbox(DEAD, ready=False))


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        ({"networks": (network(cni_version="0.4.0"),)}, "error"),
        ({"networks": (network(cni_version="1.0.0"),)}, "error"),
        ({"networks": not_seen("no")}, "error"),
        ({"networks": (network(cni_version="0.3.1"),)}, "info"),
        (
            {"networks": (network(cni_version="1.0.0"),), "endpoints": (replace(STOPPED, runtime_version="v2.1.4"),)},
            "info",
        ),
        ({"networks": (network(cni_version="1.0.0"),), "endpoints": (endpoint(),)}, "info"),
    ],
    ids=["0.4.0", "1.0.0", "not known", "0.3.1", "containerd 2", "no sandbox needs it"],
)
def test_a_damaged_cache_entry(change: dict[str, Any], severity: str) -> None:
    what = evidence(**({"cache": (EMPTY_ENTRY,), "endpoints": (STOPPED,)} | change))
    assert only(what, "LEASE009").severity == severity


def test_damaged_entries_go_where_the_cni_has_an_ipam_of_its_own() -> None:
    """Calico's, for example: no network of host-local and no lease, but the runtime stumbles over them all the same."""
    calico = replace(EMPTY_ENTRY, network="k8s-calico", path=f"/var/lib/cni/results/k8s-calico-{DEAD}-eth0")
    what = evidence(networks=(), lease_directories=(), cache=(calico,))
    diagnosis = diagnose(what)
    assert "LEASE009" in {finding.id for finding in diagnosis.findings}
    assert [(action.kind, action.path) for action in plan(what, diagnosis.judgement).actions] == [
        ("discard", calico.path)
    ]


def test_a_damaged_loopback_entry_stops_nothing() -> None:
    loopback = cache_entry(DEAD, damage=because(Code.EMPTY), network="cni-loopback", interface="lo", cni_version="")
    what = evidence(cache=(loopback,), endpoints=(STOPPED,), networks=(network(cni_version="1.0.0"),))
    assert only(what, "LEASE009").severity == "info"


def before(unit: str) -> set[str]:
    return {name for line in unit.splitlines() if line.startswith("Before=") for name in line[7:].split()}


def test_leases_in_memory_are_fine() -> None:
    assert found(in_directory(lease(), filesystem="tmpfs"), "LEASE010") == []
    # Nor where leases may be another machine's: a mount over them would hide them from their owner.
    assert found(in_directory(lease(), filesystem="virtiofs"), "LEASE010") == []
    finding = only(evidence(), "LEASE010")
    assert "Where=/var/lib/cni/networks" in finding.fix.text
    assert "/var-lib-cni-networks.mount" in finding.fix.text
    # Nothing that the unit in systemd/ is before is left out; janitor-boot.service waits by RequiresMountsFor=.
    shipped = (REPOSITORY / "systemd/var-lib-cni-networks.mount").read_text()
    assert before(shipped) - {"janitor-boot.service"} == before(finding.fix.text)
    assert "janitor-boot.service" in finding.explanation


def test_what_was_not_seen_is_said_once() -> None:
    blind = not_seen("no /proc", "run it on the node")
    what = evidence(lease(), namespaces=blind, processes=blind)
    finding = only(what, "SCAN001")
    assert (finding.status, finding.fix.text) == ("unknown", "run it on the node")
    assert make_report(what, diagnose(what)).status == "unknown"


OF_LIVE = Holder(LIVE)


def crowded(*addresses: str, holder: Holder = OF_LIVE, **other: Any) -> Evidence:
    namespace = NetworkNamespace(3, "/run/netns/cni-1", ("10.52.0.2", *addresses), (), (holder,))
    return evidence(lease(), namespaces=(namespace,), **other)


MANY = ("10.52.0.77", "10.52.0.78", "10.52.0.79", "10.52.0.80")


def test_a_namespace_with_many_addresses_of_the_ranges() -> None:
    finding = only(crowded(*MANY), "SCAN003")
    assert finding.summary == "the pod default/web-1 has 4 addresses of the pods' ranges that no runtime gave it"
    assert 'ignore_namespaces = ["default/web-1"]' in finding.fix.text
    assert not found(crowded(*MANY[:2]), "SCAN003"), "a pod that its runtime has forgotten"
    assert not found(crowded("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"), "SCAN003"), "outside of the ranges"
    assert "/run/netns/cni-1 has 4" in only(crowded(*MANY, holder=Holder("b" * 64)), "SCAN003").summary


@pytest.mark.parametrize("holder", [OF_LIVE, Holder("b" * 64, "uid-7"), Holder()], ids=["pod", "unlisted", "stranger"])
@pytest.mark.parametrize("table", ["addresses", "host_routes"])
def test_addresses_that_are_spread_over_namespaces(table: str, holder: Holder) -> None:
    """A user namespace may have any number of them, and a route keeps a lease as well."""
    empty = NetworkNamespace(0, "process 7 (x)", (), (), (holder,))
    spread = [replace(empty, inode=n, **{table: (address,)}) for n, address in enumerate(MANY)]  # type: ignore[arg-type]
    finding = only(evidence(lease(), namespaces=tuple(spread)), "SCAN003")
    whose = "the pod default/web-1" if holder == OF_LIVE else "process 7 (x), with 3 more network namespaces,"
    routes = ", or host routes to such," if table == "host_routes" else ""
    assert finding.summary == f"{whose} has 4 addresses of the pods' ranges{routes} that no runtime gave it"
    assert not found(evidence(lease(), namespaces=tuple(spread[:3])), "SCAN003")


def test_what_no_runtime_could_speak_of_makes_no_crowd_of_strangers() -> None:
    """While a runtime does not answer, it is not known whether it gave them, each to a pod of its own."""
    spread = tuple(NetworkNamespace(n, f"/run/netns/{n}", (one,), (), (Holder(),)) for n, one in enumerate(MANY))
    silent = replace(endpoint(), sandboxes=not_seen("connecting: timed out"))
    assert found(evidence(lease(), namespaces=spread), "SCAN003")
    assert not found(evidence(lease(), namespaces=spread, endpoints=(silent,)), "SCAN003")
    assert not found(evidence(lease(), namespaces=spread, endpoints=()), "SCAN003")


def test_processes_of_users_that_name_many_containers_of_leases() -> None:
    """A shim names one as well; it is root's."""
    ids = [f"{n:064x}" for n in range(4)]
    users = tuple(Process(n, "x", 0, (one,), apart=True) for n, one in enumerate(ids))
    shims = tuple(replace(one, apart=False) for one in users)
    finding = only(evidence(lease(), processes=users), "SCAN003")
    assert finding.summary == (
        "processes of users of the node (for example process 0, x) name 4 containers of leases that no runtime knows"
    )
    assert not found(evidence(lease(), processes=users[:3]), "SCAN003")
    assert not found(evidence(lease(), processes=shims), "SCAN003")


def test_the_addresses_of_a_pod_that_the_operator_has_named_do_not_count() -> None:
    def of(what: Evidence) -> dict[str, str]:
        return {judged.address: judged.verdict for judged in diagnose(what).judgement.leases}

    assert of(crowded(*MANY)) == {"10.52.0.2": "live", "10.52.0.77": "live"}
    named = crowded(*MANY, ignored_pods=("default/web-1",))
    assert of(named) == {"10.52.0.2": "live", "10.52.0.77": "orphaned"}
    assert not found(named, "SCAN003")
    # By the pod's UID as well, as its other containers have it; but not where anybody else is in it.
    assert of(crowded(*MANY, holder=Holder("b" * 64, "uid-1"), ignored_pods=("default/web-1",))) == of(named)
    others = replace(known(named.namespaces)[0], holders=(Holder(LIVE), Holder()))
    assert of(replace(named, namespaces=(others,)))["10.52.0.77"] == "live"
    assert of(crowded(*MANY, holder=Holder(), ignored_pods=("default/web-1",)))["10.52.0.77"] == "live"


@pytest.mark.parametrize("table", ["addresses", "host_routes"])
def test_a_table_that_could_not_be_read_keeps_whatever_the_operator_has_named(table: str) -> None:
    """His word is about what is in the namespace, and nobody has seen that."""
    unread = not_seen("reading its addresses: Permission denied")
    named = crowded(*MANY, ignored_pods=("default/web-1",))
    (one,) = known(named.namespaces)
    parts: dict[str, Any] = {table: unread}
    judgement = diagnose(replace(named, namespaces=(replace(one, **parts),))).judgement
    assert {judged.address: judged.verdict for judged in judgement.leases}["10.52.0.77"] == "pending"
    assert unread in judgement.unseen


def test_what_was_overlooked_is_named_and_keeps_nothing() -> None:
    one = Overlooked(7, "x", Holder("b" * 64, "uid-1"), "its open files")
    what = evidence(lease(), overlooked=(one,))
    assert only(what, "SCAN004").summary == (
        "could not read all of its open files: process 7 (x) of the pod default/web-1"
    )
    assert diagnose(what).judgement.unseen == ()
    stranger = evidence(overlooked=(replace(one, holder=Holder()),))
    assert only(stranger, "SCAN004").summary.endswith("process 7 (x), in no container")


def test_selecting_findings() -> None:
    what = evidence(lease(), lease("10.52.0.9", b""), boot_id=not_seen("no"))
    diagnosis = diagnose(what)
    assert {f.id for f in select(diagnosis, "LEASE010").findings} == {"LEASE010", "SCAN001"}
    assert select(diagnosis, None) == diagnosis
    assert select(diagnosis, "leases").findings == diagnosis.findings
    with pytest.raises(ValueError, match="no such check"):
        select(diagnosis, "leases,nothing")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (evidence(), "k8s-pod-network 10.52.0.0/24: 1 of 253 used: 1 live; nothing to free"),
        (evidence(lease()), "'janitor clean' would free 1"),
        (evidence(lease(), boot_id=not_seen("no")), "janitor could not see everything"),
        (evidence(lease(ctime_ns=BOOT + 9_999 * SECOND)), "'janitor clean' would watch them for 10 min"),
        (evidence(networks=(network(range_sets=not_seen("x")),)), "k8s-pod-network: 1 address used: 1 live"),
        (
            in_directory(
                lease("10.52.0.2", f"{LIVE}\r\neth0".encode()),
                lease("10.52.0.9", b"by hand"),
                networks=(network(range_sets=not_seen("x")),),
            ),
            "k8s-pod-network: 1 address used: 1 live, plus 1 foreign file; nothing to free",
        ),
        (evidence(networks=(), cache=()), "1 foreign file"),
        (evidence(networks=(), cache=(), lease_directories=()), "no host-local leases on this node"),
    ],
)
def test_headline(what: Evidence, sentence: str) -> None:
    (line,) = headlines(make_report(what, diagnose(what)))
    assert sentence in line.text


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("colour", [False, True])
def test_table(width: int, colour: bool) -> None:
    what = evidence(*(lease(f"10.52.0.{n}") for n in range(10, 80)), lease("10.52.0.9", b"[bold]by hand[/bold]"))
    text = to_table(make_report(what, diagnose(what)), width=width, colour=colour)
    assert ("\x1b[" in text) == colour
    assert "and 32 more" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_reason_is_said_once_where_many_rows_have_it() -> None:
    what = evidence(*(lease(f"10.52.0.{n}") for n in range(10, 80)))
    report = make_report(what, diagnose(what))
    why = "no runtime, process, network namespace or route on this node knows its container or its address"
    rows = [line for line in to_table(report, width=200, colour=False).splitlines() if " orphaned " in line]
    assert rows[0].endswith(f"  {why}")
    assert all(line.endswith("  as above") for line in rows[1:])
    rows = [
        line
        for line in to_table(report, width=200, colour=False, every_lease=True).splitlines()
        if " orphaned " in line and line.endswith(f"  {why}")
    ]
    assert len(rows) == 70  # for grep(1)


def test_that_not_all_was_seen_is_said_once() -> None:
    what = evidence(lease(), boot_id=not_seen("no"))
    text = to_table(make_report(what, diagnose(what)), width=200, colour=False)
    assert "janitor could not see everything (SCAN001)" in text.splitlines()[0]
    assert "this report is incomplete" not in text
    # Where the first lines are about something else it has a line of its own.
    text = to_table(make_report(what, diagnose(what)), width=200, colour=False, leases=False)
    assert text.startswith("janitor could not see everything (SCAN001): this report is incomplete.")


def explained(what: Evidence, address: str, width: int = 120) -> str:
    diagnosis = diagnose(what)
    return explain(make_report(what, diagnosis), diagnosis.judgement.sightings, address, width)


def test_explain() -> None:
    what = evidence(lease(), lease("10.52.0.9", b""))
    assert "is live" in (text := explained(what, "10.52.0.2", 80))
    assert ("default/web-1" in text, LIVE in text) == (True, True)
    assert "freed by   janitor clean" in explained(what, "10.52.0.77")
    assert "is free: k8s-pod-network has no lease for it" in explained(what, "10.52.0.200")
    assert "in no range" in explained(what, "192.0.2.1")
    assert "is the gateway in k8s-pod-network" in explained(what, "10.52.0.1")
    assert "is the broadcast address" in explained(what, "10.52.0.255")
    assert all(len(line) <= 80 or "/var/lib" in line or LIVE in line for line in text.splitlines())


def test_explain_says_what_it_could_not_see() -> None:
    blind = evidence(networks=not_seen("no CNI configuration was found"), cache=(), lease_directories=())
    text = explained(blind, "10.52.0.7")
    assert "janitor could not see everything" in text
    assert "not seen   no CNI configuration was found" in text


NOT = not_seen("not to be seen here")
ALL_BUT_ONE: dict[str, dict[str, Any]] = {
    **{part: {part: NOT} for part in ("boot_id", "networks", "lease_directories", "cache", "endpoints", "namespaces",
                                      "processes", "task_directories")},
    "leases": {"lease_directories": (LeaseDirectory(DIRECTORY, "k8s-pod-network", NOT, "ext4"),)},
    "sandboxes": {"endpoints": (endpoint(sandboxes=NOT),)},
    "records": {"endpoints": (endpoint(sandbox(LIVE), records=NOT),)},
    "a sandbox": {"endpoints": (endpoint(sandbox(LIVE, addresses=NOT)),)},
    "a namespace": {"namespaces": (NetworkNamespace(1, "process 1 (systemd)", NOT, ()),)},
    "routes": {"namespaces": (NetworkNamespace(1, "process 1 (systemd)", (), NOT),)},
}  # fmt: skip


@pytest.mark.parametrize("part", ALL_BUT_ONE)
def test_no_address_is_called_free_where_something_was_not_seen(part: str) -> None:
    text = explained(evidence(**ALL_BUT_ONE[part]), "10.52.0.200", 200)
    assert "is free" not in text
    assert "janitor could not see everything" in text
    assert "not seen   not to be seen here" in text


def test_an_address_that_is_in_use_without_a_lease_is_not_called_free() -> None:
    by_hand = NetworkNamespace(3, "/run/netns/by-hand", ("10.52.0.200",), ())
    text = explained(evidence(namespaces=(*known(evidence().namespaces), by_hand)), "10.52.0.200")
    assert text.startswith("10.52.0.200 is in use, but k8s-pod-network has no lease for it")
    assert "because    the address is up in the network namespace of /run/netns/by-hand" in text
    # gVisor takes a pod's address off the namespace: then only its runtime says whose it is.
    claims = (sandbox(LIVE), sandbox(DEAD, addresses=("10.52.0.200",)), sandbox("e" * 64, False, ("10.52.0.201",)))
    found = evidence(endpoints=(endpoint(*claims),))
    assert explained(found, "10.52.0.200").startswith("10.52.0.200 is in use, but")
    assert "the runtime lists this address for the sandbox" in explained(found, "10.52.0.200")
    assert explained(found, "10.52.0.201").startswith("10.52.0.201 is free")


def test_headline_of_the_worst() -> None:
    small = network(range_sets=((make_range("10.52.0.0/29"),),))
    files = [lease(f"10.52.0.{last}") for last in range(3, 7)]
    what = in_directory(*files, lease("10.99.0.1"), networks=(small,))
    (line,) = headlines(make_report(what, diagnose(what)))
    assert line.text == (
        "1 address in use but NOT RESERVED (LEASE003); k8s-pod-network 10.52.0.0/29: 4 of 5 used: 4 orphaned, "
        "plus 1 foreign file; 'janitor clean' would free 4"
    )


def not_ours(*files: LeaseFile, **other: Any) -> Evidence:
    """A node in a container whose operator has not said that its lease directories are its own."""
    return replace(in_directory(*files, **other), this_node=(replace(NODE, first=False),))


def test_what_no_waiting_frees_is_not_left_to_waiting() -> None:
    small = network(range_sets=((make_range("10.52.0.0/29"),),))
    live = lease("10.52.0.2", f"{LIVE}\r\neth0".encode())
    what = not_ours(live, *(lease(f"10.52.0.{last}") for last in range(3, 7)), networks=(small,))
    (line,) = headlines(make_report(what, diagnose(what)))
    assert line.text.endswith("none is proven dead; 'janitor explain 10.52.0.3' says why")
    assert only(what, "LEASE005").fix.text.startswith("'janitor explain 10.52.0.3' shows")
    text = explained(what, "10.52.0.3")
    assert "data_dirs_are_ours = true" in text
    assert "freed by   nothing, while these reasons hold" in text


def test_a_directory_with_another_nodes_mark_has_a_fix_of_its_own() -> None:
    directory = LeaseDirectory(
        DIRECTORY, "k8s-pod-network", (lease(),), "ext4", marks=(replace(NODE, number="6" * 32),)
    )
    what = evidence(lease_directories=(directory,), this_node=(replace(NODE, machine_id="4" * 32),))
    (line,) = headlines(make_report(what, diagnose(what)))
    assert line.text.endswith("1 foreign file (LEASE008)")
    assert only(what, "LEASE008").fix.text == (
        "only if no other node uses the directory: rm /var/lib/cni/networks/.janitor-node"
    )


def test_damaged_cache_entries_that_are_not_shown_are_counted() -> None:
    damaged = [cache_entry(f"{n:064x}", damage=because(Code.EMPTY), network="cni-loopback") for n in range(12)]
    assert only(evidence(cache=(cache_entry(LIVE, "10.52.0.2"), *damaged)), "LEASE009").evidence[8:] == ("and 4 more",)


def test_what_is_left_for_the_same_reason_is_said_once() -> None:
    """As what would be done is; one that is alone has a line of its own."""
    same = [
        Refusal(
            f"{DIRECTORY}/10.52.0.{n}",
            (because(Code.SANDBOX_NOT_RUNNING, pod=f"a/b-{n}"), recorded("too young")),
            60 * n,
            f"a/b-{n}",
        )
        for n in (3, 4, 5)
    ]
    assert plan_text(
        Plan((), (*same, Refusal(f"{DIRECTORY}/10.52.0.9", (recorded("no"),), None))), 200
    ).splitlines() == [
        f"left: 3 in {DIRECTORY}: 10.52.0.3 (a/b-3), 10.52.0.4 (a/b-4), 10.52.0.5 (a/b-5)",
        "  because too young (check again in 5 min)",
        f"left: {DIRECTORY}/10.52.0.9: no",
    ]


def test_leases_come_in_the_order_of_their_addresses() -> None:
    what = in_directory(*(lease(f"10.52.0.{n}") for n in (100, 9, 20)), lease("fd00::1"))
    assert [x.address for x in diagnose(what).judgement.leases][:4] == [
        "10.52.0.9",
        "10.52.0.20",
        "10.52.0.100",
        "fd00::1",
    ]
