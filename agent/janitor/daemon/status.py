"""The daemon's settings; its health and status line, from those of its components."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from janitor import __version__
from janitor.core.model.action import Policy
from janitor.core.model.finding_ids import matching_ids
from janitor.core.model.text import count, listing
from janitor.daemon.component import Health
from janitor.daemon.endpoints import Overview
from janitor.host.privileges import MissingPrivilege, missing_privileges
from janitor.passes.scan import Options
from janitor.report.metrics import Family, counter


class SettingsError(Exception):
    """The configuration is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line and the configuration, as the daemon uses them."""

    options: Options
    policy: Policy  # `findings` are those it may act on
    leases: bool  # leases are looked after
    rules: bool  # policy rules are looked after
    repair_rules: bool
    no_rules: str  # why the rules cannot be kept although they should be; "" if they can
    interval_s: float
    keep_days: float
    durable: bool
    listen: tuple[str, int] | None
    hosts: tuple[str, ...]
    textfile: str


def changes(old: Settings, new: Settings) -> set[str]:
    """The names of the settings that differ."""
    return {field.name for field in fields(Settings) if getattr(old, field.name) != getattr(new, field.name)}


def missing(settings: Settings) -> tuple[MissingPrivilege, ...]:
    """The privileges and mounts that the daemon lacks."""
    options = settings.options
    sockets = (*options.cri_endpoints, *options.configured_endpoints)
    return missing_privileges(options.root, sockets, options.data_dirs, leases=settings.leases)


def mode(settings: Settings) -> str:
    """What it may repair, in words: "repair" for everything it looks after, "observe" for nothing."""
    leases = sorted(settings.policy.findings or ()) if settings.leases else []
    every = settings.leases and matching_ids("leases") <= set(leases)
    words = (["leases"] if every else leases) + (["rules"] if settings.rules and settings.repair_rules else [])
    if not words:
        return "observe"
    whole = (every or not settings.leases) and (settings.repair_rules or not settings.rules)
    return "repair" if whole else f"repair {listing(words)}, observe the rest"


def metrics(missing_privileges: Sequence[MissingPrivilege], dropped: int) -> tuple[Family, ...]:
    """The metrics of the daemon itself. `dropped`: log lines that could not be written."""
    return (
        Family("janitor_build_info", "Version of janitor.", "gauge", (((__version__,), 1),), ("version",)),
        Family(
            "janitor_missing", "1 for each capability, mount or namespace that janitor needs and lacks.", "gauge",
            tuple(((missing_privilege.what,), 1) for missing_privilege in missing_privileges), ("what",),
        ),
        counter("janitor_log_lines_dropped", "Log lines dropped because standard error was not writable.", dropped),
    )  # fmt: skip


def health(parts: Sequence[Health], missing: Sequence[MissingPrivilege] = (), idle: str = "") -> Health:
    """The daemon's health, from that of its components. An unreachable runtime is no reason for a restart.

    A missing privilege is no reason for a restart either, but the daemon is not ready while one is missing. `idle` is
    why it is not at work.
    """
    ill = next((part.ill for part in parts if part.ill), "")
    unready = "; ".join(map(str, missing)) or "; ".join(part.unready for part in parts if part.unready)
    if idle:  # a restart would not get the lock
        ill, unready = "", f"waiting for the daemon lock: {idle}; {unready}".rstrip("; ")
    return Health(ill, unready, next((part.problem for part in parts if part.problem), ""))


def status(overview: Overview, health: Health) -> str:
    """One line for `systemctl status`."""
    words, looked = [health.ill or health.unready or health.problem], overview.looked
    if looked is not None:
        words += [f"{n.name}: {n.free} of {n.capacity} free" for n in looked.networks if n.free is not None]
        words.append(count(sum(finding.number for finding in looked.findings), "finding"))
    if overview.watched is not None:
        words.append(f"{count(overview.watched, 'rule')} watched")
    return ", ".join(word for word in words if word)
