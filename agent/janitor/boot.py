"""`janitor boot` and `janitor-boot`: before any container runtime has started, free what earlier boots left behind.

No lease that exists at that moment can be alive: network namespaces do not outlive a boot. So it proves that it is
early, writes down in /run/janitor which leases there are (the strongest proof of age for every later pass), and moves
what core/boot.py allows into quarantine, by the same writer, lock and journal as `janitor clean`; `janitor undo` puts
it back. When it is late, in doubt, or something is wrong, it changes nothing. It never fails a boot: exit 0 unless
`--strict`.

Standard library only, for the moment when little else works yet.
"""

import argparse
import os
import socket
import sys
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

from janitor import __version__
from janitor.core.action import Plan, Refusal
from janitor.core.age import RUNTIMES, identity
from janitor.core.boot import Configured, plan_at_boot
from janitor.core.evidence import FileIdentity, LeaseDirectory, Unknown, known
from janitor.core.lease import parse_lease
from janitor.core.outcome import Outcome
from janitor.core.prose import count, listing
from janitor.host import cni, cni_cache, leases, mounts, netns, procfs, sockets, state
from janitor.host.apply import Hands, Witness, apply
from janitor.host.files import inside, said
from janitor.host.journal import Journal, new_pass_id
from janitor.host.locks import Busy, only_janitor
from janitor.host.undo import recover

_PROCESSES = RUNTIMES | {"kubelet", "conmon", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s"}
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h
_BATCH = 4096  # a lock that nobody waits for may be held for long; 65,000 leases must not take 65,000 syncs
_NOTICE, _WARNING = "<5>", "<4>"  # sd-daemon(3): the journal takes these as priorities
_LATER = "on a running node use 'janitor clean'"
_INITRAMFS = "etc/initrd-release"  # os-release(5): what an initramfs has instead of os-release


class Late(Exception):  # noqa: N818 (being late is normal)
    """It is not provably early, so nothing may be written."""


@dataclass(frozen=True, slots=True)
class Place:
    """The node that is starting up: its root, the root under which its /run is now, and its processes."""

    root: str
    run: str
    proc: procfs.Proc
    boot_id: str
    initramfs: bool  # the root is still to be switched to


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, and what was left alone."""

    recorded: int
    refusals: tuple[Refusal, ...] = ()
    pass_id: str = ""
    outcomes: tuple[Outcome, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether all that should have been done was done."""
        return all(outcome.event == "done" for outcome in self.outcomes)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.prog}: {message}; it takes --root DIR, --ledger-only and --strict\n")


def main() -> None:
    """The console script: one line on standard error, exit 0."""
    parser = _Parser(prog="janitor-boot", description=__doc__.split("\n")[0].partition(": ")[2])
    parser.add_argument("--root", default="/", metavar="DIR", help="the node's root, mounted there")
    parser.add_argument("--ledger-only", action="store_true", help="write down what there is, and move nothing")
    parser.add_argument("--strict", action="store_true", help="exit 1 where not all was done")
    parser.add_argument("--version", action="version", version=f"janitor-boot {__version__}")
    options = parser.parse_args()
    sys.exit(run(options.root, ledger_only=options.ledger_only, strict=options.strict))


def run(root: str, *, ledger_only: bool, strict: bool) -> int:
    """Do it and say in one line what was done; the exit code. Never raises."""
    try:
        if not Path(root).is_dir():
            raise Late(f"--root {root} is not a directory")
        report = boot(os.path.abspath(root), ledger_only=ledger_only)  # noqa: PTH100 (not resolved, as elsewhere)
    except Late as late:
        _say(_WARNING, f"nothing done: {late}")
        return 1 if strict else 0
    except Exception as error:  # noqa: BLE001 (whatever it is, it must not hold up a boot)
        reason = said(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        _say(_WARNING, f"nothing done: {reason}")
        return 1 if strict else 0
    _say(_NOTICE if report.clean else _WARNING, sentence(report))
    return 0 if report.clean or not strict else 1


def boot(root: str, *, ledger_only: bool = False) -> Report:
    """Prove that it is early, read, prove it again, write the ledger, move. Late or OSError: nothing was moved."""
    place = _place(root)
    try:
        with only_janitor(place.run, "janitor boot"):
            return _boot(place, ledger_only=ledger_only)
    except Busy as busy:
        raise Late(str(busy)) from None


def _boot(place: Place, *, ledger_only: bool) -> Report:
    seen = state.ledger_boot(place.run)
    if isinstance(seen, Unknown):
        raise Late(seen.reason)
    if seen == place.boot_id:
        raise Late(f"{state.LEDGER} is of this boot: it has been done already; {_LATER}")
    _prove_early(place)
    networks = cni.read_networks(place.root, ())
    paths = tuple(network.directory for network in known(networks))
    own = mounts.own_mounts()
    directories = leases.lease_directories(place.root, paths, (), own)
    cache = cni_cache.read_cache(place.root)
    for part in (directories, cache):
        if isinstance(part, Unknown):
            raise Late(part.reason)
    # A runtime that started while the leases were being read may have made one of them. What is older than this proof,
    # and is still the same file when its turn comes, is dead whatever starts meanwhile.
    _prove_early(place)
    there = known(directories)
    recorded = _identities(there)
    if place.initramfs and not recorded:
        raise Late(f"there are no leases in {leases.DEFAULT_DATA_DIR}; if it is mounted later, later is the time")
    if ledger_only:
        state.write_ledger(place.run, place.boot_id, recorded)
        return Report(len(recorded))
    linked = tuple(d for d in there if _is_link(place.root, d.path))
    configured = Configured(networks, cni.named_directories(place.root), cni.obscure_files(place.root))
    plan = plan_at_boot(configured, tuple(d for d in there if d not in linked), known(cache))
    refusals = (*plan.refusals, *(Refusal(d.path, "left: it is a symbolic link") for d in linked))
    if not plan.actions:
        state.write_ledger(place.run, place.boot_id, recorded)
        return Report(len(recorded), refusals)
    pass_id, outcomes = _move(place, plan, own, recorded)
    return Report(len(recorded), refusals, pass_id, outcomes)


def _move(
    place: Place, plan: Plan, own: mounts.Mounts, recorded: tuple[FileIdentity, ...]
) -> tuple[str, tuple[Outcome, ...]]:
    """Carry the plan out. Late, and no ledger, where nothing can be moved: then a later run in this boot may do it.

    The ledger is written once the disk has taken the first intentions, before anything is moved: one that says that
    the boot stage has run is never replaced, and what fails after it is for `janitor clean`.
    """
    journal = Journal(place.root)
    try:
        journal.load()
        recover(place.root, journal)
    except OSError as error:
        raise Late(f"the journal cannot be used: {said(error)}") from None
    written = False

    def witness() -> Witness | Unknown:
        nonlocal written
        if not written:
            state.write_ledger(place.run, place.boot_id, recorded)
            written = True
        return _witness(place)

    # Without a battery the clock may say the same at every boot: the boot's own ID tells the passes apart.
    pass_id = new_pass_id(f"boot-{place.boot_id[:8]}")
    hands = Hands(place.root, pass_id, place.boot_id, journal, own, witness, patience_s=1.0, batch=_BATCH)
    outcomes = tuple(apply(plan.actions, hands))
    if not written:
        raise Late(outcomes[0].detail)
    return pass_id, outcomes


def _witness(place: Place) -> Witness | Unknown:
    """Nothing is alive; or it is not early any more, and then nothing more is moved."""
    try:
        _prove_early(place)
    except Late as late:
        return Unknown(str(late))
    return Witness(frozenset(), frozenset())


def _place(root: str) -> Place:
    """Which node this is about. Late where its processes cannot be seen."""
    if os.path.lexists(f"{root}/{_INITRAMFS}"):
        raise Late(f"{root} is an initramfs; name the node's own root with --root")
    proc = procfs.find_proc(root)
    run, initramfs = root, False
    if isinstance(proc, Unknown):
        # Before switch_root(8) this kernel runs nothing of the node on the disk, and the /proc and /run it is going to
        # have are those that are here, seen from beside its root or from a chroot(2) in it.
        if not os.path.lexists(f"/proc/1/root/{_INITRAMFS}"):
            raise Late(proc.reason)
        if not Path(inside(root, leases.DEFAULT_DATA_DIR)).is_dir():
            raise Late(f"{leases.DEFAULT_DATA_DIR} is not there yet; if it is mounted later, later is the time")
        proc, run, initramfs = procfs.Proc("/proc"), "/", True
    boot_id = procfs.boot_id(proc)
    if isinstance(boot_id, Unknown):
        raise Late(boot_id.reason)
    _prove_the_nodes_own(proc, run)
    return Place(root, run, proc, boot_id, initramfs)


def _prove_the_nodes_own(proc: procfs.Proc, run: str) -> None:
    """Late where the processes may be a container's own: those of the node, its runtime's too, would be out of sight.

    The first PID namespace is the kernel's. A node may be a container itself (kind, LXC, nspawn): then its first
    process is systemd, and has booted it (sd_booted(3)).
    """
    try:
        namespace = str(Path(f"{proc.path}/1/ns/pid").readlink())
    except OSError:
        namespace = str(Path("/proc/self/ns/pid").readlink()) if proc.ours else ""
    booted = proc.name(1) == "systemd" and Path(inside(run, "/run/systemd/system")).is_dir()
    booted = booted or os.path.lexists(f"{proc.path}/1/root/{_INITRAMFS}")
    if namespace != _FIRST_PID_NAMESPACE and not booted:
        raise Late(
            f"these are the processes of a container (its first one is {proc.name(1)}), and those of the node are out "
            "of sight; it takes the host's PID namespace"
        )


def _prove_early(place: Place) -> None:
    """No runtime or shim, no socket that answers, no network namespace but the node's own in use. Late otherwise."""
    for pid in place.proc.pids():
        name = place.proc.name(pid)
        if name in _PROCESSES or name.startswith("containerd-shim"):
            raise Late(f"{name} (process {pid}) is running already; {_LATER}")
    units = sockets.only_units_listen(place.proc)
    for path in (*sockets.CRI, sockets.DOCKER):
        if path in units:
            continue
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(inside(place.run, path))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except OSError as error:
                raise Late(f"{path}: {error}") from None
            raise Late(f"a container runtime answers at {path} already; {_LATER}")
    pinned = netns.pinned(place.proc)
    if pinned:
        raise Late(f"the network namespace {pinned[0]} exists already; {_LATER}")
    namespaces = netns.network_namespaces(place.proc)
    if isinstance(namespaces, Unknown):
        raise Late(namespaces.reason)
    own = Path(f"{place.proc.path}/1/ns/net").stat().st_ino
    for namespace in namespaces:
        # A service with PrivateNetwork= has a namespace too, with nothing in it but loopback.
        if isinstance(namespace.addresses, Unknown):
            raise Late(namespace.addresses.reason)
        up = [a for a in namespace.addresses if not ip_address(a).is_loopback]
        if namespace.inode != own and up:
            raise Late(f"{up[0]} is up in the network namespace of {namespace.seen_at} already; {_LATER}")


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
    done = Counter(o.action.kind for o in report.outcomes if o.event == "done")
    freed = Counter(o.action.network for o in report.outcomes if o.event == "done" and o.action.kind == "free")
    parts = [f"recorded {count(report.recorded, 'lease')} that were there before any container runtime of this boot"]
    if freed:
        parts.append("freed " + listing([f"{number} of {network}" for network, number in sorted(freed.items())]))
    if done["discard"]:
        parts.append(f"discarded {count(done['discard'], 'blank cache entry', 'blank cache entries')}")
    if done:
        parts.append(f"'janitor undo {report.pass_id}' puts it back")
    failed = [o for o in report.outcomes if o.event != "done"]
    if failed:
        reason = failed[0].detail
        parts.append(f"{len(failed)} could not be moved ({failed[0].action.path}: {reason})")
    parts += [f"{refusal.subject}: {refusal.reason}" for refusal in report.refusals[:4]]
    return "; ".join(parts)


def _say(priority: str, text: str) -> None:
    """On standard error, if there is one and it takes it: nobody else can be told."""
    line = f"{priority if 'JOURNAL_STREAM' in os.environ else ''}janitor-boot: {text}\n"
    try:
        if sys.stderr is not None:
            os.write(2, os.fsencode(line))
    except OSError:
        pass


if __name__ == "__main__":
    main()
