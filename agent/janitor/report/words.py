"""Reason codes as sentences for people; no other module has such sentences. Pure; standard library only.

No decision depends on these texts.
"""

from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Fact, Reason
from janitor.core.model.text import count


def text(reason: Reason) -> str:
    """The sentence, without a full stop."""
    return TEXTS[reason.code].format_map(_values(reason))


def texts(reasons: tuple[Reason, ...]) -> tuple[str, ...]:
    """The sentences, in the same order."""
    return tuple(text(reason) for reason in reasons)


def hint(reason: Reason) -> str:
    """What to do about it; "" if there is no general advice."""
    if reason.code is Code.RECORDED:
        return str(reason.fact("hint") or "")
    if reason.fact("euid"):
        return "run janitor as root"
    return HINTS.get(reason.code, "").format_map(_values(reason))


class _Word(str):
    """A fact as text. A noun after the colon makes it a count: `{leases:lease}` is `1 lease`, `2 leases`."""

    def __format__(self, noun: str) -> str:
        return count(int(self), noun) if noun and self.isdecimal() else str(self)


class _Values(dict[str, _Word]):
    """The facts of a reason as text. A fact that is missing, as in an edited file, is `?`."""

    def __missing__(self, name: str) -> _Word:
        return _Word("?")


def _values(reason: Reason) -> _Values:
    values = _Values({name: _Word(_value(fact)) for name, fact in reason.facts})
    if reason.cause is not None:
        values["cause"] = _Word(text(reason.cause))
    return values


def _value(fact: Fact) -> str:
    return ", ".join(fact) if isinstance(fact, tuple) else str(fact)


TEXTS: Final[dict[Code, str]] = {
    # What an earlier version wrote down.
    Code.RECORDED: "{text}",
    # What could not be seen: the node.
    Code.CANNOT_READ_NODE_PROCESSES: "reading the node's processes in {path}: {error}",
    Code.NO_PROC: "no /proc is mounted at {path}, so the node's processes and network namespaces cannot be seen",
    Code.PROC_OF_ANOTHER_ROOT: (
        "{path} is not the /proc of the node at {root}: its process 1 has another root directory"
    ),
    Code.PROC_SEES_ANOTHER_PART: "/proc is not that of the node at {root}: its process 1 sees a different {part}",
    Code.CANNOT_READ_BOOT_ID: "reading the boot ID: {error}",
    Code.CANNOT_LIST_PROCESSES: "listing the processes in {path}: {error}",
    Code.CANNOT_READ_PROCESS: "reading process {pid} ({name}): {error}",
    Code.TOO_MANY_PROCESSES_FOR_RULES: (
        "finding the processes that make policy rules: there are too many to read in {seconds} s"
    ),
    Code.NOT_ALL_OF_PROCESS_SEEN: "process {pid} ({name}): could not read all of {what}",
    Code.CANNOT_READ_PID_NAMESPACE_OF_NODE: "reading the PID namespace of the node's process 1: {error}",
    Code.CANNOT_READ_PID_NAMESPACE: "reading janitor's own PID namespace: {error}",
    Code.CANNOT_READ_MARK: "reading {path}: {error}",
    Code.FOREIGN_MARK: "{path} is not a mark file of janitor",
    Code.NOT_COLLECTED: "the janitor version that collected this evidence did not record it",
    Code.OWNERS_NOT_COLLECTED: (
        "the janitor version that collected this evidence did not record which node owns the directories"
    ),
    Code.RULES_NOT_COLLECTED: "the janitor version that collected this evidence did not record policy routing",
    Code.NOT_ASKED: "not asked",
    Code.PROGRAMS_NOT_ASKED: "the node's programs were not read",
    # What could not be seen: leases, configuration, notes.
    Code.CANNOT_LIST_NETWORKS: "listing the networks in {path}: {error}",
    Code.CANNOT_READ_LEASES: "reading the leases in {path}: {error}",
    Code.CANNOT_READ_LEASE: "reading the lease {path}: {error}",
    Code.LEASE_BEING_WRITTEN: "reading the lease {path}: it was being written at the same time",
    Code.CANNOT_READ_CACHE: "reading libcni's cache {path}: {error}",
    Code.CANNOT_LIST_CNI_CONFIGURATION: "listing the CNI configuration in {path}: {error}",
    Code.CANNOT_READ_CNI_CONFIGURATION: "reading the CNI configuration {path}: {error}",
    Code.BAD_CNI_CONFIGURATION: "reading the CNI configuration {path}: {cause}",
    Code.NO_CNI_CONFIGURATION: (
        "no CNI configuration was found in {paths}, so it is not known which leases belong to pods"
    ),
    Code.NO_RANGE_CONFIGURED: "the CNI configuration has no range: the runtime supplies it",
    Code.BAD_RANGES: "its ranges are not valid ({error})",
    Code.FLANNEL_FILE_MISSING: "the range comes from flannel, which has not written {path}",
    Code.CANNOT_READ_FLANNEL_FILE: "reading {path}: {error}",
    Code.BAD_FLANNEL_FILE: "{path} has no valid subnet ({error})",
    Code.EMPTY_FLANNEL_FILE: "{path} has no subnet",
    Code.CANNOT_READ_NOTE: "reading {path}: {error}",
    Code.BAD_NOTE: "reading {path}: it is not {what} ({error})",
    Code.NOTE_NOT_AN_OBJECT: "reading {path}: it is not a JSON object",
    Code.BAD_LEDGER: "reading {path}: it is not a boot ledger",
    Code.NEWER_NOTE: (
        "{path} has version {found}, but this janitor reads only up to version {reads}: a newer janitor wrote it"
    ),
    # What could not be seen: runtimes.
    Code.ENDPOINT_NOT_A_SOCKET: "the CRI endpoint {address} is not a Unix socket",
    Code.CANNOT_FIND_SOCKET: "finding the socket {path}: {error}",
    Code.SOCKET_PATH_TOO_LONG: "the socket path {path} is too long: a Unix socket allows {most} bytes",
    Code.NO_SOCKET: "connecting to the container runtime at {address}: the socket does not exist",
    Code.NOT_A_SOCKET: "connecting to the container runtime at {address}: it is not a socket",
    Code.CANNOT_CONNECT: "connecting to the container runtime at {address}: {error}",
    Code.NOBODY_LISTENS: "connecting to the container runtime at {address}: nothing listens there",
    Code.LISTENER_NOT_TRUSTED: (
        "connecting to the container runtime at {address}: the process that answers ({name}, {pid}) is not "
        "accepted as this node's runtime: {cause}"
    ),
    Code.LISTENER_OUT_OF_SIGHT: (
        "janitor cannot see the process that answers at {address}, nor the processes and network namespaces of its pods"
    ),
    Code.NOT_CRI_V1: (
        "{cause}: it does not serve CRI v1 (it is Docker's own containerd, its CRI plugin is disabled, or it is too "
        "old)"
    ),
    Code.RUNTIME_DOES_NOT_ANSWER: "{cause}",
    Code.SANDBOXES_NOT_LISTED: "{cause}",
    Code.SANDBOX_STATUS_UNKNOWN: "{cause}",
    Code.RECORDS_NOT_LISTED: "{cause}",
    Code.ENDPOINT_ASKED_ALREADY: "it was already queried",
    Code.CALL_UNIMPLEMENTED: "calling {method} at {address}: it is not implemented there ({details})",
    Code.CALL_TIMED_OUT: "calling {method} at {address}: no answer within {seconds} s",
    Code.CALL_UNAVAILABLE: (
        "calling {method} at {address}: it does not speak gRPC, or it closed the connection ({details})"
    ),
    Code.CALL_TOO_LONG: "calling {method} at {address}: {details}",
    Code.CALL_FAILED: "calling {method} at {address}: {details}",
    Code.NO_RUNTIME: "no container runtime was found: none of the usual CRI sockets exists",
    Code.UNUSED_RUNTIME: (
        "{address} lists no sandboxes, and nothing on this node shows that the kubelet uses this runtime: the empty "
        "list proves nothing"
    ),
    Code.CANNOT_READ_TASKS: "reading the runtimes' task directories in /run: {error}",
    # What could not be seen: the kernel.
    Code.CANNOT_FIND_NAMESPACES: "listing the node's network namespaces: {error}",
    Code.CANNOT_READ_NAMESPACE: "reading the addresses in the network namespace {inode} of {where}: {error}",
    Code.TOO_MANY_ROUTES: "reading the routes in the network namespace {inode} of {where}: there are too many",
    Code.NO_NAMESPACE: "no network namespace was found, not even janitor's own",
    Code.CANNOT_READ_PACKET_FILTER: "listing the packet filter rules: {error}",
    Code.CANNOT_READ_NODE_ROUTES: "reading the node's routes: {error}",
    Code.BAD_NODE_ROUTES: "reading the node's routes in {path}: the content is not valid ({error})",
    Code.CANNOT_READ_NODE_ADDRESSES: "reading the node's addresses: {error}",
    Code.CANNOT_ENTER_NODE_NETWORK: "entering the node's network namespace ({path}): {error}",
    Code.CANNOT_READ_RULES: "reading the policy rules: {error}",
    Code.CANNOT_READ_LINKS: "reading routes and links: {error}",
    Code.CANNOT_FIND_NETWORKD: "looking for systemd-networkd in {path}: {error}",
    Code.CANNOT_READ_NETWORKD_STATE: "reading systemd-networkd's link state files: {error}",
    Code.CANNOT_READ_MOUNT_TABLE: "reading the node's mount table: {error}",
    Code.CANNOT_READ_POD_MOUNTS: "reading the mounts of pods: {error}",
    Code.ROOT_NOT_IN_MOUNT_TABLE: "reading the mounts of pods: the node's mount table does not contain /",
    Code.TOO_MANY_PROCESSES_FOR_MOUNTS: "reading the mounts of pods: there are more than {most} processes",
    Code.TOO_MANY_POD_MOUNTS: "reading the mounts of pods: there are too many, for example of {whose}",
    # What could not be seen: Kubernetes and the cloud.
    Code.CANNOT_READ_UNITS: "reading systemd's units: {error}",
    Code.CANNOT_READ_KUBERNETES: "reading how Kubernetes is configured on this node: {error}",
    Code.CANNOT_READ_DISTRIBUTION: "reading the configuration of {what}: {error}",
    Code.BAD_DISTRIBUTION_FILE: "reading the configuration of {what}: {error}",
    Code.NO_NODES_GIVEN: "no Nodes were given (--nodes FILE or --kubeconfig FILE)",
    Code.KIND_NOT_GIVEN: "{source} has no {kind}",
    Code.LIGHTKUBE_MISSING: "querying the API server requires the Python package lightkube",
    Code.API_FAILED: "querying the API server with {kubeconfig}: {error}",
    Code.BAD_KUBECONFIG: "querying the API server with {kubeconfig}: the kubeconfig is not valid",
    Code.METADATA_NOT_ASKED: "the metadata service was not queried (--no-metadata)",
    Code.NOT_HETZNER: "neither DMI nor the routes show that this is a Hetzner Cloud server",
    Code.METADATA_FAILED: "querying the metadata service at {address}: {error}",
    Code.BAD_METADATA_NETWORKS: "the metadata service's list of private networks is not valid",
    Code.NO_POD_RANGE_READ: "no pod range could be read from {source}",
    # Whose a process is not.
    Code.UNREADABLE_PROCESS: "it could not be read ({error})",
    Code.OTHER_PROGRAM: "its program {path} is not a known {role}",
    Code.OTHER_NAMESPACE: "its {kind} namespace is not that of process 1",
    Code.NOT_ROOT: "it runs as user {uid}, not as root",
    Code.CONTAINER_CONTROL_GROUP: "it is in the cgroup of a container ({path})",
    Code.USER_CONTROL_GROUP: "it is in the cgroup of a user or of a machine ({path})",
    Code.NO_SERVICE_CONTROL_GROUP: "its cgroup is not that of a system service ({path})",
    Code.PROGRAM_DELETED: "its program was deleted, and it is not run by a system service",
    Code.PROGRAM_NOT_TRUSTED: "its program is not trusted: {error}",
    Code.PROGRAM_NOT_ON_NODE: "opening its program {path} on the node: {error}",
    Code.PROGRAM_REPLACED: "the node has a different file at {path}",
    Code.SOCKET_HELD_BY_INIT: "process 1 holds the socket, but no runtime does",
    Code.LISTENER_ENDED: "the process that opened the socket has exited, and another process has its PID",
    # Whose a directory is.
    Code.FILESYSTEM_UNKNOWN: "the file system type of its directory is not known: other machines may keep leases there",
    Code.FILESYSTEM_SHARED: (
        "its directory is on {filesystem}: other machines may keep leases there, and file locks do not bind them"
    ),
    Code.MARK_UNREADABLE: (
        "it is not known which node owns its data directory: {cause}; if it is this node, remove that file"
    ),
    Code.MARK_OF_ANOTHER_NODE: (
        "{path} marks its data directory as another node's (number {number}, in the machine's initial PID namespace); "
        "if only this node uses it, for example after a reinstallation, remove that file"
    ),
    Code.MARK_OF_ANOTHER_CONTAINER: (
        "{path} marks its data directory as another node's (number {number}, in a container); if only this node uses "
        "it, for example after a reinstallation, remove that file"
    ),
    Code.OWNER_UNKNOWN: "it is not known whether other nodes use its directory: {cause}",
    Code.OWNERSHIP_NOT_SHOWN: (
        "this node has its own PID namespace, as a container has, so another node on this machine may use its "
        "directory; if none does, set {key} = true in /etc/janitor/janitor.toml"
    ),
    Code.CANNOT_MARK: "{path} could not be marked as this node's: {error}",
    Code.GC_DISABLED: "its CNI configuration sets disableGC, so janitor leaves its leases alone",
    Code.NETWORK_NOT_USED: "CRI does not use its network {network} (configured in {source})",
    Code.NO_NETWORK_THERE: "no network that CRI uses keeps its leases in {path}, according to the CNI configuration",
    # What a file is.
    Code.BOOKKEEPING: "host-local's own bookkeeping",
    Code.NAME_NOT_AN_ADDRESS: "its name {name} is not an address in host-local's format",
    Code.NOT_A_REGULAR_LEASE: "it is a {kind}, but host-local writes regular files",
    Code.TOO_LARGE: "it holds {bytes} bytes, far more than host-local writes",
    Code.EMPTY: "it is empty",
    Code.BLANK: "it holds {bytes} bytes, all of them {what}",
    Code.BINARY: "it holds binary data that host-local does not write",
    Code.BREAKS_OFF_IN_NULS: "its content is cut off, and NUL bytes follow",
    Code.BREAKS_OFF: "its container ID is cut off after {digits} of 64 digits",
    Code.LINES_END_IN_LF: "its lines end in LF instead of CR LF, so a CNI DEL does not match it",
    Code.NOT_A_SANDBOX_ID: "{id} is not a CRI sandbox ID",
    Code.CACHE_NOT_REGULAR: "it is not a regular file",
    Code.CACHE_TOO_LARGE: "it holds {bytes} bytes, far more than libcni writes",
    Code.CACHE_NULS: "it holds {bytes} NUL bytes",
    Code.CACHE_NOT_JSON: "it is not JSON as libcni writes it",
    Code.CACHE_CONFIG_UNDECODABLE: "the CNI configuration in it cannot be decoded",
    Code.CACHE_CONFIG_NOT_AN_OBJECT: "the CNI configuration in it is not a JSON object",
    # Why a lease is live, held, foreign, pending or missing.
    Code.LISTED_READY: "{runtime} lists its sandbox as READY",
    Code.CONTAINERD_RECORD: (
        "containerd has a {kind} with this ID in namespace {namespace}, which CRI does not list: it is being created, "
        "or its creation was interrupted"
    ),
    Code.PLUGIN_AT_WORK: "the CNI plugin {name} (process {pid}) is running for it: {command}",
    Code.PROCESS_RUNS: "process {pid} ({name}) is running for it",
    Code.TASK_DIRECTORY: "a runtime has a task directory for it: {path}",
    Code.ADDRESS_UP: "the address is up in the network namespace of {where}",
    Code.HOST_ROUTE: "the network namespace of {where} has a host route to the address",
    Code.OTHER_ADDRESS_UP: "an address leased to its container is up: {address}",
    Code.BEGINNING_OF_ID: "its truncated container ID matches {id}",
    Code.LISTED_NOTREADY: "its sandbox {pod} is NOTREADY, and the kubelet still has to remove it",
    Code.CLAIMED: "the runtime lists this address for the sandbox {pod} ({state})",
    Code.OUTSIDE_RANGES: "its address is outside the ranges of the network ({ranges})",
    Code.NOT_ALL_SEEN: "no owner was found, but janitor could not see everything",
    Code.NO_OWNER: "no runtime, process, network namespace or route on this node knows its container or its address",
    Code.NO_OWNER_OF_ADDRESS: "no runtime, process, network namespace or route on this node knows its address",
    Code.FORMER_ADDRESS: "it was the address of {pod}, whose sandbox is dead",
    Code.NEVER_RELEASED: "{cause}: no CNI DEL can ever match it",
    Code.RANGE_UNKNOWN: "the network's range is not known ({cause}), so only the network's name was compared",
    Code.RANGES_UNKNOWN: "its ranges are not known: {cause}",
    Code.READY_WITHOUT_LEASE: "the sandbox {pod} is READY and got this address from host-local",
    Code.NO_LEASE_THERE: "there is no lease for it in {path}",
    # Proofs that it is dead, and what is missing of them.
    Code.IN_LEDGER: "the boot ledger lists this file: it existed before any container runtime of this boot started",
    Code.WATCHED: "it was watched for {seconds} s, did not change and had no owner",
    Code.OLDER_THAN_RUNTIME: "it was written before the runtime started, and the clock was not changed since",
    Code.FILE_UNREADABLE: "the file could not be read",
    Code.PLUGIN_MAY_BE_WRITING: (
        "a running CNI plugin may be writing it: the file names no container that could be checked"
    ),
    Code.MAY_BE_CREATED: (
        "its pod could still be in creation: it is not in the boot ledger, not proven older than the runtime, and has "
        "not been watched for {seconds} s"
    ),
    Code.MISSING_FOR: "it has been missing for {seconds} s",
    Code.SANDBOX_NOT_RUNNING: "its sandbox {pod} is not running",
    Code.CONTAINER_UNKNOWN: "no runtime knows its container",
    Code.CONTAINER_GONE: "its container is gone",
    Code.AFTER_CHAIN_DEL: "it is removed only after the CNI DEL of its plugin chain has succeeded",
    Code.BEFORE_ANY_RUNTIME: (
        "it existed before any container runtime of this boot started, so nothing that is running can own it"
    ),
    Code.NO_CONFIGURATION_BUT_CRI: (
        "there is no CNI configuration, but its directory contains only leases of CRI sandboxes"
    ),
    Code.TABLE_NOT_LOOKED_UP: (
        "table {table} has routes on links that are up, but no rule sends these pods' packets to it"
    ),
    Code.OWNER_RUNS: "{process} is running, and adds this rule only when it starts",
    Code.NETWORKD_AT_WORK: (
        "systemd-networkd has started or configured a link since then, and no other foreign rule is left"
    ),
    # Why something is left as it is.
    Code.MAX_PER_PASS: "{left} more are left for the next pass (--max {most})",
    Code.RUNTIME_SETTLING: "{name} started {seconds} s ago and may still be loading its sandboxes",
    Code.MISSING_NOT_ALL_SEEN: "it is missing, but janitor could not see everything",
    Code.MISSING_SEEN_ONCE: "its lease is missing; it is written back if it is still missing a minute later",
    Code.DAMAGED_NOT_ALL_SEEN: "{cause}, but janitor could not see everything",
    Code.RUNTIME_RESTARTED: "the container runtime restarted between the two checks",
    Code.NOT_THE_SAME: "it changed between the two checks",
    Code.STALE_RULES: "packet filter rules still contain its address: see iptables-save",
    Code.LEASES_LEFT: "{leases:lease} left: {cause}",
    Code.BAD_NETWORK_NAME: "its name is not a valid CNI network name",
    Code.UNUSUAL_PATH: "its path has unusual characters",
    Code.OBSCURE_CONFIGURATION: (
        "a CNI configuration that cannot be parsed may be about it, and could contain firewall or disableGC"
    ),
    Code.CONFIGURATION_UNREADABLE: (
        "the CNI configuration cannot be read, and could contain firewall or disableGC; its leases are only recorded"
    ),
    Code.ANOTHER_ENGINE: "another container engine keeps its leases there",
    Code.NETWORK_NOT_NAMED: "no CNI configuration that CRI uses contains this network",
    Code.BOOT_GC_DISABLED: "its CNI configuration sets disableGC",
    Code.FIREWALL_PLUGIN: (
        "its plugin chain contains firewall, whose DEL works by address; its leases are only recorded"
    ),
    Code.NOT_ALL_CRI: "there is no CNI configuration, and not all files there are CRI leases",
    Code.SYMBOLIC_LINK: "left: it is a symbolic link",
    # What became of it.
    Code.STOPPED: "janitor was asked to stop",
    Code.LOCK_LOST: "{path} was removed or replaced",
    Code.NO_LOCK_FILE: "{path} has no lock file: host-local has not run there, or the file was removed",
    Code.CANNOT_OPEN_LOCK: "opening {path}: {error}",
    Code.LOCK_NOT_REGULAR: "{path} is not a regular file, as host-local creates it",
    Code.LOCK_HELD: "{path} has been held by {holder} for more than {seconds} s",
    Code.DIRECTORY_REPLACED: "{path} was removed or replaced while janitor waited for its lock",
    Code.JANITOR_AT_WORK: "{holder} is already at work on this node; wait until it has finished",
    Code.JANITOR_LOCK_REPLACED: "{path} was removed or replaced while janitor was locking it",
    Code.JOURNAL_UNWRITABLE: "the journal cannot be written ({error}), so nothing more is changed",
    Code.JOURNAL_BROKE: "{event}, but the journal could not be updated ({error}); the next pass will complete it",
    Code.JOURNAL_BROKEN: "the journal could not be updated ({error}); the next pass will complete it",
    Code.NO_PLUGIN_RUN: "no CNI plugin was run: {cause}",
    Code.DEL_LEFT_UNSEEN: "after CNI DEL: {cause}",
    Code.DEL_LEFT_RULES: "CNI DEL left packet filter rules that contain {addresses}",
    Code.DEL_FAILED: "CNI DEL of {plugin} failed: {error}",
    Code.DEL_NOT_RUN: "{error}",
    Code.DEL_NOT_STARTED: "CNI DEL: {error}",
    Code.DEL_UNREADABLE: "reading {path}: {error}",
    Code.KEPT_BECAUSE_OF_DEL: "{cause}; the lease is kept, so that no pod gets an address with stale rules",
    Code.LAST_LOOK_FAILED: "at the last check: {cause}",
    Code.CHANGE_FAILED: "{path}: {error}",
    Code.NOT_SYNCED: "not synced to disk: {error}",
    Code.PROCESS_RUNS_NOW: "a process is now running for it",
    Code.ADDRESS_UP_NOW: "its address is now up",
    Code.RELEASED: "it is gone: its owner released it",
    Code.REPLACED: "it was replaced or changed after it was checked",
    Code.MOVE_FAILED: "moving it to {path}: {error}",
    Code.ANOTHER_OF_CHAIN: "{subject}: {cause}",
    Code.WITH_CHAIN_DEL: "after the CNI DEL of its plugin chain",
    Code.POD_STOPPED: "the pod is no longer running",
    Code.LEASED_MEANWHILE: "the address has been leased in the meantime",
    Code.WRITE_FAILED: "writing the lease: {error}",
    Code.RULE_MADE_MEANWHILE: "another process has added it in the meantime",
    Code.RULE_MADE: "with priority {priority}",
    Code.RULE_CONTENDED: "another process adds and deletes it at the same time",
    Code.SETTING_THERE: "it is already set",
    Code.SETTING_IS_LINK: "it is a symbolic link: change the file that it points to",
    Code.REPAIR_FAILED: "{error}",
    Code.REPAIR_NEEDS_NET_ADMIN: "{error}; this needs CAP_NET_ADMIN",
    Code.CUT_OFF: "by an earlier pass that was interrupted before it could log this",
    # Why nothing was put back.
    Code.USE_UNSEEN: "it is not known whether its address is in use: {cause}",
    Code.ADDRESS_IN_USE: "its address is in use now",
    Code.LEASED_AGAIN: "its address has been leased again",
    Code.OWNER_STARTED: "{process} has started since then, and the rule is now its own",
    Code.RULE_TWICE: "it exists {count} times, and janitor cannot tell which one it added",
    Code.SETTING_CHANGED: "it was changed since then",
    Code.SETTING_GONE: "it is gone",
    Code.UNDO_FAILED: "{error}",
    # Why it is not early.
    Code.ROOT_NOT_A_DIRECTORY: "--root {path} is not a directory",
    Code.ROOT_IS_INITRAMFS: "{path} is an initramfs; set --root to the node's own root",
    Code.NO_DATA_DIRECTORY_YET: "{path} does not exist yet; if it is mounted later, run this after the mount",
    Code.NO_LEASES_YET: "there are no leases in {path}; if it is mounted later, run this after the mount",
    Code.LEDGER_THERE: "the boot stage has already run in this boot ({path}); on a running node use 'janitor clean'",
    Code.RUNNING_ALREADY: "{name} (process {pid}) is already running; on a running node use 'janitor clean'",
    Code.SOCKET_FAILED: "{path}: {error}",
    Code.RUNTIME_ANSWERS: "a container runtime already answers at {path}; on a running node use 'janitor clean'",
    Code.NAMESPACE_THERE: "the network namespace {path} already exists; on a running node use 'janitor clean'",
    Code.ADDRESS_UP_ALREADY: (
        "{address} is already up in the network namespace of {where}; on a running node use 'janitor clean'"
    ),
    Code.IN_A_CONTAINER: (
        "only the processes of a container can be seen (its process 1 is {name}), not those of the node; run this in "
        "the host's PID namespace"
    ),
    Code.CACHED_CONFIGURATION_UNREADABLE: "the CNI configuration in libcni's cache cannot be read: {error}",
    Code.JOURNAL_UNUSABLE: "the journal cannot be used: {error}",
    # Why a rule is not restored.
    Code.ONLY_OBSERVING: "only observing",
    Code.RULE_NOTE_TOO_OLD: (
        "its record is older than {seconds} s, and {owner} adds and removes such rules as pods come and go"
    ),
    Code.NETWORKD_NOT_SEEN: "it is not known whether systemd-networkd was active: {cause}",
    Code.NETWORKD_NOT_STARTED: (
        "systemd-networkd has not started {since}, and after a clock step the times of its links prove nothing"
    ),
    Code.NETWORKD_NOT_AT_WORK: "systemd-networkd has neither started nor configured a link {since}",
    Code.NETWORKD_KEEPS_RULES: "systemd-networkd leaves foreign rules alone, by its configuration or in this version",
    Code.OTHER_RULES_LEFT: "systemd-networkd would have deleted these rules as well, but they still exist: {rules}",
    Code.OWNER_GONE: "{process} has not been running for {seconds} s",
    Code.OWNER_REFUSES: "{process} runs with {flag}",
    Code.OWNER_CONFIGURATION_GONE: "its CNI configuration ({path}) is gone",
    Code.NOT_A_POD_RANGE: "{range} is not a pod range of this node ({ranges})",
    Code.OWNER_NOT_ASKED: "{process} was not started with {flag}",
    Code.OWNER_NOT_RUNNING: "{process} is not running",
    Code.NO_LINK_UP: "no link that matches {link} is up",
    Code.TABLE_EMPTY: "table {table} is empty",
    Code.TABLE_LINKS_DOWN: "no route of table {table} is on a link that is up",
    Code.OTHER_RULE: "there is another rule for the same pods: {rule}",
    Code.TABLE_USE_NOT_SEEN: "it is not known whether its table is in use: {cause}",
    Code.BY_HAND: "by hand: {command}",
    # What the node does not say.
    Code.NO_CONTROL_PLANE: "this is not a control plane node, so the pod and Service ranges are not configured on it",
    Code.NO_RANGES_ON_NODE: "no command line and no file on this node contains the pod and Service ranges",
    Code.NO_KUBERNETES: "no Kubernetes was found on this node",
    Code.NOT_GIVEN: "no {what} were given",
    Code.RUNTIME_VIEW_UNSEEN: (
        "it is not known whether the container runtime sees the same directory at {path} ({error})"
    ),
    Code.RUNTIME_SEES_ANOTHER: "the container runtime sees a different directory at {path}",
    Code.CANNOT_READ_PROCESSES: "reading the command lines and environments of processes: {error}",
    # What became of an action that was cut short.
    Code.NOT_IN_QUARANTINE: "it is no longer in the quarantine",
    Code.DIRECTORY_GONE: "{path} is gone",
    Code.INTERRUPTED_RULE: "interrupted; 'janitor scan' shows whether the rule exists",
    Code.INTERRUPTED_BEFORE: "interrupted before the change",
    Code.INTERRUPTED_IN_PLACE: "interrupted; the file is still in its place",
    Code.FOUND_DONE: "interrupted after the change",
    Code.RELEASED_MEANWHILE: "its owner released it meanwhile",
    Code.NETWORKD_DELETES_RULES: "systemd-networkd {version} deletes every foreign rule when it configures a link",
    Code.RULES_NOT_KEPT: "{why}",
    Code.CONTROL_GROUP_UNSEEN: "its cgroup could not be read",
    Code.OTHER_HIERARCHY: "process 1 has no cgroup in hierarchy {hierarchy}",
    # Damage of a CNI configuration file.
    Code.UNREADABLE: "it cannot be read ({error})",
    Code.NOT_JSON: "it is not JSON ({error})",
    Code.NOT_AN_OBJECT: "it is not a JSON object",
    Code.CNI_LINE_BREAK: "its name contains a line break",
    Code.CNI_TOO_LARGE: "it is larger than {kib} KiB",
    Code.CNI_TOO_DEEP: "it is nested too deeply",
    Code.CNI_KEY_TWICE: "it contains a key twice",
    Code.CNI_KEY_CASE: "it contains {key} instead of {meant}",
    Code.CNI_NO_PLUGIN: "it contains no plugin",
    Code.CNI_NO_NAME: "it has no valid network name",
    Code.ONLY_FILES_READ: "only files were read, not the processes of a node",
    # Why a check was not made.
    Code.NOT_WRITTEN_HERE: "{what} is not configured on this node",
    Code.RANGES_NOT_BOTH_WRITTEN: "the pod range and the Service range are not both configured on this node",
    Code.ROUTES_NOT_KNOWN: (
        "it is not known whether Hetzner's cloud controller makes routes: it does not run on this node, and its "
        "Deployment was not given"
    ),
    Code.NODES_NOT_COUNTED: "the number of nodes is not known without --nodes or --kubeconfig",
    Code.OWN_ADDRESS_NOT_WRITTEN: "this node's own address is not known",
    Code.PRIVATE_NETWORK_NOT_KNOWN: "the private network's range is not known",
    Code.DNS_SAID_ONCE: (
        "fewer than two places on this node name the cluster DNS address, so there is nothing to compare"
    ),
    Code.POD_RANGE_NOT_SAID: "no component on this node names the pod range",
    Code.POD_RANGE_SAID_ONCE: (
        "fewer than two components on this node name the pod range, so there is nothing to compare"
    ),
    Code.OWN_RANGE_NOT_KNOWN: "this node's pod range is not known",
    Code.NODE_NOT_SEEN: "this node's Node object is not known",
    Code.NO_AUTOSCALER_LABEL: "Node {node} has no label hcloud/node-group, so no autoscaler created it",
    Code.NO_CLOUD_CONTROLLER: "Hetzner's cloud controller does not run on this node",
    Code.NO_CNI_DIRECTORY: "no runtime reports its CNI directory, and none of the usual ones exists",
    Code.KUBELET_OR_NODE_NOT_SEEN: "this node's kubelet or its Node object is not known",
    Code.KUBELET_INSIDE: (
        "{distribution} runs the kubelet inside its own process, and the journal does not show its flags"
    ),
    Code.NO_KUBELET: "no running kubelet was found",
    Code.FLAGS_NOT_WRITTEN: "there is no kubelet.service that sets the kubelet's flags",
    Code.NO_KUBELET_UNIT: "{where} has no kubelet.service",
    Code.NO_PROVIDER_EXPECTED: "nothing shows that a cloud controller manages this node",
    Code.NO_KUBELET_ADDRESS: "no address is known for this node",
    Code.NODE_NOT_GIVEN: "{source} has no Node named {node}",
}

HINTS: Final[dict[Code, str]] = {
    Code.NO_PROC: "run janitor on the running node",
    Code.PROC_OF_ANOTHER_ROOT: "run janitor on the running node, and set --root to the path where its / is mounted",
    Code.PROC_SEES_ANOTHER_PART: "set hostPID: true for the pod, or check whether that directory was mounted again",
    Code.LEASE_BEING_WRITTEN: "run janitor again",
    Code.BAD_CNI_CONFIGURATION: "correct or remove the file: the runtime cannot load it",
    Code.NO_CNI_CONFIGURATION: "check that this is a Kubernetes node and that its CNI is installed",
    Code.NEWER_NOTE: "use the newer janitor, or remove the file if you do not need its content",
    Code.ENDPOINT_NOT_A_SOCKET: "write it as unix:///run/containerd/containerd.sock",
    Code.SOCKET_PATH_TOO_LONG: "mount the node's root at a shorter path",
    Code.NO_SOCKET: "check that the runtime is running and that this is its socket",
    Code.NOT_A_SOCKET: "set --cri-endpoint to the runtime's socket",
    Code.NOBODY_LISTENS: "check that the runtime is running",
    Code.LISTENER_NOT_TRUSTED: (
        "if the kubelet uses this runtime, set --cri-endpoint {address}, or cri_endpoints in the configuration"
    ),
    Code.LISTENER_OUT_OF_SIGHT: "run janitor in the host's PID namespace (hostPID: true)",
    Code.NOT_CRI_V1: "set the socket of the runtime that the kubelet uses: --cri-endpoint unix:///…",
    Code.RUNTIME_DOES_NOT_ANSWER: (
        "check that the runtime works and that this is its socket; see also --cri-endpoint and --deadline"
    ),
    Code.SANDBOXES_NOT_LISTED: "run janitor again when the runtime answers",
    Code.SANDBOX_STATUS_UNKNOWN: "run janitor again",
    Code.RECORDS_NOT_LISTED: "run janitor as root: it must be able to read every containerd namespace",
    Code.NO_RUNTIME: (
        "start the runtime, or set its socket: --cri-endpoint unix:///…, or cri_endpoints in /etc/janitor/janitor.toml"
    ),
    Code.UNUSED_RUNTIME: "if the kubelet uses it, set --cri-endpoint {address}",
    Code.NO_NAMESPACE: "run janitor on the node itself",
    Code.BAD_DISTRIBUTION_FILE: "correct the file",
    Code.LIGHTKUBE_MISSING: (
        "in a clone of janitor, run /opt/janitor/bin/pip install -c constraints.txt '.[kubernetes]'"
    ),
    Code.METADATA_FAILED: "ip route get 169.254.169.254",
}
