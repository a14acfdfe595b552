"""Evidence about the node itself: how Kubernetes, its network and its machine are configured.

Every part is what was seen, or `Unknown` with the reason; a bundle of an older janitor has none of it. Values of
options whose names speak of tokens, passwords or secrets are replaced before they come here.
"""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason
from janitor.core.model.routing import Route
from janitor.core.model.unknown import Unknown, unseen

NOT_COLLECTED = unseen(Code.NOT_COLLECTED)


@dataclass(frozen=True, slots=True)
class Setting:
    """One option of one component: `key` is the flag without dashes (`cluster-cidr`), or the name in its file."""

    component: str
    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Component:
    """A component's command line. `source` is the process, manifest, unit or journal it was read from.

    `running` is False where it was read from a file: what would run, not what does.
    """

    name: str
    argv: tuple[str, ...]
    source: str
    pid: int = 0
    running: bool = True
    started_ns: int = 0  # CLOCK_BOOTTIME; 0 where that is not known


# --- systemd -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assignment:
    """One variable as a unit or an environment file sets it, in the order in which systemd reads them."""

    variable: str
    value: str
    source: str
    from_file: bool  # by EnvironmentFile=, which wins over every Environment=


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A file that `EnvironmentFile=` names; `state` is "read", "missing" or why it could not be read."""

    path: str
    optional: bool
    state: str
    source: str  # the unit file that names it


@dataclass(frozen=True, slots=True)
class Unit:
    """A service as systemd would run it: its files merged, its variables put together, its command line expanded."""

    name: str
    fragment: str
    drop_ins: tuple[str, ...]
    shadowed: tuple[tuple[str, str], ...]  # (drop-in that is not read, the one of the same name that is)
    assignments: tuple[Assignment, ...]
    environment_files: tuple[EnvironmentFile, ...]
    exec_start: str  # as written
    exec_source: str
    argv: tuple[str, ...]
    complaints: tuple[str, ...] = ()  # what is wrong in the files, each with its place
    strays: tuple[str, ...] = ()  # files that set the kubelet's variables, and that no EnvironmentFile= names
    main_pid: int = 0
    need_reload: bool | None = None  # None: systemd was not asked
    newer: tuple[str, ...] = ()  # files changed after the service was started
    written: tuple[tuple[str, str], ...] = ()  # the content of the environment files that could be read, by path
    unread: tuple[Assignment, ...] = ()  # what the strays set


# --- the node's own network --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CniFile:
    """A file in the runtime's CNI directory. `missing` are its plugins that are not in any plugin directory."""

    path: str
    usable: bool  # has a name that the runtime loads
    problem: Reason | None  # None for one that parses
    network: str
    plugins: tuple[str, ...]
    missing: tuple[str, ...]
    subnets: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A network that Hetzner's metadata service says this server is attached to."""

    network_id: str
    name: str
    ip: str
    alias_ips: tuple[str, ...]
    network: str
    subnet: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What the metadata service says of this server."""

    instance_id: str
    hostname: str
    region: str
    networks: tuple[PrivateNetwork, ...] | Unknown


# --- the cluster, as far as it was shown ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a Node; `changed_ns` is its lastTransitionTime, 0 where it has none."""

    type: str
    status: str
    reason: str
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class KubeNode:
    """A Node object."""

    name: str
    created_ns: int
    pod_cidrs: tuple[str, ...]
    internal_ips: tuple[str, ...]
    provider_id: str
    taints: tuple[str, ...]  # keys
    conditions: tuple[Condition, ...]
    group: str = ""  # the autoscaler's label hcloud/node-group
    provided_ip: str = ""  # annotation alpha.kubernetes.io/provided-node-ip


@dataclass(frozen=True, slots=True)
class Workload:
    """A DaemonSet or Deployment that nodes depend on: the CNI's, the cloud controller's, the autoscaler's.

    `tolerates` are the keys it tolerates, "*" for all.
    """

    kind: str
    namespace: str
    name: str
    host_network: bool
    tolerates: tuple[str, ...]
    containers: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]  # (command, args) of each
    environment: tuple[tuple[str, str], ...] = ()  # plain values of the few variables that are read


@dataclass(frozen=True, slots=True)
class Objects:
    """What one look at the API, or one file of `kubectl get -o json`, had. A kind that was not asked for is Unknown."""

    source: str
    whole: bool  # all Nodes, not only some
    nodes: tuple[KubeNode, ...] | Unknown
    service_ips: tuple[tuple[str, str], ...] | Unknown  # (namespace/name, cluster IP)
    workloads: tuple[Workload, ...] | Unknown
    events: tuple[tuple[str, str], ...] | Unknown  # (reason, message) of ClusterCIDRMisconfigured
    csi_nodes: tuple[tuple[str, int], ...] | Unknown  # (node, drivers)


Distribution = Literal["k3s", "rke2", "k0s", "microk8s", "kubeadm", ""]


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All of it. `distribution` is "" where no Kubernetes was found."""

    distribution: Distribution = ""
    server: bool | None = None  # runs a control plane; None where that is not known
    hostname: str = ""
    vendor: str = ""  # of the machine, from DMI
    settings: tuple[Setting, ...] | Unknown = NOT_COLLECTED
    components: tuple[Component, ...] | Unknown = NOT_COLLECTED
    units: tuple[Unit, ...] | Unknown = NOT_COLLECTED
    routes: tuple[Route, ...] | Unknown = NOT_COLLECTED  # the main table
    addresses: tuple[str, ...] | Unknown = NOT_COLLECTED
    cni_files: tuple[CniFile, ...] | Unknown = NOT_COLLECTED
    cni_directories: tuple[str, ...] = ()
    machine: tuple[Machine, ...] | Unknown = NOT_COLLECTED
    objects: tuple[Objects, ...] | Unknown = NOT_COLLECTED
    kubelet_files: tuple[tuple[str, bool], ...] = ()  # the files a joined kubelet has: (path, exists)


NOTHING_COLLECTED = NodeConfig()
