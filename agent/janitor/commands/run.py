"""run: the daemon, started by hand, from its unit or as a pod."""

import os
import select
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from janitor.commands.common import (
    EXIT_USAGE,
    ConfigFile,
    DataDirs,
    Deadline,
    Endpoints,
    Root,
    Stop,
    load,
    options,
)
from janitor.report.words import text

if TYPE_CHECKING:
    from janitor.config import Config
    from janitor.daemon.status import Settings
    from janitor.report.events import Log, LogEvent

_CAP_NET_ADMIN: Final = 12  # capabilities(7)
_PARTS: Final = ("leases", "rules")
_NO_RIGHT: Final = "restoring rules needs CAP_NET_ADMIN: run as root, add the capability, or use --observe"


class LogFormat(StrEnum):
    """Forms of the log's lines."""

    KEYVALUE = "keyvalue"
    JSON = "json"


def run(
    only: Annotated[
        str, typer.Option("--only", metavar="PARTS", help="Handle leases, rules or both.")
    ] = "leases,rules",
    observe: Annotated[bool, typer.Option("--observe", help="Report only; change nothing.")] = False,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="Log format.")] = LogFormat.KEYVALUE,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS:PORT",
            help="Where to serve metrics and the page; '' for none.  [default: 127.0.0.1:9742]",
        ),
    ] = None,
    root: Root = "/",
    cri_endpoint: Endpoints = None,
    data_dir: DataDirs = None,
    deadline: Deadline = None,
    config: ConfigFile = None,
) -> None:
    """Run the daemon: free leaked leases and restore policy rules.

    Runs until SIGTERM or SIGINT. SIGHUP reloads the configuration.

    Exit codes: 0 stopped by a signal, 2 could not start, 64 wrong usage, 70 bug in janitor.
    """
    from janitor.daemon.loop import Daemon
    from janitor.daemon.status import SettingsError

    parts = frozenset(part.strip() for part in only.split(","))
    if not parts or not parts <= set(_PARTS):
        raise Stop(f"--only {only}: must be {' or '.join(_PARTS)}, or both with a comma", EXIT_USAGE)

    def read() -> "Settings":
        where = options(root, cri_endpoint, data_dir, deadline, config)
        settings = load(config)
        if listen is not None:
            settings = _listening(settings, listen)
        found = _settings(settings, parts, observe=observe)
        return replace(found, options=where)

    def read_again() -> "Settings":
        try:
            return read()
        except Stop as stop:
            raise SettingsError(str(stop)) from None

    first = read()
    if parts == {"rules"}:
        _can_begin(first)
    dropped: Counter[str] = Counter()
    Daemon(first, read_again, _log(log_format, dropped), dropped).run()


def _listening(settings: "Config", listen: str) -> "Config":
    import msgspec

    from janitor.config import address

    if listen and address(listen) is None:
        raise Stop(f"--listen {listen}: must be ADDRESS:PORT, such as 127.0.0.1:9742 or [::1]:9742", EXIT_USAGE)
    return msgspec.structs.replace(settings, listen=listen)


def _settings(settings: "Config", parts: frozenset[str], *, observe: bool) -> "Settings":
    """The daemon's settings from the configuration; its names of checks have been validated."""
    from janitor.config import address
    from janitor.core.model.action import Policy
    from janitor.core.model.finding_ids import Family, FindingId, matching_ids
    from janitor.daemon.status import Settings
    from janitor.passes.scan import Options

    allowed = set() if observe or settings.mode == "observe" else matching_ids("leases,rules")
    # A mode for a whole family comes first, so that one for a single check overrides it.
    checks = [(matching_ids(name), wanted) for name, wanted in settings.checks.items()]
    for meant, mode in sorted(checks, key=lambda check: (-len(check[0]), check[1] == "observe")):
        allowed = allowed - meant if mode == "observe" or observe else allowed | meant
    return Settings(
        options=Options(),
        # The daemon watches the rules themselves, so it never derives any.
        policy=Policy(grace_s=settings.grace, findings=frozenset(i for i in allowed if i.family is Family.LEASE)),
        leases="leases" in parts,
        rules="rules" in parts,
        repair_rules=FindingId.RULE001 in allowed,
        no_rules="" if _may_change_rules() else _NO_RIGHT,
        interval_s=settings.interval,
        keep_days=settings.keep_days,
        durable=settings.durable and not observe,
        listen=address(settings.listen),
        hosts=settings.hosts,
        textfile=settings.textfile,
    )


def _can_begin(wanted: "Settings") -> None:
    """Stop if the rules are the only part wanted, and they cannot be kept."""
    from janitor.core.model.evidence import Unknown
    from janitor.host.kernel import procfs

    proc = procfs.find_proc(wanted.options.root)
    if isinstance(proc, Unknown):
        raise Stop(f"cannot watch the policy rules: {text(proc.reason)}")
    if wanted.repair_rules and wanted.no_rules:
        raise Stop(wanted.no_rules)


def _log(form: LogFormat, dropped: Counter[str]) -> "Log":
    """Log lines on standard error, with priorities for the journal (sd-daemon(3)). `dropped` counts lost lines."""
    from janitor.report.logline import bounded

    try:
        mine = os.fstat(2)
        priority = os.environ.get("JOURNAL_STREAM") == f"{mine.st_dev}:{mine.st_ino}"
    except OSError:
        priority = False

    def log(event: "LogEvent", /, **fields: object) -> None:
        """Write one line if standard error takes it now: a stalled reader must not delay a rule, or the shutdown."""
        try:
            if select.select([], [2], [], 0)[1]:
                os.write(2, bounded(event, fields, form.value, priority=priority))
                return
        except OSError:
            pass  # nobody reads it, or the disk is full: keep looking after the node
        dropped["lines"] += 1

    return log


def _may_change_rules() -> bool:
    """Whether the effective capabilities of this process include CAP_NET_ADMIN."""
    rows = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    capabilities = next((row.split()[1] for row in rows if row.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _CAP_NET_ADMIN & 1)
