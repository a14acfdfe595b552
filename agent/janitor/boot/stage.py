"""`janitor boot` and `janitor-boot`: before any container runtime has started, free what earlier boots left behind.

No lease that exists at that moment can be alive, because network namespaces do not outlive a boot. So it proves that it
is early, and records the existing leases in /run/janitor: the strongest proof of age for every later pass. Then it
moves what core/leases/boot.py allows into quarantine, with the same writer, lock and journal as `janitor clean`;
`janitor undo` puts it back. If it is late, in doubt, or something is wrong, it changes nothing. It never fails a boot:
exit 0 unless `--strict`.

Standard library only, because little else works at that time.
"""

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from janitor import __version__
from janitor.boot import preconditions as early
from janitor.core.leases.boot import Configured, plan_at_boot
from janitor.core.model.action import DiscardEntry, FreeLease, Plan, Refusal
from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileIdentity, LeaseDirectory, Network, Unknown, known
from janitor.core.model.lease import identity, parse_lease
from janitor.core.model.node_mark import another
from janitor.core.model.outcome import Outcome
from janitor.core.model.reason import because
from janitor.core.model.text import count, listing
from janitor.host.changes import state
from janitor.host.changes.apply import ApplyContext, Witness, apply
from janitor.host.changes.journal import Journal, new_pass_id
from janitor.host.changes.undo import recover
from janitor.host.cni import cache as cni_cache
from janitor.host.cni import config as cni
from janitor.host.cni import directories as cni_directories
from janitor.host.cni import leases, node_mark
from janitor.host.cni import reader as cni_reader
from janitor.host.cni import unparsed as cni_doubts
from janitor.host.cni.locks import Busy, only_janitor
from janitor.host.files import describe_os_error, failed, inside
from janitor.host.kernel import mounts
from janitor.host.node import Node
from janitor.report.words import text, texts

_BATCH = 4096  # nobody waits for the lock at boot, so it may be held for long; 65,000 leases must not need 65,000 syncs
_NOTICE, _WARNING = "<5>", "<4>"  # sd-daemon(3): priorities in the journal


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, and what was left unchanged."""

    recorded: int
    refusals: tuple[Refusal, ...] = ()
    pass_id: str = ""
    outcomes: tuple[Outcome, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether everything planned was done."""
        return all(outcome.event == "done" for outcome in self.outcomes)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.prog}: {message}; it takes --root DIR, --ledger-only and --strict\n")


def main() -> None:
    """The console script: one line on standard error, exit 0."""
    parser = _Parser(
        prog="janitor-boot", description="Free leases of earlier boots before any container runtime starts."
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="the node's root, mounted there")
    parser.add_argument("--ledger-only", action="store_true", help="record which leases exist, and move nothing")
    parser.add_argument("--strict", action="store_true", help="exit 1 if anything was not done")
    parser.add_argument("--version", action="version", version=f"janitor-boot {__version__}")
    options = parser.parse_args()
    sys.exit(run(options.root, ledger_only=options.ledger_only, strict=options.strict))


def run(root: str, *, ledger_only: bool, strict: bool) -> int:
    """Run the boot stage and report in one line. Returns the exit code; never raises."""
    try:
        if not Path(root).is_dir():
            raise early.TooLate(because(Code.ROOT_NOT_A_DIRECTORY, path=root))
        report = boot(os.path.abspath(root), ledger_only=ledger_only)  # noqa: PTH100 (not resolved, as elsewhere)
    except early.TooLate as late:
        _say(_WARNING, f"nothing done: {text(late.reason)}")
        return 1 if strict else 0
    except Exception as error:  # noqa: BLE001 (whatever it is, it must not hold up a boot)
        reason = describe_os_error(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        _say(_WARNING, f"nothing done: {reason}")
        return 1 if strict else 0
    _say(_NOTICE if report.clean else _WARNING, sentence(report))
    return 0 if report.clean or not strict else 1


def boot(root: str, *, ledger_only: bool = False) -> Report:
    """Prove that it is early, read, prove it again, write the ledger, move. TooLate, OSError: nothing was moved."""
    place = early.find_place(root)
    try:
        with only_janitor(place.run, "janitor boot"):
            return _boot(place, ledger_only=ledger_only)
    except Busy as busy:
        raise early.TooLate(busy.reason) from None


def _boot(place: early.Place, *, ledger_only: bool) -> Report:
    seen = state.ledger_boot(place.booting)
    if isinstance(seen, Unknown):
        raise early.TooLate(seen.reason)
    if seen == place.boot_id:
        raise early.TooLate(because(Code.LEDGER_THERE, path=state.LEDGER))
    early.prove(place)
    configuration = cni_reader.read_configuration(place.disk, ())
    networks = cni.read_networks(place.disk, configuration)
    paths = tuple(network.directory for network in known(networks))
    own = mounts.own_mounts()
    directories = leases.lease_directories(place.disk, paths, (), own)
    cache = cni_cache.read_cache(place.disk)
    for part in (directories, cache):
        if isinstance(part, Unknown):
            raise early.TooLate(part.reason)
    # A runtime that started while the leases were being read may have written one of them. A lease that is older than
    # this second proof, and still the same file when it is moved, is dead whatever starts meanwhile.
    early.prove(place)
    there = known(directories)
    # Nothing is known about another node's leases, not even after its mark has been removed.
    recorded = _identities(tuple(d for d in there if not another(d.path.rpartition("/")[0], d.marks, place.node)))
    if place.initramfs and not recorded:
        raise early.TooLate(because(Code.NO_LEASES_YET, path=cni_directories.DATA_DIR))
    if ledger_only:
        state.write_ledger(place.booting, recorded)
        return Report(len(recorded))
    linked = tuple(d for d in there if _is_link(place.root, d.path))
    configured = _configured(place.disk, configuration, networks)
    plan = plan_at_boot(configured, tuple(d for d in there if d not in linked), known(cache), place.node)
    refusals = (*plan.refusals, *(Refusal(d.path, (because(Code.SYMBOLIC_LINK),)) for d in linked))
    if problem := node_mark.leave_marks(place.disk, tuple(d for d in there if d not in linked), place.node):
        refusals += (Refusal("the mark of this node", (problem,)),)
    if not plan.actions:
        state.write_ledger(place.booting, recorded)
        return Report(len(recorded), refusals)
    pass_id, outcomes = _move(place, plan, own, recorded)
    return Report(len(recorded), refusals, pass_id, outcomes)


def _configured(
    node: Node, configuration: cni_reader.Configuration, networks: tuple[Network, ...] | Unknown
) -> Configured:
    """The configuration to judge by. TooLate if libcni's cached configuration cannot be read."""
    absent = not cni_doubts.any_configuration(configuration)
    try:
        remembered = cni_doubts.remembered(node) if absent else ()
    except OSError as error:
        raise early.TooLate(failed(Code.CACHED_CONFIGURATION_UNREADABLE, error)) from None
    return Configured(networks, (*cni_doubts.obscure_files(node, configuration), *remembered), absent)


def _move(
    place: early.Place, plan: Plan, own: mounts.Mounts, recorded: tuple[FileIdentity, ...]
) -> tuple[str, tuple[Outcome, ...]]:
    """Carry out the plan. TooLate, without a ledger, if nothing can be moved: a later run in this boot may then do it.

    The ledger is written after the first intentions are on the disk and before anything is moved. It says that the boot
    stage has run and is never replaced; what fails after it is left to `janitor clean`.
    """
    journal = Journal(place.root)
    try:
        journal.load()
        recover(place.disk, journal)
    except OSError as error:
        raise early.TooLate(failed(Code.JOURNAL_UNUSABLE, error)) from None
    written = False

    def witness() -> Witness | Unknown:
        nonlocal written
        if not written:
            state.write_ledger(place.booting, recorded)
            written = True
        return _witness(place)

    # Without a battery-backed clock the time may be the same at every boot: the boot ID distinguishes the passes.
    pass_id = new_pass_id(f"boot-{place.boot_id[:8]}")
    context = ApplyContext(place.disk, pass_id, journal, own, witness, patience_s=1.0, batch=_BATCH)
    outcomes = tuple(apply(plan.actions, context))
    if not written:
        raise early.TooLate(outcomes[0].detail or because(Code.NOT_ASKED))
    return pass_id, outcomes


def _witness(place: early.Place) -> Witness | Unknown:
    """An empty witness: nothing is alive. Unknown if it is not early any more, so that nothing more is moved."""
    try:
        early.prove(place)
    except early.TooLate as late:
        return Unknown(late.reason)
    return Witness(frozenset(), frozenset())


def _identities(directories: tuple[LeaseDirectory, ...]) -> tuple[FileIdentity, ...]:
    found = [
        identity(f"{directory.path}/{file.name}", file)
        for directory in directories
        for file in known(directory.entries)
        if file.kind == "file" and parse_lease(file).shape != "bookkeeping"
    ]
    return tuple(file for file in found if file is not None)


def _is_link(root: str, path: str) -> bool:
    parent, _, name = path.rpartition("/")
    return Path(f"{inside(root, parent or '/')}/{name}").is_symlink()


def sentence(report: Report) -> str:
    """What was done, in one line."""
    moved = [o.action for o in report.outcomes if o.event == "done"]
    freed = Counter(action.network for action in moved if isinstance(action, FreeLease))
    discarded = sum(isinstance(action, DiscardEntry) for action in moved)
    parts = [
        f"recorded {count(report.recorded, 'lease')} that existed before any container runtime of this boot started"
    ]
    if freed:
        parts.append("freed " + listing([f"{number} of {network}" for network, number in sorted(freed.items())]))
    if discarded:
        parts.append(f"discarded {count(discarded, 'blank cache entry', 'blank cache entries')}")
    if moved:
        parts.append(f"'janitor undo {report.pass_id}' puts it back")
    undone = [o for o in report.outcomes if o.event != "done"]
    if undone:
        first = undone[0]
        reason = text(first.detail) if first.detail is not None else first.event
        parts.append(f"{len(undone)} could not be moved ({first.action.path}: {reason})")
    parts += [f"{refusal.subject}: {'; '.join(texts(refusal.reasons))}" for refusal in report.refusals[:4]]
    return "; ".join(parts)


def _say(priority: str, text: str) -> None:
    """Write to standard error, if there is one; a failure is ignored because there is nowhere else to report it."""
    try:
        if sys.stderr is not None:
            there = os.fstat(2)
            # systemd.exec(5): compare device and inode, because services pass the variable on to others.
            journal = os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"
            os.write(2, os.fsencode(f"{priority if journal else ''}janitor-boot: {text}\n"))
    except OSError:
        pass
