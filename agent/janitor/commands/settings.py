"""`clean --fix`: changes one setting; shown first, confirmed, in the journal, and undoable."""

import sys
from typing import TYPE_CHECKING

import typer

from janitor.commands.common import CANNOT_ASK, EXIT_LEFT, EXIT_USAGE, Stop, alone, open_journal, terminal, write
from janitor.report.words import hint, text

if TYPE_CHECKING:
    from janitor.core.model.action import WriteSetting
    from janitor.passes.scan import Options


def fix_setting(what: str, where: "Options", *, dry_run: bool, yes: bool) -> None:
    """Make systemd-networkd leave foreign rules alone from its next start on. Stop for any other setting."""
    if what != "networkd":
        raise Stop(f"--fix {what}: unknown setting; the only one is networkd", EXIT_USAGE)
    from janitor.core.model.action import Plan
    from janitor.passes.clean import change
    from janitor.report.changes import outcome_line, plan_text, summary

    action = _drop_in(where)
    if action is None:
        write(b"nothing to do: the setting is already in place\n")
        return
    write(plan_text(Plan((action,), ()), terminal()[0]).encode("utf-8", "backslashreplace"))
    write("".join(f"    {line}\n" for line in action.content.splitlines()).encode("utf-8", "backslashreplace"))
    if dry_run:
        raise typer.Exit(EXIT_LEFT)
    if not (yes or (sys.stdin is not None and sys.stdin.isatty())):
        raise Stop(f"{CANNOT_ASK}: use --yes to make the change", EXIT_USAGE)
    if not yes and not typer.confirm("Make this change?"):
        raise Stop("nothing was changed", EXIT_LEFT)
    with alone(where.root, "janitor clean --fix networkd"):
        pass_id, outcome = change(action, where, open_journal(where.root))
    write(f"{outcome_line(outcome)}\n{summary(pass_id, [outcome], Plan((), ()))}\n".encode("utf-8", "backslashreplace"))
    if outcome.event != "done":
        raise typer.Exit(EXIT_LEFT)
    write(b"It takes effect when systemd-networkd restarts; this restart deletes no rules:\n")
    write(b"  systemctl restart systemd-networkd\n")


def _drop_in(where: "Options") -> "WriteSetting | None":
    """The file to write; None if it exists already. Stop if it would be useless."""
    from janitor.core.model.action import WriteSetting
    from janitor.core.model.codes import Code
    from janitor.core.model.evidence import Unknown
    from janitor.core.model.reason import because
    from janitor.core.rules.networkd import DROP_IN, drop_in_text, has_opt_out, overruled_by, wipes
    from janitor.host.node import find_node
    from janitor.host.systemd import networkd

    node = find_node(where.root)
    if node.complete().root != where.root:
        # The file would go into the container, where nobody reads it, unless that directory is mounted too.
        raise Stop(f"{where.root} has only parts of the node: run this on the node, or where the node's / is mounted")
    found = networkd.read_networkd(node)
    if isinstance(found, Unknown):
        raise Stop("; ".join(filter(None, (f"looking at systemd-networkd: {text(found.reason)}", hint(found.reason)))))
    if not found:
        raise Stop("nothing to do: this node has no systemd-networkd", EXIT_LEFT)
    (running,) = found
    if not wipes(running.version):
        raise Stop(f"systemd-networkd {running.version} never deletes foreign rules", EXIT_LEFT)
    if has_opt_out(running.version) is False:
        raise Stop(f"systemd-networkd {running.version} has no such setting: pin the rules (see RULE003)", EXIT_LEFT)
    overruled = overruled_by(running)
    if overruled:
        raise Stop(f"{overruled} overrides {DROP_IN}: change the setting there", EXIT_LEFT)
    if networkd.drop_in(node) == drop_in_text(running.version):
        return None
    directory, _, name = DROP_IN.rpartition("/")
    proof = (because(Code.NETWORKD_DELETES_RULES, version=running.version),)
    return WriteSetting(directory, name, drop_in_text(running.version), proof)
