"""Evidence: everything one look at a node saw, as one frozen value.

Every part is what was seen, or `Unknown`. An empty tuple means "looked, and there is none". Evidence converts to JSON
and back without loss (report/evidence_json.py), so the findings of a node can be reproduced elsewhere from a file. The
clock is part of the evidence. Nothing here decides anything: see core/leases/judgement.py for that.
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
    """Both clocks at one instant, in nanoseconds. CLOCK_BOOTTIME includes suspend and never steps.

    `asleep_ns` is how long the machine has been suspended since boot: CLOCK_BOOTTIME minus CLOCK_MONOTONIC.
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
    """One entry of a network's directory, from lstat(2) and a bounded read.

    `name` is escaped if the file's name is not UTF-8. `content` is the first 4096 bytes (host-local writes about 80 at
    most). It is empty and has no meaning for anything but a regular file.
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
    """`<data_dir>/<network>`. `path` is as the node sees it, without the `--root` prefix."""

    path: str
    network: str
    entries: tuple[LeaseFile, ...] | Unknown
    filesystem: str = ""  # file system type as in /proc/mounts; "" if unknown
    mismatch: Reason | None = None  # why this is not the directory that the node's runtime sees at this path
    marks: tuple[Owner, ...] | Unknown = ()  # the owner that the data directory's mark names; empty without a mark


# --- CNI configuration and libcni's cache --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddressRange:
    """One range of a range set, as host-local reads it: `start` to `end`, inclusive. `gateway` is never allocated."""

    subnet: str
    start: str
    end: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """One host-local network of the CNI configuration.

    `range_sets` is Unknown if somebody else supplies the ranges and has not done so yet (canal's `usePodCidr`, flannel
    before it writes its subnet file).
    """

    name: str
    data_dir: str
    source: str  # the file the configuration was read from
    plugins: tuple[str, ...]
    cni_version: str
    range_sets: tuple[tuple[AddressRange, ...], ...] | Unknown
    used_by_cri: bool  # False: the file is in the CNI directory, but CRI loads another one
    disable_gc: bool = False

    @property
    def directory(self) -> str:
        """Where host-local keeps the leases of this network."""
        return f"{self.data_dir.rstrip('/')}/{self.name}"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One file of libcni's result cache, `<cache>/results/<network>-<container ID>-<interface>`.

    `damage` is None for a good entry, otherwise what is wrong with it. Of a damaged entry, the network, the ID and the
    interface come from the file's name: nothing else is left.
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
    regular: bool = True  # False if it is not a regular file: libcni writes only regular files
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
    """A CRI PodSandbox. `addresses` come from PodSandboxStatus; Unknown if that call failed.

    `former_addresses` are what the runtime remembers of a sandbox whose network namespace is gone. They show who had an
    address, not that it is in use.
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
    """A record of containerd: a container, a task, or (2.x) a sandbox of its sandbox store."""

    namespace: str
    container_id: str
    kind: Literal["container", "task", "sandbox"]


@dataclass(frozen=True, slots=True)
class RuntimeProcess:
    """The process that listens on an endpoint, from SO_PEERCRED of a connection to it.

    `started_ns` is on CLOCK_BOOTTIME. `socket_ctime_ns` is the wall clock time at which it created its socket.
    """

    pid: int
    name: str
    started_ns: int
    socket_ctime_ns: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One CRI endpoint and everything it answered in this pass.

    `records` is containerd's own view behind the same socket; empty for other runtimes.
    """

    address: str
    origin: EndpointOrigin
    runtime_name: str
    runtime_version: str
    sandboxes: tuple[Sandbox, ...] | Unknown
    records: tuple[ContainerRecord, ...] | Unknown
    listeners: tuple[RuntimeProcess, ...] | Unknown  # the process that answers: currently always one


# --- the kernel ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a process belongs to, by its cgroup: container ID and pod UID, each "" if there is none."""

    container_id: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace: its local addresses and its host routes (/32 and /128), canonical, without prefix length.

    Only addresses that a lease, a cache entry or a runtime names are kept, plus the first thousand addresses of the
    networks' ranges; `more` says that these ranges had further ones. `holders` are the owners of the processes in it,
    or, if there is no process in it, of those who keep it alive; empty for the node's own namespace.
    """

    inode: int
    seen_at: str  # one place where it was found: a process or a mount
    addresses: tuple[str, ...] | Unknown
    host_routes: tuple[str, ...] | Unknown
    holders: tuple[Holder, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Overlooked:
    """Something of a pod's or stranger's process that was larger than janitor reads, or did not answer."""

    pid: int
    name: str
    holder: Holder
    what: str  # such as "its open files": completes "could not read all of …"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that matters for a lease: it names a container ID, or it is a running CNI plugin.

    Of its command line only 64-digit IDs are kept, of its environment only CNI_*. `apart`: it cannot write a lease, so
    it is not one of the node's plugins, whatever its environment says. `holder` is its owner, to name it in messages.
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
    """A directory in /run that a runtime keeps for one running container."""

    path: str
    container_id: str


# --- age -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What identifies a lease file from look to look; `digest` is the SHA-256 of its content, in hex."""

    path: str
    device: int
    inode: int
    mtime_ns: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Observation:
    """A lease that was unchanged and without an owner from `first_ns` to `last_ns` (CLOCK_BOOTTIME), in `passes`
    passes.

    `asleep_ns` is the clock's `asleep_ns` at the first of them.
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
    """A process that looks like a component of the node but is not trusted to be one, and why."""

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
    plugin_dirs: tuple[str, ...]  # the runtimes' CNI plugin directories; empty if they do not say
    allowed_data_dirs: tuple[str, ...]  # data directories that the operator has put into scope
    lease_directories: tuple[LeaseDirectory, ...] | Unknown
    cache: tuple[CacheEntry, ...] | Unknown
    endpoints: tuple[Endpoint, ...] | Unknown
    namespaces: tuple[NetworkNamespace, ...] | Unknown
    processes: tuple[Process, ...] | Unknown
    task_directories: tuple[TaskDirectory, ...] | Unknown
    ledger: tuple[FileIdentity, ...] | Unknown  # leases that existed before any runtime of this boot started
    observations: tuple[Observation, ...] | Unknown  # from earlier passes in this boot
    routing: Routing = _NO_ROUTING
    node_config: NodeConfig = NOTHING_COLLECTED  # how Kubernetes and the network are configured here
    disowned: tuple[Disowned, ...] = ()
    overlooked: tuple[Overlooked, ...] = ()  # of pods and strangers, what was too large to read completely
    ignored_pods: tuple[str, ...] = ()  # namespace/name; the operator has their network namespaces ignored
    clock_set_ns: int | Unknown = 0  # last time the wall clock was seen being set, on CLOCK_BOOTTIME; 0 for never
    this_node: tuple[Owner, ...] | Unknown = _NO_NODE  # identity of this node: one entry if it was seen
    said_ours: bool = False  # the operator declares that no other node uses the data directories
