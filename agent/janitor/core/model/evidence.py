"""Evidence: everything one look at a node saw, as one frozen value.

Every part is what was seen or `Unknown`; there is no third state, and an empty tuple means "looked, and
there is none". Evidence serialises to JSON and back without loss (report/evidence_json.py), so the findings
on a sick node can be had again from a file, elsewhere and later. The clock is part of it.

Nothing here decides anything: see core/leases/judgement.py for that.
"""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.codes import Code
from janitor.core.model.evidence_node import NOTHING_COLLECTED, NodeConfig
from janitor.core.model.node_mark import Owner
from janitor.core.model.reason import Reason
from janitor.core.model.routing import Routing
from janitor.core.model.unknown import Unknown as Unknown
from janitor.core.model.unknown import known as known
from janitor.core.model.unknown import unseen as unseen

EVIDENCE_VERSION = 2
_NOT_LOOKED = unseen(Code.RULES_NOT_COLLECTED)
_NO_NODE = unseen(Code.OWNERS_NOT_COLLECTED)
_NO_ROUTING = Routing(_NOT_LOOKED, _NOT_LOOKED, _NOT_LOOKED, _NOT_LOOKED, _NOT_LOOKED)


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks at one instant, in nanoseconds; CLOCK_BOOTTIME goes on during suspend and never steps.

    `asleep_ns` is how much of it the machine has been suspended: by so much CLOCK_MONOTONIC is behind.
    """

    realtime_ns: int
    boottime_ns: int
    asleep_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    """The Kubernetes names of a sandbox."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# --- host-local's disk (facts: containernetworking/plugins plugins/ipam/host-local/backend/disk) -----------

FileKind = Literal["file", "directory", "symlink", "fifo", "socket", "device"]


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """One entry of a network's directory, as lstat(2) and a bounded read saw it.

    `name` is escaped where the file's name is not UTF-8. `content` is the first 4096 bytes (host-local writes
    at most some eighty); for anything but a regular file it is empty and means nothing.
    """

    name: str
    kind: FileKind
    device: int
    inode: int
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    content: bytes | Unknown = b""


@dataclass(frozen=True, slots=True)
class LeaseDirectory:
    """`<data_dir>/<network>`: `path` is as the node names it, without the `--root` in front."""

    path: str
    network: str
    entries: tuple[LeaseFile, ...] | Unknown
    filesystem: str = ""  # the type of the file system, as in /proc/mounts; "" where that could not be read
    mismatch: Reason | None = None  # why this is not the directory that the node's runtime sees under this path
    marks: tuple[Owner, ...] | Unknown = ()  # whose its data directory is by the mark in it; none where there is none


# --- CNI configuration and libcni's cache --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddressRange:
    """One range of a range set, as host-local reads it: addresses `start` to `end`, `gateway` never given."""

    subnet: str
    start: str
    end: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """One host-local network of the CNI configuration.

    `range_sets` is Unknown where the configuration leaves the ranges to somebody else who has not said yet
    (canal's `usePodCidr`, flannel before it has written its subnet file).
    """

    name: str
    data_dir: str
    source: str  # the file the configuration was read from
    plugins: tuple[str, ...]
    cni_version: str
    range_sets: tuple[tuple[AddressRange, ...], ...] | Unknown
    used_by_cri: bool  # False: lies in the same directory, but CRI loads another file
    disable_gc: bool = False

    @property
    def directory(self) -> str:
        """Where host-local keeps the leases of this network."""
        return f"{self.data_dir.rstrip('/')}/{self.name}"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One file of libcni's result cache, `<cache>/results/<network>-<container ID>-<interface>`.

    `damage` is None for a good entry and otherwise says what is wrong; for a damaged one the network, the ID
    and the interface come from the file's name, which is all that is left of them.
    """

    path: str
    network: str
    container_id: str
    interface: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    damage: Reason | None = None
    regular: bool = True  # False for what is not a regular file: libcni wrote no such thing
    cni_version: str = ""
    ipam: tuple[str, ...] = ()  # the IPAM plugins named in the cached configuration
    plugins: tuple[str, ...] = ()
    data_dir: str = ""  # host-local's dataDir in the cached configuration
    addresses: tuple[str, ...] = ()  # with prefix length, as in the cached result
    pod: Pod | None = None


# --- runtimes ------------------------------------------------------------------------------------------

EndpointOrigin = Literal["flag", "configuration", "kubelet", "well-known"]
NetworkMode = Literal["pod", "node", "other", "unknown"]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A CRI PodSandbox. `addresses` are those of PodSandboxStatus, Unknown where that could not be had.

    `former_addresses` are those the runtime remembers of a sandbox whose network namespace is gone. They say
    whose an address was, not that it is in use.
    """

    container_id: str
    pod: Pod
    ready: bool
    created_ns: int  # since the epoch, by the runtime's clock
    network_mode: NetworkMode
    addresses: tuple[str, ...] | Unknown
    former_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """Something containerd has a record of: a container, a task, or (2.x) a sandbox of its store."""

    namespace: str
    container_id: str
    kind: Literal["container", "task", "sandbox"]


@dataclass(frozen=True, slots=True)
class RuntimeProcess:
    """The process that listens on an endpoint, from SO_PEERCRED of a connection to it.

    `started_ns` is in CLOCK_BOOTTIME. `socket_ctime_ns` is the wall clock at the moment it made its socket.
    """

    pid: int
    name: str
    started_ns: int
    socket_ctime_ns: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One CRI endpoint and all it said in this pass.

    `records` is containerd's own view behind the same socket, and an empty tuple for a runtime that is
    not containerd.
    """

    address: str
    origin: EndpointOrigin
    runtime_name: str
    runtime_version: str
    sandboxes: tuple[Sandbox, ...] | Unknown
    records: tuple[ContainerRecord, ...] | Unknown
    listeners: tuple[RuntimeProcess, ...] | Unknown  # the process that answers: one, today


# --- the kernel ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a process is, by its cgroup: a container's ID and its pod's UID, each "" where there is none."""

    container_id: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace: its local addresses and its host routes (/32 and /128), canonical, without prefix.

    Kept are the addresses that a lease, a cache entry or a runtime names, and of the networks' ranges the first
    thousand; `more` says that there were others of these ranges. `holders` are those who were seen in it, or, where
    nobody is in it, those who keep it; none for the node's own.
    """

    inode: int
    seen_at: str  # one place it was seen: a process or a mount
    addresses: tuple[str, ...] | Unknown
    host_routes: tuple[str, ...] | Unknown
    holders: tuple[Holder, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Overlooked:
    """What was larger than janitor reads, or did not answer, of somebody who is none of the node's own."""

    pid: int
    name: str
    holder: Holder
    what: str  # "its open files"; ends the sentence "not all of them were looked at"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that says something about a lease: it names a container ID, or it is a CNI plugin at work.

    Only 64-digit IDs are kept of its command line, and only CNI_* of its environment. `apart` says that it can write no
    lease, so that it is no plugin of the node's, whatever its environment has. `holder` is whose it is, for its name.
    """

    pid: int
    name: str
    started_ns: int
    container_ids: tuple[str, ...] = ()
    cni_command: str = ""
    cni_container_id: str = ""
    apart: bool = False
    holder: Holder = Holder()


@dataclass(frozen=True, slots=True)
class TaskDirectory:
    """A directory a runtime keeps for one running container, in /run."""

    path: str
    container_id: str


# --- age -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What makes a lease the same file as before; `digest` is the SHA-256 of its content, in hex."""

    path: str
    device: int
    inode: int
    mtime_ns: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Observation:
    """A lease seen unchanged, and unowned, from `first_ns` to `last_ns` (CLOCK_BOOTTIME) in `passes` passes.

    `asleep_ns` is the clock's at the first of them.
    """

    file: FileIdentity
    ctime_ns: int
    first_ns: int
    last_ns: int
    passes: int
    asleep_ns: int = 0


# --- all of it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disowned:
    """A process that looks like a component of the node and is not believed to be one, and why."""

    role: Literal["kubelet", "runtime"]
    pid: int
    name: str
    why: Reason


@dataclass(frozen=True, slots=True)
class Evidence:
    """One look at a node. Leases were read first, owners second, the kernel last (design: rule 5)."""

    version: int
    janitor: str
    node: str
    root: str
    started: Clock
    finished: Clock
    boot_id: str | Unknown
    networks: tuple[Network, ...] | Unknown
    plugin_dirs: tuple[str, ...]  # where the runtimes say their CNI plugins are; empty where they do not
    allowed_data_dirs: tuple[str, ...]  # data directories whose networks the operator has put into scope
    lease_directories: tuple[LeaseDirectory, ...] | Unknown
    cache: tuple[CacheEntry, ...] | Unknown
    endpoints: tuple[Endpoint, ...] | Unknown
    namespaces: tuple[NetworkNamespace, ...] | Unknown
    processes: tuple[Process, ...] | Unknown
    task_directories: tuple[TaskDirectory, ...] | Unknown
    ledger: tuple[FileIdentity, ...] | Unknown  # the leases that were there before any runtime of this boot started
    observations: tuple[Observation, ...] | Unknown  # what earlier passes in this boot have seen
    routing: Routing = _NO_ROUTING
    node_config: NodeConfig = NOTHING_COLLECTED  # how Kubernetes and the network are configured here
    disowned: tuple[Disowned, ...] = ()
    overlooked: tuple[Overlooked, ...] = ()  # of pods and strangers, what was too large to be looked at whole
    ignored_pods: tuple[str, ...] = ()  # pods (namespace/name) whose network namespaces the operator does not count
    clock_set_ns: int | Unknown = 0  # when the wall clock was last seen being set, on CLOCK_BOOTTIME; 0 for never
    this_node: tuple[Owner, ...] | Unknown = _NO_NODE  # who this node is: one, where it was seen
    said_ours: bool = False  # the operator says that no other node uses the data directories
