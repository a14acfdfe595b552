"""Rule 4: is this lease "not being born"? Three proofs, any one of which will do.

A pod's address is written before its sandbox is listed anywhere, and minutes may lie between (a slow plugin,
an image pull, a virtual machine). So a lease without an owner is dead only if it cannot be a birth in progress.
The wall clock alone is never trusted: boards without a battery-backed clock jump by years when NTP answers.

That a lease is older than the running runtime, in detail: the kernel knows a process's start in CLOCK_BOOTTIME, a file
its times in CLOCK_REALTIME. The runtime's socket was made by that process, so its ctime must lie where the process's
start lies on today's wall clock; else the clock was set, and the proof says nothing. Two steps that cancel each other
do not show there, so the daemon has a timer that the kernel cancels at each step (daemon/clock_watch.py): after one,
the proof says nothing until the runtime is started anew; steps before a boot's first daemon nobody sees. A CNI plugin
that was at work before a proof begins voids both proofs by time for leases that name nobody. Suspend, which watching
does not count, shows in CLOCK_MONOTONIC; a frozen container shows in a turn of the daemon's loop that took far longer
than it waited, or in a gap between two daemons.
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
"""Names of processes that make their own socket. Under socket activation it is systemd that answers for it."""

_CLOCK_MARGIN_NS = 2 * SECOND
_SOCKET_DELAY_NS = 120 * SECOND  # from a runtime's start until it has its socket: its plugins load first


@dataclass(frozen=True, slots=True)
class Age:
    """The proof, or what is missing. `wait_s` is how long an observer would have to go on watching."""

    proof: Reason | None
    missing: Reason | None = None
    wait_s: int | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """What a pass knows about age, gathered once for all leases. All times are in ns of CLOCK_BOOTTIME but one.

    `runtimes_began_ns` is the wall-clock time before which no running runtime can have begun a birth, None where
    that cannot be told. `oldest_plugin_ns` is the start of the oldest CNI plugin that is at work, None for none.
    `not_alone` is why other nodes may use this one's directories, of whose runtimes none of this says anything; None
    if none does.
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
    """Prove that no birth can be going on for this file. `grace_s` is never taken below the floor of 60 s.

    `anonymous` says that the file names no container, so that no sighting of its owner was possible.
    """
    if records.not_alone:
        return Age(None, records.not_alone)
    grace_s = max(grace_s, GRACE_FLOOR_S)
    this = identity(path, file)
    if this is None:
        return Age(None, because(Code.FILE_UNREADABLE))
    # (a) It was there before any runtime of this boot.
    if this in records.ledger:
        return Age(because(Code.IN_LEDGER))
    # A plugin at work that names this container is a sighting of it. For a file that names nobody any plugin could be
    # the one that is about to write it, if it was there before the file can be shown to have been.
    plugin = records.oldest_plugin_ns if anonymous else None
    # (b) It was seen, unchanged and unowned, for the whole grace.
    watched = _watched_s(this, file, records)
    if watched >= grace_s and (plugin is None or plugin > records.observations[this].first_ns):
        return Age(because(Code.WATCHED, seconds=watched))
    # (c) It is older than every runtime that could be creating it.
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
    """Seconds since this was first seen in which the machine was awake: what is asleep creates no pod."""
    asleep_ns = max(0, records.asleep_ns - seen.asleep_ns)
    return max(0, (records.now_ns - seen.first_ns - asleep_ns) // SECOND)


def _runtimes_began(evidence: Evidence) -> int | None:
    """The start of the oldest-started runtime on a wall clock shown not to have stepped since.

    The kernel keeps a process's start in CLOCK_BOOTTIME and a file's times in CLOCK_REALTIME. The socket a
    runtime made when it started is the hinge: its change time must lie where its process's start lies on
    today's wall clock, or the clock was set in between and the comparison is worth nothing. Two steps that cancel
    each other do not show there, and what was born between them has a time that is none of its own: so the comparison
    is worth nothing either once a daemon has seen the clock being set.
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
