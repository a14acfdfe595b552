"""run: the daemon, by hand or from its unit."""

import os
import select
from pathlib import Path
from typing import Annotated

import typer

from janitor.commands.common import EXIT_USAGE, ConfigFile, Root, Stop, options

_CAP_NET_ADMIN = 12  # capabilities(7)


def run(
    only: Annotated[str, typer.Option("--only", metavar="PARTS", help="Which parts: rules.")] = "rules",
    observe: Annotated[bool, typer.Option("--observe", help="Watch and report; change nothing.")] = False,
    root: Root = "/",
    config: ConfigFile = None,
) -> None:
    """Watch the policy rules, and put back what systemd-networkd deletes. Runs until it is told to end.

    Exit 0: told to end. 2: it could not begin. 64: wrong usage. 70: a bug.
    """
    from janitor import daemon
    from janitor.core.evidence import Unknown
    from janitor.host import procfs
    from janitor.host.files import said
    from janitor.restoring import RuleKeeper

    if only != "rules":
        raise Stop(f"--only {only}: there is one part so far, rules", EXIT_USAGE)
    where = options(root, None, None, None, config)
    proc = procfs.find_proc(where.root)
    if isinstance(proc, Unknown):
        raise Stop(f"the rules cannot be watched: {proc.reason}")
    if not observe and not _may_change_rules():
        raise Stop("putting rules back needs CAP_NET_ADMIN: run as root, give the capability, or take --observe")

    keeper = RuleKeeper(where.root, proc, where.profiles, _say, observe_only=observe)
    try:
        daemon.run(keeper, lambda: _say("watching rules", learned=len(keeper.mirror.kept), pid=os.getpid()))
    except OSError as error:
        raise Stop(f"watching the policy rules: {said(error)}") from None


def _say(event: str, **fields: object) -> None:
    """One line to standard error, if that takes it right now: nobody who does not read may hold up a rule."""
    from janitor.report.logline import line

    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{line(event, fields)}\n".encode())
    except OSError:
        pass


def _may_change_rules() -> bool:
    """Whether the effective capabilities of this process hold CAP_NET_ADMIN."""
    rows = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    capabilities = next((row.split()[1] for row in rows if row.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _CAP_NET_ADMIN & 1)
