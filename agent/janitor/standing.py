"""How the daemon stands: what it was told, and from its parts the figures, the health and the one line for systemd."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from janitor.core.action import Policy
from janitor.core.prose import count, listing
from janitor.core.retry import SECOND
from janitor.host.procfs import clock
from janitor.host.rights import Lack, lacks
from janitor.keeping import Keeping
from janitor.passing import LONGEST_S, Passing
from janitor.pipeline import Options, matching_ids
from janitor.report.metrics import Figures
from janitor.seen import Health
from janitor.syncing import Syncing


class SettingsError(Exception):
    """The configuration cannot be used; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line and the configuration mean to the daemon."""

    options: Options
    policy: Policy  # `findings` are those it may act on
    leases: bool  # whether it looks after the leases at all
    rules: bool  # and after the policy rules
    repair_rules: bool
    no_rules: str  # why the rules cannot be kept though they should be; "" where they can
    interval_s: float
    keep_days: float
    durable: bool
    listen: tuple[str, int] | None
    hosts: tuple[str, ...]
    textfile: str


def changes(old: Settings, new: Settings) -> set[str]:
    """The names of the settings that differ."""
    return {field.name for field in fields(Settings) if getattr(old, field.name) != getattr(new, field.name)}


def missing(settings: Settings) -> tuple[Lack, ...]:
    """What the daemon was not given of rights and of the node."""
    options = settings.options
    sockets = (*options.cri_endpoints, *options.configured_endpoints)
    return lacks(options.root, sockets, options.data_dirs, leases=settings.leases)


def mode(settings: Settings) -> str:
    """What it may repair, in words: "repair" for all that it looks after, "observe" for nothing of it."""
    leases = sorted(settings.policy.findings or ()) if settings.leases else []
    every = settings.leases and matching_ids("leases") <= set(leases)
    words = (["leases"] if every else leases) + (["rules"] if settings.rules and settings.repair_rules else [])
    if not words:
        return "observe"
    whole = (every or not settings.leases) and (settings.repair_rules or not settings.rules)
    return "repair" if whole else f"repair {listing(words)}, observe the rest"


def figures(
    settings: Settings, parts: Mapping[str, object], dropped: Counter[str], missing: Sequence[Lack] = ()
) -> Figures:
    """All numbers there are, now. `dropped` has the lines that the log did not take."""
    rules, leases, durable = (parts.get(name) for name in ("rules", "leases", "durable"))
    passing = leases if isinstance(leases, Passing) else None
    keeping = rules if isinstance(rules, Keeping) else None
    syncing = durable if isinstance(durable, Syncing) else None
    keeper = keeping.keeper if keeping is not None else None
    return Figures(
        looked=passing.looked if passing else None,
        results=passing.results if passing else Counter(),
        complete_at=passing.complete_at if passing else 0.0,
        done=passing.done if passing else Counter(),
        forecasts=passing.forecasts() if passing else {},
        rules=keeping.counts if keeping else Counter(),
        watching=keeper is not None if settings.rules else None,
        kept=len(keeper.mirror.kept) if keeper else 0,
        synced=syncing.files if syncing else 0,
        sync_seconds=syncing.seconds if syncing else 0.0,
        missing=tuple(lack.what for lack in missing),
        interval_s=settings.interval_s if settings.leases else None,
        dropped=dropped["lines"],
        age_s=(clock().boottime_ns - passing.looked_ns) / SECOND if passing and passing.looked_ns else None,
    )


def health(
    settings: Settings, parts: Mapping[str, object], began_ns: int, missing: Sequence[Lack] = (), idle: str = ""
) -> Health:
    """Ill is only who does not come to an end with any pass: a runtime that is away is no reason to start anew.

    Neither is a right that is missing; but as long as one is, this janitor is not ready. `began_ns` (CLOCK_BOOTTIME)
    is since when it could have made a pass without having been suspended or stopped; `idle` is why it is not at work.
    """
    leases, rules = parts.get("leases"), parts.get("rules")
    ill = problem = ""
    unready = "; ".join(map(str, missing))
    if settings.leases:
        passing = leases if isinstance(leases, Passing) else None
        since = (clock().boottime_ns - max(passing.ended_ns if passing else 0, began_ns)) / SECOND
        if since > max(3 * settings.interval_s, 2 * LONGEST_S):
            ill = f"no pass has come to its end for {since:.0f} s"
        if passing is None or not passing.ended_ns:
            unready = unready or "no pass has come to its end yet"
        problem = f"The last pass failed: {passing.problem}" if passing and passing.problem else ""
    if settings.rules and (not isinstance(rules, Keeping) or rules.keeper is None):
        unready = unready or "the policy rules are not watched"
    if idle:  # whoever starts it anew makes no lock
        ill, unready = "", f"not at work: {idle}; {unready}".rstrip("; ")
    return Health(ill, unready, problem)


def status(figures: Figures, health: Health) -> str:
    """One line for systemctl status."""
    parts = [health.ill or health.unready or health.problem]
    if figures.looked is not None:
        parts += [f"{n.name}: {n.free} of {n.capacity} free" for n in figures.looked.networks if n.free is not None]
        parts.append(count(sum(finding.number for finding in figures.looked.findings), "finding"))
    if figures.watching:
        parts.append(f"{count(figures.kept, 'rule')} watched")
    return ", ".join(part for part in parts if part)
