"""Rule 4: can this lease belong to a pod that is still being created? Any one of three proofs rules that out.

A pod's address is written before its sandbox is listed anywhere, and minutes may pass between (a slow plugin, an image
pull, a virtual machine). So a lease without an owner is dead only if no pod can still be in creation with it. The wall
clock alone is never trusted: boards without a battery-backed clock jump by years when NTP answers.

How a lease is shown to be older than the running runtime: the kernel has a process's start in CLOCK_BOOTTIME and a
file's times in CLOCK_REALTIME. The runtime created its socket when it started, so the socket's ctime must match the
process's start on the current wall clock. If it does not, the clock was set, and the proof is void. Two steps that
cancel each other do not show there, so the daemon has a timer that the kernel cancels at each step
(daemon/clock_watch.py): after a step, the proof is void until the runtime restarts. Nobody sees steps before a boot's
first daemon.

A CNI plugin that was already running when a proof's time begins voids both proofs by time for leases that name no
container. Watching does not count suspend, which CLOCK_MONOTONIC shows, nor a frozen container, which shows in a turn
of the daemon's loop that took far longer than it waited, or in a gap between two daemons.
"""

from dataclasses import dataclass

from janitor.core.leases.sightings import decisive
from janitor.core.model.action import GRACE_S
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, FileIdentity, LeaseFile, Observation, Unknown, known
from janitor.core.model.lease import identity
from janitor.core.model.node_mark import not_shown
from janitor.core.model.reason import Reason, because

SECOND = 1_000_000_000
GRACE_FLOOR_S = 60

RUNTIMES = frozenset({"containerd", "crio", "cri-dockerd", "dockerd"})
"""Names of processes that create their own socket. Under socket activation systemd created it."""

_CLOCK_MARGIN_NS = 2 * SECOND
_SOCKET_DELAY_NS = 120 * SECOND  # from a runtime's start until it has its socket: its plugins load first


@dataclass(frozen=True, slots=True)
class Age:
    """The proof, or what it lacks. `wait_s`: seconds of further watching until there is a proof."""

    proof: Reason | None
    missing: Reason | None = None
    wait_s: int | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """What a pass knows about age, gathered once for all leases. Times are in ns of CLOCK_BOOTTIME, with one exception.

    `runtimes_began_ns` is a wall clock time: no running runtime can have begun to create a pod before it; None if
    unknown. `oldest_plugin_ns` is the start of the oldest running CNI plugin; None if there is none. `not_alone` is why
    other nodes, whose runtimes are not covered here, may use this node's directories; None if none does.
    """

    now_ns: int
    asleep_ns: int
    ledger: frozenset[FileIdentity]
    observations: dict[FileIdentity, Observation]
    runtimes_began_ns: int | None
    latest_runtime_ns: int
    oldest_plugin_ns: int | None
    not_alone: Reason | None = None


def gather(evidence: Evidence) -> Records:
    """Index the proofs of one pass."""
    starts = [process.started_ns for e in decisive(known(evidence.endpoints)) for process in known(e.listeners)]
    at_work = [p for p in known(evidence.processes) if p.cni_command or p.cni_container_id]
    plugins = [p.started_ns for p in at_work if not p.apart]
    return Records(
        evidence.started.boottime_ns,
        evidence.started.asleep_ns,
        frozenset(known(evidence.ledger)),
        {observation.file: observation for observation in known(evidence.observations)},
        _runtimes_began(evidence),
        max(starts, default=0),
        min(plugins, default=None),
        not_shown(evidence.this_node, evidence.said_ours),
    )


def age(path: str, file: LeaseFile, records: Records, *, anonymous: bool, grace_s: int = GRACE_S) -> Age:
    """Prove that no pod can still be in creation with this file. `grace_s` is at least 60 s (GRACE_FLOOR_S).

    `anonymous`: the file names no container, so its owner could not be seen by ID.
    """
    if records.not_alone:
        return Age(None, records.not_alone)
    grace_s = max(grace_s, GRACE_FLOOR_S)
    this = identity(path, file)
    if this is None:
        return Age(None, because(Code.FILE_UNREADABLE))
    # (a) It existed before any runtime of this boot.
    if this in records.ledger:
        return Age(because(Code.IN_LEDGER))
    # A running plugin that names this container is a sighting of it. But a file that names nobody may be about to be
    # written by any plugin that was running before the file is known to have existed.
    plugin = records.oldest_plugin_ns if anonymous else None
    # (b) It was seen unchanged and without an owner for the whole grace period.
    watched = _watched_s(this, file, records)
    if watched >= grace_s and (plugin is None or plugin > records.observations[this].first_ns):
        return Age(because(Code.WATCHED, seconds=watched))
    # (c) It is older than every runtime that could be creating a pod with it.
    older = records.runtimes_began_ns is not None and max(file.mtime_ns, file.ctime_ns) < records.runtimes_began_ns
    if older and (plugin is None or plugin > records.latest_runtime_ns):
        return Age(because(Code.OLDER_THAN_RUNTIME))
    if (older or watched >= grace_s) and plugin is not None:
        return Age(None, because(Code.PLUGIN_MAY_BE_WRITING), 0)
    return Age(None, because(Code.MAY_BE_CREATED, seconds=grace_s), grace_s - watched)


def _watched_s(this: FileIdentity, file: LeaseFile, records: Records) -> int:
    seen = records.observations.get(this)
    if seen is None or seen.ctime_ns != file.ctime_ns or seen.passes < 1:
        return 0
    return awake_s(seen, records)


def awake_s(seen: Observation, records: Records) -> int:
    """Seconds awake since it was first seen. Suspend does not count: a sleeping machine creates no pod."""
    asleep_ns = max(0, records.asleep_ns - seen.asleep_ns)
    return max(0, (records.now_ns - seen.first_ns - asleep_ns) // SECOND)


def _runtimes_began(evidence: Evidence) -> int | None:
    """The start of the oldest runtime, on a wall clock that has not been set since; None without that.

    The kernel keeps a process's start in CLOCK_BOOTTIME and a file's times in CLOCK_REALTIME. The socket that the
    runtime created at its start connects them: its ctime must match the process's start on the current wall clock.
    Otherwise the clock was set in between, and the comparison proves nothing. Two steps that cancel each other do not
    show there, but files written between them have wrong times: so the comparison proves nothing either once a daemon
    has seen the clock being set.
    """
    endpoints = decisive(known(evidence.endpoints))
    processes = [process for endpoint in endpoints for process in known(endpoint.listeners)]
    if not endpoints or len(processes) < len(endpoints):
        return None
    offset = evidence.started.realtime_ns - evidence.started.boottime_ns
    limits: list[int] = []
    for process in processes:
        start = offset + process.started_ns
        if process.name not in RUNTIMES or isinstance(evidence.clock_set_ns, Unknown):
            return None
        if evidence.clock_set_ns >= process.started_ns:
            return None
        if not start - _CLOCK_MARGIN_NS <= process.socket_ctime_ns <= start + _SOCKET_DELAY_NS:
            return None
        limits.append(min(start, process.socket_ctime_ns) - _CLOCK_MARGIN_NS)
    return min(limits)
