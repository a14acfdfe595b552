"""The safety rule, clause by clause: each situation differs in one thing from a lease that would be freed."""

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.leases.judgement import FREEABLE, Verdict, judge
from janitor.core.model.addresses import make_range
from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    ContainerRecord,
    Evidence,
    LeaseDirectory,
    LeaseFile,
    NetworkNamespace,
    Observation,
    Process,
    RuntimeProcess,
    TaskDirectory,
    Unknown,
    known,
)
from janitor.core.model.lease import identity
from janitor.core.model.reason import because
from tests.reasons import not_seen, recorded, words
from tests.situations import (
    ADDRESS,
    BOOT,
    DEAD,
    DIRECTORY,
    LIVE,
    NOW,
    RUNTIME_START,
    SECOND,
    cache_entry,
    endpoint,
    evidence,
    in_ledger,
    lease,
    network,
    sandbox,
    verdict_of,
)

EMPTY = lease(content=b"")
LIVE_SANDBOX = sandbox(LIVE, addresses=("10.52.0.2",))


def young(**other: Any) -> Evidence:
    """A lease younger than the runtime."""
    return evidence(lease(born=RUNTIME_START + 60 * SECOND), **other)


def test_a_lease_older_than_the_runtime_that_nobody_knows_is_orphaned() -> None:
    assert verdict_of(evidence(lease())).verdict == Verdict.ORPHANED


def test_an_empty_lease_older_than_the_runtime_is_corrupt() -> None:
    judged = verdict_of(evidence(EMPTY))
    assert judged.verdict == Verdict.CORRUPT
    assert "it is empty" in words(judged.reasons[0])


@pytest.mark.parametrize("file", [lease(), EMPTY, lease(content=b"\0" * 70)], ids=["orphan", "empty", "nul"])
class TestWhoeverLooksDead:
    """Each of these keeps a lease that would be freed otherwise."""

    def test_address_up_in_a_namespace(self, file: LeaseFile) -> None:
        seen = NetworkNamespace(3, "/run/netns/cni-2", (ADDRESS,), ())
        found = evidence(file)
        assert verdict_of(replace(found, namespaces=(*known(found.namespaces), seen))).verdict == Verdict.LIVE

    def test_host_route_to_the_address(self, file: LeaseFile) -> None:
        seen = NetworkNamespace(1, "process 1", (), (ADDRESS,))
        assert verdict_of(evidence(file, namespaces=(seen,))).verdict == Verdict.LIVE

    def test_a_sandbox_that_says_the_address_is_its_own(self, file: LeaseFile) -> None:
        listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, addresses=(ADDRESS,)))
        assert verdict_of(evidence(file, endpoints=(listed,))).verdict == Verdict.LIVE

    def test_a_stopped_sandbox_that_says_the_address_is_its_own(self, file: LeaseFile) -> None:
        listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, ready=False, addresses=(ADDRESS,)))
        assert verdict_of(evidence(file, endpoints=(listed,))).verdict == Verdict.HELD

    def test_a_stopped_sandbox_whose_cached_result_names_the_address(self, file: LeaseFile) -> None:
        # Its DEL is still to come, and the firewall plugin's DEL goes by address (trap 26).
        listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, ready=False))
        found = evidence(file, endpoints=(listed,), cache=(cache_entry("b" * 64, ADDRESS),))
        assert verdict_of(found).verdict == Verdict.HELD

    @pytest.mark.parametrize(
        "part", ["boot_id", "networks", "cache", "endpoints", "namespaces", "processes", "task_directories"]
    )
    def test_a_part_that_was_not_seen(self, file: LeaseFile, part: str) -> None:
        change: dict[str, Any] = {part: not_seen("no permission")}
        found = replace(evidence(file), **change)
        judged = verdict_of(found)
        assert (judged.verdict, judged.unseen) == (Verdict.PENDING, (not_seen("no permission"),))
        assert judge(found).unseen == (not_seen("no permission"),)

    @pytest.mark.parametrize("part", ["sandboxes", "records", "listeners"])
    def test_a_runtime_that_did_not_answer(self, file: LeaseFile, part: str) -> None:
        change: dict[str, Any] = {part: not_seen("no answer within 5 s")}
        silent = replace(endpoint(LIVE_SANDBOX), **change)
        judged = verdict_of(evidence(file, endpoints=(silent,)))
        assert (judged.verdict, judged.unseen) == (Verdict.PENDING, (not_seen("no answer within 5 s"),))

    def test_one_of_two_named_runtimes_did_not_answer(self, file: LeaseFile) -> None:
        silent = endpoint(address="unix:///run/crio/crio.sock", origin="flag", sandboxes=not_seen("no"))
        found = evidence(file, endpoints=(endpoint(LIVE_SANDBOX), silent))
        assert verdict_of(found).verdict == Verdict.PENDING

    def test_an_unused_socket_that_nobody_named_does_not_stand_in_the_way(self, file: LeaseFile) -> None:
        stale = endpoint(address="unix:///run/cri-dockerd.sock", origin="well-known", sandboxes=not_seen("no"))
        found = evidence(file, endpoints=(endpoint(LIVE_SANDBOX), stale))
        assert verdict_of(found).verdict in FREEABLE

    def test_no_runtime_at_all(self, file: LeaseFile) -> None:
        assert verdict_of(evidence(file, endpoints=())).verdict == Verdict.PENDING

    def test_an_empty_list_from_a_socket_nobody_named(self, file: LeaseFile) -> None:
        assert verdict_of(evidence(file, endpoints=(endpoint(origin="well-known"),))).verdict == Verdict.PENDING

    @pytest.mark.parametrize("table", ["addresses", "host_routes"])
    def test_a_namespace_that_could_not_be_read(self, file: LeaseFile, table: str) -> None:
        change: dict[str, Any] = {table: not_seen("no permission")}
        hidden = replace(NetworkNamespace(3, "/run/netns/x", (), ()), **change)
        found = evidence(file)
        assert verdict_of(replace(found, namespaces=(*known(found.namespaces), hidden))).verdict == Verdict.PENDING

    def test_no_namespace_at_all(self, file: LeaseFile) -> None:
        assert verdict_of(evidence(file, namespaces=())).verdict == Verdict.PENDING

    def test_a_network_that_forbids_garbage_collection(self, file: LeaseFile) -> None:
        assert verdict_of(evidence(file, networks=(network(disable_gc=True),))).verdict == Verdict.FOREIGN

    def test_a_network_that_cri_does_not_use(self, file: LeaseFile) -> None:
        found = evidence(file, networks=(network(used_by_cri=False),), cache=())
        assert verdict_of(found).verdict == Verdict.FOREIGN

    def test_a_directory_that_no_configuration_names(self, file: LeaseFile) -> None:
        found = evidence(file, networks=(network(name="other"),), cache=())
        assert verdict_of(found).verdict == Verdict.FOREIGN

    def test_outside_the_ranges(self, file: LeaseFile) -> None:
        moved = network(range_sets=((make_range("10.53.0.0/24"),),))
        assert verdict_of(evidence(file, networks=(moved,))).verdict == Verdict.FOREIGN

    def test_a_file_system_that_other_nodes_write_to(self, file: LeaseFile) -> None:
        shared = LeaseDirectory(DIRECTORY, "k8s-pod-network", (file,), "nfs4")
        assert verdict_of(evidence(lease_directories=(shared,))).verdict == Verdict.FOREIGN

    def test_younger_than_the_runtime(self, file: LeaseFile) -> None:
        fresh = replace(file, ctime_ns=BOOT + RUNTIME_START + SECOND)
        assert verdict_of(evidence(fresh)).verdict == Verdict.PENDING

    def test_a_clock_that_was_set_forward_since_the_runtime_started(self, file: LeaseFile) -> None:
        # The socket was made at what the clock then called 1970.
        process = RuntimeProcess(700, "containerd", RUNTIME_START, 20 * SECOND)
        assert verdict_of(evidence(file, endpoints=(endpoint(LIVE_SANDBOX, listeners=(process,)),))).verdict == (
            Verdict.PENDING
        )

    def test_a_clock_that_was_set_back_since_the_runtime_started(self, file: LeaseFile) -> None:
        process = RuntimeProcess(700, "containerd", RUNTIME_START, BOOT + NOW + 86_400 * SECOND)
        assert verdict_of(evidence(file, endpoints=(endpoint(LIVE_SANDBOX, listeners=(process,)),))).verdict == (
            Verdict.PENDING
        )

    @pytest.mark.parametrize("when", [RUNTIME_START, NOW - SECOND, not_seen("the note cannot be read")])
    def test_a_clock_that_somebody_saw_being_set_since_the_runtime_started(
        self, file: LeaseFile, when: int | Unknown
    ) -> None:
        assert verdict_of(evidence(file, clock_set_ns=when)).verdict == Verdict.PENDING

    def test_a_socket_made_by_systemd(self, file: LeaseFile) -> None:
        process = RuntimeProcess(1, "systemd", RUNTIME_START, BOOT + RUNTIME_START)
        assert verdict_of(evidence(file, endpoints=(endpoint(LIVE_SANDBOX, listeners=(process,)),))).verdict == (
            Verdict.PENDING
        )


def test_its_own_sandbox_is_ready() -> None:
    listed = endpoint(LIVE_SANDBOX, sandbox(DEAD))
    assert verdict_of(evidence(lease(), endpoints=(listed,))).verdict == Verdict.LIVE


def test_its_own_sandbox_is_not_ready() -> None:
    listed = endpoint(LIVE_SANDBOX, sandbox(DEAD, ready=False))
    assert verdict_of(evidence(lease(), endpoints=(listed,))).verdict == Verdict.HELD


def test_not_ready_with_the_address_up_is_live() -> None:
    listed = endpoint(LIVE_SANDBOX, sandbox(DEAD, ready=False, addresses=(ADDRESS,)))
    up = NetworkNamespace(3, "/run/netns/cni-2", (ADDRESS,), ())
    assert verdict_of(evidence(lease(), endpoints=(listed,), namespaces=(up,))).verdict == Verdict.LIVE


@pytest.mark.parametrize("kind", ["container", "task", "sandbox"])
def test_containerd_has_a_record_that_cri_does_not_list(kind: Any) -> None:
    record = ContainerRecord("k8s.io", DEAD, kind)
    assert verdict_of(evidence(lease(), endpoints=(endpoint(LIVE_SANDBOX, records=(record,)),))).verdict == Verdict.LIVE


def test_a_shim_runs_for_it() -> None:
    shim = Process(812, "containerd-shim", 0, (DEAD,))
    assert verdict_of(evidence(lease(), processes=(shim,))).verdict == Verdict.LIVE


def test_a_cni_plugin_is_at_work_on_it() -> None:
    plugin = Process(812, "bridge", 0, (), "ADD", DEAD)
    assert verdict_of(evidence(lease(), processes=(plugin,))).verdict == Verdict.LIVE


def test_a_listed_sandbox_whose_addresses_could_not_be_seen_keeps_what_names_nobody() -> None:
    silent = endpoint(sandbox(LIVE, addresses=("10.52.0.2",)), sandbox("b" * 64, addresses=not_seen("no answer")))
    assert verdict_of(evidence(EMPTY, endpoints=(silent,))).verdict == Verdict.PENDING
    assert verdict_of(evidence(lease(), endpoints=(silent,))).verdict == Verdict.ORPHANED


def test_a_directory_that_the_runtime_does_not_see_is_not_judged() -> None:
    other = LeaseDirectory(DIRECTORY, "k8s-pod-network", (lease(),), "ext4", recorded("the runtime sees another one"))
    assert verdict_of(evidence(lease_directories=(other,))).verdict == Verdict.FOREIGN


def test_a_plugin_that_was_there_before_the_watching_began_keeps_what_names_nobody() -> None:
    file = lease(content=b"", born=RUNTIME_START + 60 * SECOND)
    this = identity(f"{DIRECTORY}/{file.name}", file)
    assert this is not None
    seen = Observation(this, file.ctime_ns, NOW - 700 * SECOND, NOW - SECOND, 2)
    plugin = Process(812, "bridge", NOW - 800 * SECOND, (), "ADD", "c" * 64)
    assert verdict_of(evidence(file, observations=(seen,))).verdict == Verdict.CORRUPT
    assert verdict_of(evidence(file, observations=(seen,), processes=(plugin,))).verdict == Verdict.PENDING
    later = replace(plugin, started_ns=NOW - 600 * SECOND)
    assert verdict_of(evidence(file, observations=(seen,), processes=(later,))).verdict == Verdict.CORRUPT


def test_a_plugin_that_outlived_its_runtime_may_be_about_to_write_a_nameless_lease() -> None:
    plugin = Process(812, "bridge", RUNTIME_START - SECOND, (), "ADD", "c" * 64)
    assert verdict_of(evidence(EMPTY, processes=(plugin,))).verdict == Verdict.PENDING
    assert verdict_of(evidence(lease(), processes=(plugin,))).verdict == Verdict.ORPHANED
    younger = replace(plugin, started_ns=RUNTIME_START + SECOND)
    assert verdict_of(evidence(EMPTY, processes=(younger,))).verdict == Verdict.CORRUPT


def test_a_task_directory_is_a_reason_to_keep() -> None:
    task = TaskDirectory(f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{DEAD}", DEAD)
    assert verdict_of(evidence(lease(), task_directories=(task,))).verdict == Verdict.PENDING


def test_an_id_is_never_matched_by_prefix() -> None:
    almost = DEAD[:-1] + "0"
    listed = endpoint(LIVE_SANDBOX, sandbox(almost, ready=False))
    assert verdict_of(evidence(lease(), endpoints=(listed,))).verdict == Verdict.ORPHANED


def test_the_same_id_on_another_interface_is_the_same_owner() -> None:
    second = lease(content=f"{LIVE}\r\nnet1".encode())
    assert verdict_of(evidence(second)).verdict == Verdict.LIVE


def test_the_boot_ledger_proves_age() -> None:
    file = lease(born=RUNTIME_START + 60 * SECOND)
    assert verdict_of(young()).verdict == Verdict.PENDING
    judged = verdict_of(in_ledger(young(), file))
    assert judged.verdict == Verdict.ORPHANED
    assert "boot ledger" in words(judged.reasons)


@pytest.mark.parametrize(
    "change", [{"inode": 7}, {"device": 7}, {"mtime_ns": 7}, {"content": f"{'e' * 64}\r\neth0".encode()}, {"size": 69}]
)
def test_the_ledger_is_about_that_very_file(change: dict[str, Any]) -> None:
    file = lease(born=RUNTIME_START + 60 * SECOND)
    replaced = replace(file, **change)
    assert verdict_of(in_ledger(evidence(replaced), file)).verdict == Verdict.PENDING


def watched(seconds: int, passes: int = 2, **change: Any) -> Evidence:
    file = lease(born=RUNTIME_START + 60 * SECOND)
    this = identity(f"{DIRECTORY}/{file.name}", file)
    assert this is not None
    seen = Observation(this, file.ctime_ns, NOW - seconds * SECOND, NOW - SECOND, passes)
    return evidence(replace(file, **change), observations=(seen,))


def test_watching_for_the_grace_proves_age() -> None:
    assert verdict_of(watched(600)).verdict == Verdict.ORPHANED
    judged = verdict_of(watched(200))
    assert (judged.verdict, judged.wait_s) == (Verdict.PENDING, 400)


def test_the_grace_has_a_floor() -> None:
    assert verdict_of(watched(59), grace_s=0).verdict == Verdict.PENDING
    assert verdict_of(watched(60), grace_s=0).verdict == Verdict.ORPHANED


@pytest.mark.parametrize(("asleep_s", "verdict"), [(100, Verdict.ORPHANED), (101, Verdict.PENDING)])
def test_a_machine_that_slept_watched_nothing(asleep_s: int, verdict: Verdict) -> None:
    """CLOCK_BOOTTIME goes on while nobody could have made a pod, or finished one: only what was awake counts."""
    found = watched(700)
    at_first = 50 * SECOND  # it had slept before as well
    seen = tuple(replace(one, asleep_ns=at_first) for one in known(found.observations))
    found = replace(found, observations=seen, started=replace(found.started, asleep_ns=at_first + asleep_s * SECOND))
    judged = verdict_of(found)
    assert judged.verdict == verdict
    assert (judged.wait_s == asleep_s - 100) is (verdict is Verdict.PENDING)


def test_a_watch_noted_without_the_clock_of_sleep_counts_all_sleep_since_the_boot() -> None:
    found = watched(700)
    found = replace(found, started=replace(found.started, asleep_ns=200 * SECOND))
    assert verdict_of(found).verdict == Verdict.PENDING


@pytest.mark.parametrize("change", [{"ctime_ns": 7}, {"inode": 7}, {"mtime_ns": 7}])
def test_a_file_that_changed_was_not_watched(change: dict[str, Any]) -> None:
    assert verdict_of(watched(6_000, **change)).verdict == Verdict.PENDING


def test_the_wall_clock_alone_never_proves_age() -> None:
    # Ten years old by its times, but the runtime's start cannot be related to them.
    old = lease(mtime_ns=0, ctime_ns=0)
    process = RuntimeProcess(700, "containerd", RUNTIME_START, 0)
    found = evidence(old, endpoints=(endpoint(LIVE_SANDBOX, listeners=(process,)),))
    assert verdict_of(found).verdict == Verdict.PENDING


def test_a_clock_that_was_set_before_the_runtime_started_is_as_good_as_any() -> None:
    judged = verdict_of(evidence(lease(), clock_set_ns=RUNTIME_START - SECOND))
    assert judged.verdict == Verdict.ORPHANED
    assert "written before the runtime started" in words(judged.reasons)


def test_unknown_ranges_are_said_and_do_not_stand_in_the_way() -> None:
    found = evidence(lease(), networks=(network(range_sets=not_seen("flannel has not written its file")),))
    judged = verdict_of(found)
    assert judged.verdict == Verdict.ORPHANED
    assert "flannel has not written its file" in words(judged.reasons[-1])


def test_a_listed_sandbox_brings_its_network_into_scope() -> None:
    other = LeaseDirectory("/var/lib/cni/networks/macvlan", "macvlan", (lease("10.60.0.9"),), "ext4")
    entry = cache_entry(LIVE, "10.60.0.8", network="macvlan", interface="net1")
    found = evidence()
    directories = (*known(found.lease_directories), other)
    with_entry = replace(found, lease_directories=directories, cache=(entry,))
    assert verdict_of(with_entry, "10.60.0.9").verdict == Verdict.ORPHANED
    assert verdict_of(replace(with_entry, cache=()), "10.60.0.9").verdict == Verdict.FOREIGN


def test_the_operator_brings_a_data_directory_into_scope_but_not_a_network_of_somebody_else() -> None:
    other = LeaseDirectory("/srv/leases/pods", "pods", (lease("10.60.0.9"),), "ext4")
    found = evidence(lease_directories=(other,), allowed_data_dirs=("/srv/leases",), cache=())
    assert verdict_of(found, "10.60.0.9").verdict == Verdict.ORPHANED
    podman = network(name="pods", data_dir="/srv/leases", used_by_cri=False, range_sets=())
    claimed = replace(found, networks=(network(), podman))
    assert verdict_of(claimed, "10.60.0.9").verdict == Verdict.FOREIGN


def test_missing_lease_of_a_live_pod() -> None:
    found = evidence(lease_directories=(LeaseDirectory(DIRECTORY, "k8s-pod-network", (), "ext4"),))
    judged = verdict_of(found, "10.52.0.2")
    assert (judged.verdict, judged.container_id, judged.pod) == (Verdict.MISSING, LIVE, "default/web-1")


@pytest.mark.parametrize(
    "why",
    [
        {"namespaces": (NetworkNamespace(1, "process 1", (), ()),)},
        {"cache": ()},
        {"cache": (cache_entry(LIVE, "10.52.0.2", ipam=("calico-ipam",)),)},
        {"cache": (cache_entry(LIVE, "10.52.0.2", damage=because(Code.EMPTY)),)},
        {"endpoints": (endpoint(sandbox(LIVE, ready=False)),)},
        {"endpoints": (endpoint(sandbox(LIVE, network_mode="node")),)},
        {"lease_directories": (LeaseDirectory(DIRECTORY, "k8s-pod-network", not_seen("no"), "ext4"),)},
    ],
    ids=["not up", "not in the cache", "not host-local's", "cache damaged", "not ready", "host network", "unreadable"],
)
def test_not_missing(why: dict[str, Any]) -> None:
    empty = (LeaseDirectory(DIRECTORY, "k8s-pod-network", (), "ext4"),)
    assert judge(evidence(**({"lease_directories": empty} | why))).leases == ()


def test_an_unreadable_lease_is_kept() -> None:
    judged = verdict_of(evidence(lease(content=not_seen("permission denied"))))
    assert (judged.verdict, judged.unseen) == (Verdict.PENDING, (not_seen("permission denied"),))


def test_bookkeeping_files_are_no_leases() -> None:
    files = (lease(name="10.52.0.3"), replace(lease(), name="lock"), replace(lease(), name="last_reserved_ip.0"))
    assert [x.address for x in judge(evidence(*files)).leases] == ["10.52.0.2", "10.52.0.3"]


# One container, several leases.


def two_addresses(**other: Any) -> Evidence:
    """A container that nobody lists and no process names has two leases, in one network."""
    return evidence(lease(), lease("10.52.0.78"), **other)


def test_an_address_that_is_up_speaks_for_the_other_leases_of_its_container() -> None:
    """Dual stack, or a second network: the other address may be in a virtual machine, or not be up yet."""
    assert verdict_of(two_addresses()).verdict == Verdict.ORPHANED
    up = NetworkNamespace(3, "/run/netns/cni-2", ("10.52.0.78",), ())
    found = two_addresses()
    found = replace(found, namespaces=(*known(found.namespaces), up))
    judged = verdict_of(found)
    assert judged.verdict == Verdict.LIVE
    assert judged.reasons == (because(Code.OTHER_ADDRESS_UP, address="10.52.0.78"),)


def test_an_address_that_is_up_speaks_for_leases_in_other_networks() -> None:
    second = LeaseDirectory("/var/lib/cni/networks/other", "other", (lease("10.60.0.9"),), "ext4")
    found = evidence(lease(), networks=(network(), network(name="other", range_sets=())))
    found = replace(found, lease_directories=(*known(found.lease_directories), second))
    assert verdict_of(found).verdict == Verdict.ORPHANED
    routed = NetworkNamespace(1, "process 1", (), ("10.60.0.9",))
    assert verdict_of(replace(found, namespaces=(*known(found.namespaces), routed))).verdict == Verdict.LIVE


# What is left of an ID.


@pytest.mark.parametrize(
    "why",
    [
        {"processes": (Process(812, "containerd-shim", 0, (DEAD,)),)},
        {"endpoints": (endpoint(LIVE_SANDBOX, sandbox(DEAD, ready=False)),)},
        {"task_directories": (TaskDirectory("/run/x", DEAD),)},
    ],
    ids=["a process", "a stopped sandbox", "a task directory"],
)
@pytest.mark.parametrize("content", [DEAD[:20].encode(), DEAD.encode()[:30] + b"\0" * 40], ids=["cut short", "NUL"])
def test_the_beginning_of_an_id_is_that_of_its_owner(content: bytes, why: dict[str, Any]) -> None:
    broken = lease(content=content)
    assert verdict_of(evidence(broken)).verdict == Verdict.CORRUPT
    judged = verdict_of(evidence(broken, **why))
    assert judged.verdict == Verdict.LIVE
    assert "its truncated container ID matches" in words(judged.reasons[0])


# Sightings.


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_of_two_listings_of_a_sandbox_the_ready_one_counts(order: tuple[bool, bool]) -> None:
    """One runtime may answer at two sockets, one of them late."""
    both = tuple(endpoint(LIVE_SANDBOX, sandbox(DEAD, ready=ready), address=f"unix:///{ready}") for ready in order)
    entry = cache_entry(DEAD, "10.52.0.90")
    found = evidence(
        lease("10.52.0.91", b""), endpoints=both, cache=(entry,),
        namespaces=(NetworkNamespace(1, "process 1", ("10.52.0.90",), ()),),
    )  # fmt: skip
    assert [x.address for x in judge(found).leases if x.verdict == Verdict.MISSING] == ["10.52.0.90"]


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_of_two_claims_to_an_address_the_ready_one_stands(order: tuple[bool, bool]) -> None:
    claims = [sandbox(str(number) * 64, ready=ready, addresses=(ADDRESS,)) for number, ready in enumerate(order)]
    found = evidence(lease(), endpoints=(endpoint(LIVE_SANDBOX, *claims),))
    assert verdict_of(found).verdict == Verdict.LIVE


def test_every_id_that_a_process_names_is_seen() -> None:
    shim = Process(812, "containerd-shim", 0, ("e" * 64, DEAD))
    assert verdict_of(evidence(lease(), processes=(shim,))).verdict == Verdict.LIVE


def test_a_plugin_whose_command_could_not_be_read_is_at_work_on_it() -> None:
    assert verdict_of(evidence(lease(), processes=(Process(812, "bridge", 0, (), "", DEAD),))).verdict == Verdict.LIVE


def test_a_pod_of_the_hosts_network_claims_no_address() -> None:
    listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, network_mode="node", addresses=(ADDRESS,)))
    assert verdict_of(evidence(lease(), endpoints=(listed,))).verdict == Verdict.ORPHANED


def test_a_damaged_cache_entry_claims_no_address() -> None:
    """Nothing can be said for what is in it, and its DEL will fail before it goes by any address."""
    listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, ready=False))
    entry = cache_entry("b" * 64, ADDRESS, damage=recorded("it breaks off"))
    assert verdict_of(evidence(lease(), endpoints=(listed,), cache=(entry,))).verdict == Verdict.ORPHANED


def test_a_cached_address_is_the_same_however_it_is_written() -> None:
    name = "fd00:52::7"
    entry = cache_entry("b" * 64, addresses=("FD00:0052::0007/64",))
    listed = endpoint(LIVE_SANDBOX, sandbox("b" * 64, ready=False))
    dual = network(range_sets=((make_range("fd00:52::/64"),),))
    found = evidence(lease(name), networks=(dual,), endpoints=(listed,), cache=(entry,))
    assert verdict_of(found, name).verdict == Verdict.HELD


def test_addresses_of_a_stopped_sandbox_that_could_not_be_seen_keep_what_names_nobody() -> None:
    silent = endpoint(LIVE_SANDBOX, sandbox("b" * 64, ready=False, addresses=not_seen("no answer")))
    assert verdict_of(evidence(EMPTY, endpoints=(silent,))).verdict == Verdict.PENDING


# Which runtimes have to answer.


def test_where_nobody_named_a_runtime_all_that_were_found_have_to_answer() -> None:
    found = endpoint(LIVE_SANDBOX, origin="well-known")
    other = endpoint(address="unix:///run/crio/crio.sock", origin="well-known", sandboxes=not_seen("no answer"))
    assert verdict_of(evidence(lease(), endpoints=(found, other))).verdict == Verdict.PENDING
    assert verdict_of(evidence(lease(), endpoints=(found,))).verdict == Verdict.ORPHANED


def test_an_unused_runtime_beside_one_with_sandboxes_does_not_stand_in_the_way() -> None:
    found = endpoint(LIVE_SANDBOX, origin="well-known")
    empty = endpoint(address="unix:///run/crio/crio.sock", origin="well-known")
    assert verdict_of(evidence(lease(), endpoints=(found, empty))).verdict == Verdict.ORPHANED


def test_an_empty_list_of_a_runtime_that_somebody_named_is_an_answer() -> None:
    assert verdict_of(evidence(lease(), endpoints=(endpoint(),))).verdict == Verdict.ORPHANED


# What was not seen at all.


def test_a_directory_that_could_not_be_read_is_unseen() -> None:
    silent = LeaseDirectory(DIRECTORY, "k8s-pod-network", not_seen("input/output error"), "ext4")
    assert judge(evidence(lease_directories=(silent,))).unseen == (not_seen("input/output error"),)
    assert judge(evidence(lease_directories=not_seen("no permission"))).unseen == (not_seen("no permission"),)


# Scope.


def test_one_of_two_configurations_of_a_directory_forbids_garbage_collection() -> None:
    both = (network(), network(source="/etc/cni/net.d/20-other.conflist", disable_gc=True))
    assert verdict_of(evidence(lease(), networks=both)).verdict == Verdict.FOREIGN


def test_a_directory_that_the_operator_named_covers_none_whose_name_begins_like_it() -> None:
    other = LeaseDirectory("/srv/leases-of-podman/pods", "pods", (lease("10.60.0.9"),), "ext4")
    found = evidence(lease_directories=(other,), allowed_data_dirs=("/srv/leases",), cache=())
    assert verdict_of(found, "10.60.0.9").verdict == Verdict.FOREIGN


def test_ranges_that_cannot_be_known_make_all_of_that_directory_unknown() -> None:
    """Of two configurations the one that can be read may not say that the other's addresses are foreign."""
    both = (network(range_sets=((make_range("10.53.0.0/24"),),)), network(range_sets=not_seen("not written yet")))
    assert verdict_of(evidence(lease(), networks=both)).verdict == Verdict.ORPHANED


def test_the_ranges_are_those_of_the_networks_that_cri_uses() -> None:
    used = network(range_sets=((make_range("10.53.0.0/24"),),))
    unused = network(source="/etc/cni/net.d/99-old.conflist", used_by_cri=False)
    assert verdict_of(evidence(lease(), networks=(used, unused))).verdict == Verdict.FOREIGN


def test_the_last_address_of_a_range_is_in_it() -> None:
    assert verdict_of(evidence(lease("10.52.0.254")), "10.52.0.254").verdict == Verdict.ORPHANED
    assert verdict_of(evidence(lease("10.52.0.255")), "10.52.0.255").verdict == Verdict.FOREIGN


@pytest.mark.parametrize(
    "change",
    [{"container_id": DEAD}, {"damage": "it breaks off"}, {"ipam": ("dhcp",)}],
    ids=["of a sandbox that nobody lists", "damaged", "not host-local's"],
)
def test_a_cached_result_that_brings_no_network_into_scope(change: dict[str, Any]) -> None:
    other = LeaseDirectory("/var/lib/cni/networks/macvlan", "macvlan", (lease("10.60.0.9"),), "ext4")
    entry = cache_entry(LIVE, "10.60.0.8", network="macvlan", interface="net1")
    found = evidence(cache=(replace(entry, **change),))
    found = replace(found, lease_directories=(*known(found.lease_directories), other))
    assert verdict_of(found, "10.60.0.9").verdict == Verdict.FOREIGN


def test_a_missing_lease_of_a_network_that_is_out_of_scope_is_not_reported() -> None:
    empty = (LeaseDirectory(DIRECTORY, "k8s-pod-network", (), "nfs4"),)
    assert judge(evidence(lease_directories=empty)).leases == ()


def test_a_lease_that_lies_in_another_network_is_not_missing() -> None:
    """The address is leased: a second lease would not make it safer, and might be of another pod."""
    empty = LeaseDirectory(DIRECTORY, "k8s-pod-network", (), "ext4")
    other = LeaseDirectory(
        "/var/lib/cni/networks/old", "old", (lease("10.52.0.2", f"{LIVE}\r\neth0".encode()),), "ext4"
    )
    assert [x.verdict for x in judge(evidence(lease_directories=(empty, other))).leases] == [Verdict.FOREIGN]


# Age.


@pytest.mark.parametrize(("before_s", "verdict"), [(1, Verdict.PENDING), (3, Verdict.ORPHANED)])
def test_a_lease_from_within_the_clocks_margin_of_the_runtimes_start(before_s: int, verdict: Verdict) -> None:
    """A process's start and a file's time are of two clocks, which agree to a tick and to what NTP has slewed."""
    assert verdict_of(evidence(lease(born=RUNTIME_START - before_s * SECOND))).verdict == verdict


def runtime(started: int = RUNTIME_START, socket: int = SECOND, **other: Any) -> RuntimeProcess:
    """Its socket was made that long after its start."""
    return RuntimeProcess(other.pop("pid", 700), other.pop("name", "containerd"), started, BOOT + started + socket)


@pytest.mark.parametrize(("after_s", "verdict"), [(-1, Verdict.ORPHANED), (-3, Verdict.PENDING),
                                                  (119, Verdict.ORPHANED), (121, Verdict.PENDING)])  # fmt: skip
def test_a_socket_is_made_soon_after_its_runtimes_start(after_s: int, verdict: Verdict) -> None:
    listed = endpoint(LIVE_SANDBOX, listeners=(runtime(socket=after_s * SECOND),))
    assert verdict_of(evidence(lease(), endpoints=(listed,))).verdict == verdict


def test_a_runtime_may_have_begun_as_early_as_either_of_its_times_says() -> None:
    listed = endpoint(LIVE_SANDBOX, listeners=(runtime(socket=100 * SECOND),))
    assert verdict_of(evidence(lease(born=RUNTIME_START + 50 * SECOND), endpoints=(listed,))).verdict == (
        Verdict.PENDING
    )


@pytest.mark.parametrize("change", [{"mtime_ns": BOOT}, {"ctime_ns": BOOT}])
def test_a_file_is_as_young_as_the_later_of_its_times(change: dict[str, Any]) -> None:
    fresh = replace(lease(born=RUNTIME_START + 60 * SECOND), **change)
    assert verdict_of(evidence(fresh)).verdict == Verdict.PENDING


def test_of_two_runtimes_either_may_be_creating_it() -> None:
    """It has to be older than the one that has run longest."""
    late = endpoint(
        address="unix:///run/crio/crio.sock",
        listeners=(runtime(RUNTIME_START + 1_000 * SECOND, pid=701, name="crio"),),
    )
    between = lease(born=RUNTIME_START + 500 * SECOND)
    assert verdict_of(evidence(between, endpoints=(endpoint(LIVE_SANDBOX), late))).verdict == Verdict.PENDING
    assert verdict_of(evidence(lease(), endpoints=(endpoint(LIVE_SANDBOX), late))).verdict == Verdict.ORPHANED


def test_a_runtime_whose_process_nobody_found_may_be_creating_it() -> None:
    silent = endpoint(address="unix:///run/crio/crio.sock", listeners=())
    assert verdict_of(evidence(lease(), endpoints=(endpoint(LIVE_SANDBOX), silent))).verdict == Verdict.PENDING


def test_a_plugin_has_to_be_younger_than_every_runtime() -> None:
    """The older runtime's plugin may be at work since before the younger one was started."""
    late = endpoint(
        address="unix:///run/crio/crio.sock",
        listeners=(runtime(RUNTIME_START + 1_000 * SECOND, pid=701, name="crio"),),
    )
    plugin = Process(812, "bridge", RUNTIME_START + 500 * SECOND, (), "ADD", "c" * 64)
    both = (endpoint(LIVE_SANDBOX), late)
    assert verdict_of(evidence(EMPTY, endpoints=both, processes=(plugin,))).verdict == Verdict.PENDING
    younger = replace(plugin, started_ns=RUNTIME_START + 1_001 * SECOND)
    assert verdict_of(evidence(EMPTY, endpoints=both, processes=(younger,))).verdict == Verdict.CORRUPT
    assert verdict_of(evidence(EMPTY, endpoints=both, processes=(younger, plugin))).verdict == Verdict.PENDING


@pytest.mark.parametrize(("command", "container_id"), [("ADD", ""), ("", "c" * 64)])
def test_a_plugin_of_which_not_all_could_be_read_may_be_about_to_write_it(command: str, container_id: str) -> None:
    plugin = Process(812, "bridge", RUNTIME_START - SECOND, (), command, container_id)
    assert verdict_of(evidence(EMPTY, processes=(plugin,))).verdict == Verdict.PENDING


def test_who_can_write_no_lease_is_no_plugin_at_work() -> None:
    """Any pod may have a plugin's variables in its environment, and have been there before the runtime was."""
    pods = Process(812, "sleep", RUNTIME_START - SECOND, (), "ADD", "c" * 64, apart=True)
    assert verdict_of(evidence(EMPTY, processes=(pods,))).verdict == Verdict.CORRUPT
    assert verdict_of(evidence(EMPTY, processes=(pods, replace(pods, apart=False)))).verdict == Verdict.PENDING
    assert verdict_of(evidence(lease(), processes=(replace(pods, cni_container_id=DEAD),))).verdict == Verdict.LIVE


@pytest.mark.parametrize("length", [12, 32, 40, 56, 63, 65])
def test_digits_that_are_no_id_of_a_sandbox_name_somebody_else(length: int) -> None:
    """Whole digests and podman's short names among them; only what nobody calls himself by breaks off."""
    judged = verdict_of(evidence(lease(content=b"d" * length)))
    assert judged.verdict == (Verdict.CORRUPT if length == 63 else Verdict.FOREIGN)


@pytest.mark.parametrize("content", [DEAD.encode() + b"\0more", b"\0" + DEAD.encode()])
def test_binary_data_is_nobodys_lease(content: bytes) -> None:
    assert verdict_of(evidence(lease(content=content))).verdict == Verdict.FOREIGN


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_what_is_no_regular_file_is_nobodys_lease(kind: str) -> None:
    assert verdict_of(evidence(lease(kind=kind))).verdict == Verdict.FOREIGN
