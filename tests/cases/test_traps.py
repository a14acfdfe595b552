"""The traps of tests/system/test_traps.py, as far as they cannot be had on a test machine: made of evidence.

What stands for the missing thing is what that would leave to be seen. Each is planned together with a control, a lease
of the same age that is really dead, and the plan must be to free that one and nothing else.
"""

from dataclasses import replace

import pytest

from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.addresses import make_range
from janitor.core.model.evidence import (
    CacheEntry,
    Evidence,
    LeaseDirectory,
    LeaseFile,
    Observation,
    Process,
    RuntimeProcess,
    known,
)
from janitor.core.model.lease import identity
from tests.reasons import not_seen
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
    lease,
    network,
    sandbox,
)

CONTROL = "10.52.0.200"
NOBODY = "c0ffee" + "0" * 58
TRAPPED = "b" * 64
LISTED = sandbox(LIVE, addresses=("10.52.0.2",))
SECOND_DIRECTORY = "/var/lib/cni/networks/macvlan"


def of(container_id: str, name: str = ADDRESS, interface: str = "eth0", born: int = 1_000 * SECOND) -> LeaseFile:
    return lease(name, f"{container_id}\r\n{interface}".encode(), born)


def control(born: int = 1_000 * SECOND) -> LeaseFile:
    return of(NOBODY, CONTROL, born=born)


def freed(found: Evidence) -> set[str]:
    """The files that would be freed."""
    return {action.path for action in plan(found, judge(found)).actions}


ONLY_THE_CONTROL = {f"{DIRECTORY}/{CONTROL}"}


def test_nothing_keeps_it() -> None:
    """Without any trap both are freed: what the others show is not the work of their surroundings."""
    assert freed(evidence(of(TRAPPED), control())) == {f"{DIRECTORY}/{ADDRESS}", *ONLY_THE_CONTROL}


def test_trap_08_cri_o_beside_containerd() -> None:
    """Two CRI runtimes, one directory: a sandbox of cri-o's is no stranger because containerd does not know it."""
    containerd = endpoint(LISTED)
    crio = endpoint(
        sandbox(TRAPPED, ready=False), address="unix:///run/crio/crio.sock", origin="well-known", runtime_name="cri-o",
        listeners=(RuntimeProcess(701, "crio", RUNTIME_START, BOOT + RUNTIME_START + SECOND),),
    )  # fmt: skip
    files = (of(TRAPPED), control())
    assert freed(evidence(*files, endpoints=(containerd, crio))) == ONLY_THE_CONTROL
    # Where both are the kubelet's (it was changed over), one that does not answer keeps everything.
    silent = replace(crio, origin="configuration", sandboxes=not_seen("no answer within 5 s"))
    assert freed(evidence(*files, endpoints=(containerd, silent))) == set()


@pytest.mark.parametrize("name", ["containerd-shim-kata-v2", "qemu-system-x86_64", "virtiofsd", "conmon"])
def test_trap_18_the_address_is_in_a_virtual_machine(name: str) -> None:
    """Kata with macvtap, SR-IOV, DPDK: no namespace of the node has the address; a process names the sandbox."""
    process = Process(900, name, RUNTIME_START, (TRAPPED,))
    assert freed(evidence(of(TRAPPED), control(), processes=(process,))) == ONLY_THE_CONTROL


def test_trap_18_the_address_is_in_a_virtual_machine_and_cri_lists_it() -> None:
    """And where not even a process names it, the list does."""
    listed = endpoint(LISTED, sandbox(TRAPPED, addresses=()))
    assert freed(evidence(of(TRAPPED), control(), endpoints=(listed,))) == ONLY_THE_CONTROL


RAN_S = (NOW - RUNTIME_START) // SECOND
CONTROL_WATCHED = Observation(
    identity(f"{DIRECTORY}/{CONTROL}", control()),  # type: ignore[arg-type]
    control().ctime_ns, NOW - 700 * SECOND, NOW - SECOND, 2,
)  # fmt: skip


@pytest.mark.parametrize("jump_s", [RAN_S + 3600, 56 * 365 * 86_400], ids=["an hour before the boot", "1970"])
def test_trap_22_the_clock_was_set_forward(jump_s: int) -> None:
    """A board without a battery: runtime and lease were made in 1970, and then NTP answered.

    By today's clock the lease is older than the runtime; by the kernel's it is younger. The control was watched.
    """
    jump = jump_s * SECOND
    fresh = of(TRAPPED, born=RUNTIME_START + 60 * SECOND - jump)
    process = RuntimeProcess(700, "containerd", RUNTIME_START, BOOT + RUNTIME_START + SECOND - jump)
    found = evidence(
        fresh, control(), endpoints=(endpoint(LISTED, listeners=(process,)),), observations=(CONTROL_WATCHED,)
    )
    assert fresh.ctime_ns < BOOT + RUNTIME_START
    assert freed(found) == ONLY_THE_CONTROL


def test_trap_22_the_clock_was_set_back() -> None:
    """Set back after the runtime had started: what is made then has a time before it."""
    fresh = of(TRAPPED, born=RUNTIME_START - 100 * SECOND)
    process = RuntimeProcess(700, "containerd", RUNTIME_START, BOOT + RUNTIME_START + 3600 * SECOND)
    found = evidence(
        fresh, control(), endpoints=(endpoint(LISTED, listeners=(process,)),), observations=(CONTROL_WATCHED,)
    )
    assert freed(found) == ONLY_THE_CONTROL


def test_trap_22_the_clock_was_set_back_and_ahead_again() -> None:
    """Two steps that cancel: what was born between them looks older than the runtime, whose own times agree."""
    between = of(TRAPPED, born=RUNTIME_START + 60 * SECOND - 86_400 * SECOND)
    found = evidence(between, control(), endpoints=(endpoint(LISTED),), observations=(CONTROL_WATCHED,))
    seen = replace(found, clock_set_ns=RUNTIME_START + 90 * SECOND)
    assert freed(seen) == ONLY_THE_CONTROL
    assert len(freed(found)) == 2  # which is why the daemon watches the clock


@pytest.mark.parametrize(
    "filesystem",
    ["nfs", "nfs4", "cifs", "ceph", "ocfs2", "gfs2", "fuse.glusterfs", "fuse", "fuse.sshfs", "fuse.fuse-overlayfs",
     "fuseblk", "virtiofs", "9p", "lustre", "beegfs", "gpfs", "afs", "one that is yet to be written", ""],
)  # fmt: skip
def test_trap_24_leases_on_a_file_system_of_several_nodes(filesystem: str) -> None:
    """A lock that is taken here holds on this node only, and the leases may be another one's."""
    found = evidence(control())
    shared = LeaseDirectory("/srv/leases/shared", "shared", (of(TRAPPED, "10.60.0.9"),), filesystem)
    configured = network(name="shared", data_dir="/srv/leases", range_sets=((make_range("10.60.0.0/24"),),))
    directories = (*known(found.lease_directories), shared)
    found = replace(found, lease_directories=directories, networks=(network(), configured))
    assert freed(found) == ONLY_THE_CONTROL
    local = replace(found, lease_directories=(*directories[:-1], replace(shared, filesystem="ext4")))
    assert freed(local) == {"/srv/leases/shared/10.60.0.9", *ONLY_THE_CONTROL}


class TestTrap30:
    """Live migration: the address of a secondary network is in use on another node, of which nothing is seen here.

    So an address says nothing about such a lease; only the ID of a sandbox of this node does.
    """

    def test_trap_30_a_virtual_machine_that_has_moved(self) -> None:
        """KubeVirt's launcher is still listed, its machine is elsewhere: no namespace here has the address."""
        entry = cache_entry(TRAPPED, "10.60.0.9", network="macvlan", interface="net1")
        listed = endpoint(LISTED, sandbox(TRAPPED, ready=False))
        found = evidence(control(), endpoints=(listed,), cache=(cache_entry(LIVE, "10.52.0.2"), entry))
        second = (of(TRAPPED, "10.60.0.9", "net1"), of(NOBODY, CONTROL, "net1"))
        directory = LeaseDirectory(SECOND_DIRECTORY, "macvlan", second, "ext4")
        found = replace(found, lease_directories=(*known(found.lease_directories), directory))
        assert freed(found) == {f"{SECOND_DIRECTORY}/{CONTROL}", *ONLY_THE_CONTROL}

    def test_trap_30_a_secondary_network_that_no_sandbox_here_has(self) -> None:
        """Nobody on this node is in it: it is not CRI's, and nothing in it is touched."""
        found = evidence(control(), networks=(network(), network(name="macvlan", used_by_cri=False)))
        directory = LeaseDirectory(SECOND_DIRECTORY, "macvlan", (of(DEAD, "10.60.0.9", "net1"),), "ext4")
        found = replace(found, lease_directories=(*known(found.lease_directories), directory))
        assert freed(found) == ONLY_THE_CONTROL


# 33: a chain's DEL goes by addresses, and one of them is somebody else's by now.

SECOND_ADDRESS = "fd00:52::7"


def dual_stack_entry(*addresses: str) -> CacheEntry:
    return cache_entry(DEAD, addresses=tuple(f"{a}/{64 if ':' in a else 24}" for a in addresses), plugins=("firewall",))


@pytest.mark.parametrize(
    ("held", "entry", "chained"),
    [
        ((ADDRESS, SECOND_ADDRESS), (ADDRESS, SECOND_ADDRESS), True),
        # Its IPv4 lease was removed by hand: the address is free, or has a new owner already.
        ((SECOND_ADDRESS,), (ADDRESS, SECOND_ADDRESS), False),
        # As other programs may write an address: it is the same.
        ((SECOND_ADDRESS,), ("FD00:0052::0007",), True),
        # A result that names none says nothing about which it was.
        ((ADDRESS,), (), False),
    ],
)
def test_a_chain_is_run_only_if_each_of_its_addresses_is_still_its_own(
    held: tuple[str, ...], entry: tuple[str, ...], chained: bool
) -> None:
    both = network(range_sets=((make_range("10.52.0.0/24"),), (make_range("fd00:52::/64"),)))
    found = evidence(*(of(DEAD, name) for name in held), networks=(both,),
                     cache=(cache_entry(LIVE, "10.52.0.2"), dual_stack_entry(*entry)))  # fmt: skip
    actions = plan(found, judge(found)).actions
    assert {action.name for action in actions if action.kind == "free"} == set(held)
    assert {bool(action.chain) for action in actions} == {chained}


def test_a_chain_is_not_run_while_another_network_leases_one_of_its_addresses() -> None:
    """Firewall rules name the address and no network: those of a pod there would go as well."""
    second = LeaseDirectory(SECOND_DIRECTORY, "macvlan", (of(TRAPPED, ADDRESS, born=NOW - 5 * SECOND),), "ext4")
    found = evidence(of(DEAD), cache=(cache_entry(LIVE, "10.52.0.2"), dual_stack_entry(ADDRESS)))
    alone = plan(found, judge(found)).actions
    assert {bool(action.chain) for action in alone} == {True}
    found = replace(found, lease_directories=(*known(found.lease_directories), second),
                    networks=(network(), network(name="macvlan")))  # fmt: skip
    assert [(a.path, a.chain) for a in plan(found, judge(found)).actions] == [(f"{DIRECTORY}/{ADDRESS}", "")]


def test_a_chain_is_not_run_while_one_of_its_addresses_is_up_or_leased_to_another() -> None:
    both = network(range_sets=((make_range("10.52.0.0/24"),), (make_range("fd00:52::/64"),)))
    other = lease(ADDRESS, f"{LIVE}\r\neth0".encode())
    found = evidence(other, of(DEAD, SECOND_ADDRESS), networks=(both,),
                     cache=(cache_entry(LIVE, "10.52.0.2"), dual_stack_entry(ADDRESS, SECOND_ADDRESS)))  # fmt: skip
    actions = plan(found, judge(found)).actions
    assert [(action.name, action.chain) for action in actions] == [(SECOND_ADDRESS, "")]
