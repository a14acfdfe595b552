"""Evidence about the node itself: how Kubernetes, its network and its machine are configured.

Every part is what was seen, or `Unknown` with the reason; all parts are Unknown in bundles of older versions. Values of
options whose names suggest tokens, passwords or secrets are redacted before they get here.
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
    """One option of one component. `key` is the flag without dashes (`cluster-cidr`), or the name in its file."""

    component: str
    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Component:
    """A component's command line. `source` is the process, manifest, unit or journal it was read from.

    `running` is False if it was read from a file: it shows what would run, not what runs.
    """

    name: str
    argv: tuple[str, ...]
    source: str
    pid: int = 0
    running: bool = True
    started_ns: int = 0  # CLOCK_BOOTTIME; 0 if unknown


# --- systemd -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assignment:
    """One variable as a unit or an environment file sets it, in systemd's reading order."""

    variable: str
    value: str
    source: str
    from_file: bool  # set by EnvironmentFile=, which takes precedence over every Environment=


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A file that `EnvironmentFile=` names. `state` is "read", "missing" or why it could not be read."""

    path: str
    optional: bool
    state: str
    source: str  # the unit file that names it


@dataclass(frozen=True, slots=True)
class Unit:
    """A service as systemd would run it: files merged, variables combined, command line expanded."""

    name: str
    fragment: str
    drop_ins: tuple[str, ...]
    shadowed: tuple[tuple[str, str], ...]  # (ignored drop-in, the drop-in of the same name that is used)
    assignments: tuple[Assignment, ...]
    environment_files: tuple[EnvironmentFile, ...]
    exec_start: str  # as written
    exec_source: str
    argv: tuple[str, ...]
    complaints: tuple[str, ...] = ()  # errors in the files, each with its place
    strays: tuple[str, ...] = ()  # files that set the kubelet's variables but are named by no EnvironmentFile=
    main_pid: int = 0
    need_reload: bool | None = None  # None: systemd was not asked
    newer: tuple[str, ...] = ()  # files changed after the service was started
    written: tuple[tuple[str, str], ...] = ()  # contents of the environment files that could be read, by path
    unread: tuple[Assignment, ...] = ()  # the assignments in `strays`


# --- the node's own network --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CniFile:
    """A file in the runtime's CNI directory. `missing` are its plugins that no plugin directory has."""

    path: str
    usable: bool  # the runtime loads files with such a name
    problem: Reason | None  # None if it parses
    network: str
    plugins: tuple[str, ...]
    missing: tuple[str, ...]
    subnets: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A network that this server is attached to, according to Hetzner's metadata service."""

    network_id: str
    name: str
    ip: str
    alias_ips: tuple[str, ...]
    network: str
    subnet: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What the metadata service says about this server."""

    instance_id: str
    hostname: str
    region: str
    networks: tuple[PrivateNetwork, ...] | Unknown


# --- the cluster, as far as it was shown ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a Node. `changed_ns` is its lastTransitionTime, 0 if it has none."""

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
    """A DaemonSet or Deployment that nodes depend on: of the CNI, the cloud controller or the autoscaler.

    `tolerates` are the taint keys it tolerates, "*" for all.
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
    """The objects of one look at the API, or of one file of `kubectl get -o json`. Unknown: not requested."""

    source: str
    whole: bool  # all Nodes of the cluster, not a selection
    nodes: tuple[KubeNode, ...] | Unknown
    service_ips: tuple[tuple[str, str], ...] | Unknown  # (namespace/name, cluster IP)
    workloads: tuple[Workload, ...] | Unknown
    events: tuple[tuple[str, str], ...] | Unknown  # (reason, message) of ClusterCIDRMisconfigured
    csi_nodes: tuple[tuple[str, int], ...] | Unknown  # (node, drivers)


Distribution = Literal["k3s", "rke2", "k0s", "microk8s", "kubeadm", ""]


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The whole configuration. `distribution` is "" if no Kubernetes was found."""

    distribution: Distribution = ""
    server: bool | None = None  # runs a control plane; None if unknown
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
    kubelet_files: tuple[tuple[str, bool], ...] = ()  # the files that a kubelet has after joining: (path, exists)


NOTHING_COLLECTED = NodeConfig()
