"""`janitor clean` where something is in its way: one clear sentence, the right exit code, and no file lost."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from janitor.core.leases.confirmation import agreed
from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.action import Plan
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Clock, Evidence
from janitor.core.model.reason import because
from janitor.report.evidence_json import decode
from tests.lab import clock
from tests.lab.node import Node, NodeFactory

pytestmark = pytest.mark.system

ENDPOINT = ("--cri-endpoint", "unix:///run/containerd/containerd.sock")
CLEAN = ("clean", "--yes", "--no-wait", *ENDPOINT)
CLOCK = (sys.executable, str(Path(clock.__file__)), "1000")
QUARANTINE = ".janitor-quarantine"
DIRECTORY = "/var/lib/cni/networks/k8s-pod-network"

Done = subprocess.CompletedProcess[str]


def leaking(node: Node, number: int = 3) -> dict[str, int]:
    """Leases of nobody beside a pod that lives; the first look at them is long ago. Address -> inode."""
    node.kubelet.run()
    for last in range(number):
        lease(node, last).write_bytes(f"{last:064x}\r\neth0".encode())
    assert node.janitor_later(100, *CLEAN).returncode == 1
    return there(node)


def lease(node: Node, number: int) -> Path:
    return node.leases() / f"10.52.0.{100 + number}"


def there(node: Node) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in node.leases().iterdir()}


def leaked(files: dict[str, int]) -> set[int]:
    return {inode for name, inode in files.items() if name >= "10.52.0.1" and len(name) == len("10.52.0.100")}


def away(node: Node, place: str = "cni") -> set[int]:
    """The inodes of what is in quarantine."""
    found = (node.disk / place).rglob("*")
    return {path.stat().st_ino for path in found if path.is_file() and "quarantine" in str(path)}


def clean(node: Node, *words: str) -> Done:
    done = node.janitor_later(1000, *CLEAN, *words)
    assert "Traceback" not in done.stderr
    assert "a bug in janitor" not in done.stderr
    return done


def states(node: Node) -> list[str]:
    """What the journal says at last of each action, in order."""
    journal = node.root / "var/lib/janitor/journal"
    last: dict[tuple[str, int], str] = {}
    for line in journal.read_text().splitlines():
        record = json.loads(line)
        last[record["pass"], record["n"]] = record["event"]
    return list(last.values())


def shell(node: Node, command: str) -> None:
    node.run(["sh", "-c", command], check=True)


def mount(node: Node, size: str, at: str = "/var/lib/janitor") -> None:
    shell(node, f"mount -t tmpfs -o size={size} small {at}")


@contextmanager
def lock_held(node: Node) -> Iterator[Callable[[], None]]:
    """host-local's lock, as host-local holds it; yields what lets go of it."""
    fd = os.open(node.leases() / "lock", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@contextmanager
def at_the_lock(node: Node) -> Iterator[subprocess.Popen[str]]:
    """A clean that has written down what it is about to do and waits for the lock, which somebody holds."""
    pipe = subprocess.PIPE
    with node.popen([*CLOCK, *CLEAN], stdout=pipe, stderr=pipe) as process:
        try:
            deadline = time.monotonic() + 20
            while not has_open(process.pid, node.leases() / "lock"):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def has_open(pid: int, file: Path) -> bool:
    """Whether the process goes on having it open: janitor reads each entry of the directory before, for a moment."""
    for _ in range(3):
        if not any(_is(descriptor, file) for descriptor in Path(f"/proc/{pid}/fd").iterdir()):
            return False
        time.sleep(0.05)
    return True


def _is(descriptor: Path, file: Path) -> bool:
    try:
        return descriptor.samefile(file)
    except FileNotFoundError:
        return False  # closed between the listing and the look, or no file at all


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess([], process.returncode, out, err)


# Disks.


@pytest.mark.parametrize("where", ["/var/lib/cni", "/var/lib/cni/networks"])
def test_leases_on_a_file_system_that_is_read_only(node: NodeFactory, where: str) -> None:
    machine = node()
    before = leaking(machine)
    shell(machine, f"mount --bind {where} {where} && mount -o remount,bind,ro {where}")
    done = clean(machine)
    assert done.returncode == 1, done
    assert "Read-only file system" in done.stdout, done
    assert there(machine) == before
    assert (away(machine), "3 failed" in done.stdout) == (set(), True)


def test_no_room_for_the_journal(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    mount(machine, "4k")
    shell(machine, "head -c 4096 /dev/zero >/var/lib/janitor/fill")
    done = clean(machine)
    assert done.returncode == 1, done
    assert "the journal cannot be written" in done.stdout
    assert "No space left on device), so nothing more is changed" in done.stdout
    assert (there(machine), away(machine)) == (before, set())
    shell(machine, "rm /var/lib/janitor/fill; umount /var/lib/janitor")
    assert clean(machine).returncode == 0
    assert away(machine) == leaked(before)


@pytest.mark.parametrize("pages", [3, 4, 5, 6, 7])
def test_no_more_room_for_the_journal_half_way(node: NodeFactory, pages: int) -> None:
    """Whatever fits in: what was moved is known, the rest is in its place, and with room again the next run ends it."""
    machine = node()
    before = leaking(machine, 40)
    mount(machine, f"{4 * pages}k")
    done = clean(machine)
    assert done.returncode == 1, done
    assert "the journal c" in done.stdout
    assert "No space left on device" in done.stdout
    moved = leaked(before) - leaked(there(machine))
    assert away(machine) == moved
    assert len(moved) in (0, 16, 32)
    # What was moved while its outcome could not be written down is said as well.
    assert done.stdout.count("\nfreed 10.52.0.") + done.stdout.count(": done, but the journal") == len(moved)
    shell(machine, "mount -o remount,size=1m /var/lib/janitor")
    again = clean(machine)
    assert again.returncode == 0, again
    assert away(machine) == leaked(before)
    assert set(states(machine)) <= {"done", "skipped", "failed"}
    assert states(machine).count("done") == 40


def test_quarantine_on_another_file_system(node: NodeFactory) -> None:
    """rename(2) cannot get there: the files go beside the data directory."""
    machine = node()
    before = leaking(machine)
    mount(machine, "1m")
    done = clean(machine)
    assert (done.returncode, done.stderr) == (0, "")
    assert away(machine) == leaked(before)
    assert {path.name for path in machine.cni_dir.iterdir()} == {"networks", "results", QUARANTINE}
    assert not (machine.root / "var/lib/janitor/quarantine").exists()
    assert machine.janitor("undo").returncode == 0
    assert there(machine) == before


def test_leases_with_a_mount_of_their_own(node: NodeFactory) -> None:
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    shell(machine, "mkdir /var/lib/cni/networks && mount --bind /var/lib/cni/networks /var/lib/cni/networks")
    machine.start_runtime()
    before = leaking(machine)
    done = clean(machine)
    assert (done.returncode, done.stderr) == (0, "")
    assert away(machine) == leaked(before)
    assert (machine.leases().parent / QUARANTINE).is_dir()
    # It is no network's directory to anybody: neither to janitor nor to host-local, which reads its own only.
    assert clean(machine).stdout == "nothing to do\n"
    machine.kubelet.run()
    assert machine.janitor("undo").returncode == 0
    assert before.items() <= there(machine).items()


def test_a_network_with_a_mount_of_its_own(node: NodeFactory) -> None:
    """There is nowhere to move its leases to: a subdirectory would be walked by host-local."""
    machine = node()
    before = leaking(machine)
    shell(machine, f"mount --bind {DIRECTORY} {DIRECTORY}")
    done = clean(machine)
    assert done.returncode == 1, done
    assert done.stdout.count("Invalid cross-device link") == 3
    assert (there(machine), away(machine), states(machine)) == (before, set(), ["failed"] * 3)


def test_everything_on_one_mount(node: NodeFactory) -> None:
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    shell(machine, "umount /var/lib/cni /var/lib/janitor")
    machine.start_runtime()
    machine.kubelet.run()
    here = machine.root / DIRECTORY[1:]
    (here / "10.52.0.100").write_bytes(b"")
    assert machine.janitor_later(100, *CLEAN).returncode == 1
    assert clean(machine).returncode == 0
    (kept,) = (machine.root / "var/lib/janitor/quarantine").glob("*/*")
    assert (kept.name, (here / "10.52.0.100").exists()) == ("00000-10.52.0.100", False)
    assert (kept.parent.stat().st_mode & 0o777, kept.parent.parent.stat().st_mode & 0o777) == (0o700, 0o700)


# The journal.


def test_a_journal_that_is_read_only(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    shell(machine, "mount -o remount,bind,ro /var/lib/janitor")
    done = clean(machine)
    assert done.returncode in (1, 2), done
    assert "/var/lib/janitor/journal: Read-only file system), so nothing more is changed" in done.stdout + done.stderr
    assert (there(machine), away(machine)) == (before, set())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mkdir", "the journal cannot be used (/var/lib/janitor/journal: not a regular file); nothing was changed"),
        ("mkfifo", "the journal cannot be used (/var/lib/janitor/journal: not a regular file); nothing was changed"),
        ("ln -s /etc/passwd", "Too many levels of symbolic links), so nothing more is changed"),
    ],
    ids=["mkdir", "mkfifo", "ln -s /etc/passwd"],
)
def test_a_journal_that_is_no_file(node: NodeFactory, kind: str, said: str) -> None:
    machine = node()
    before = leaking(machine)
    shell(machine, f"{kind} /var/lib/janitor/journal")
    passwd = (machine.root / "etc/passwd").read_bytes()
    done = clean(machine)
    assert done.returncode in (1, 2), done
    assert said in done.stdout + done.stderr, done
    assert (there(machine), away(machine)) == (before, set())
    assert (machine.root / "etc/passwd").read_bytes() == passwd


@pytest.mark.parametrize(
    "torn",
    [
        lambda whole: whole[:-30],
        lambda whole: whole[: whole.index(b'"done"') + 3],
        lambda whole: whole + b"\0" * 100,
        lambda whole: whole + b'{"event":"inte',
        lambda whole: b"\xff\xfe\n[]\n3\n" + whole,
    ],
    ids=["last outcome", "all outcomes", "nul", "half an intention", "noise"],
)
def test_a_journal_with_lines_that_are_torn(node: NodeFactory, torn: Callable[[bytes], bytes]) -> None:
    """A power cut in the middle of a write: what was written down before still counts, and so does what comes after."""
    machine = node()
    before = leaking(machine)
    assert clean(machine).returncode == 0
    journal = machine.disk / "janitor/journal"
    journal.write_bytes(torn(journal.read_bytes()))
    done = clean(machine)
    assert (done.returncode, done.stdout) == (0, "nothing to do\n"), done
    undone = machine.janitor("undo")
    assert undone.returncode == 0, undone
    assert there(machine) == before


# Locks and races.


def test_a_lock_that_somebody_holds_for_ever(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    with lock_held(machine):
        began = time.monotonic()
        done = clean(machine)
    assert 5 <= time.monotonic() - began < 9
    assert done.returncode == 1, done
    assert done.stdout.count(f"{DIRECTORY}/lock has been held by somebody else for more than 5 s") == 3
    assert (there(machine), away(machine)) == (before, set())
    assert not (machine.root / "var/lib/janitor/journal").exists()  # what cannot be begun is no intention
    assert clean(machine).returncode == 0
    assert away(machine) == leaked(before)


@pytest.mark.parametrize("again", [True, False], ids=["made again", "removed"])
def test_the_directory_is_removed_while_the_lock_is_waited_for(node: NodeFactory, again: bool) -> None:
    """`rm -rf` by a person: a lease that a new host-local writes there meanwhile is not what was judged."""
    machine = node()
    leaking(machine)
    with lock_held(machine) as release, at_the_lock(machine) as process:
        for path in machine.leases().iterdir():
            path.unlink()
        machine.leases().rmdir()
        if again:
            machine.leases().mkdir()
            (machine.leases() / "lock").touch()
            lease(machine, 0).write_bytes(b"new")
        release()
        done = ended(process)
    assert done.returncode == 1, done
    assert done.stdout.count(f"{DIRECTORY} was removed or replaced while janitor waited for its lock") == 3
    assert away(machine) == set()
    assert not again or lease(machine, 0).read_bytes() == b"new"


@pytest.mark.parametrize("content", [f"{0:064x}\r\neth0", f"{7:064x}\r\neth0", ""], ids=["equal", "other", "empty"])
def test_a_lease_that_is_replaced_after_it_was_judged(node: NodeFactory, content: str) -> None:
    machine = node()
    before = leaking(machine)
    with lock_held(machine) as release, at_the_lock(machine) as process:
        fresh = machine.leases().parent / "fresh"
        fresh.write_bytes(content.encode())
        fresh.rename(lease(machine, 0))
        inode = lease(machine, 0).stat().st_ino
        lease(machine, 1).unlink()
        release()
        done = ended(process)
    assert done.returncode == 1, done
    assert "skipped 10.52.0.100 of k8s-pod-network: it was replaced or changed after it was checked" in (done.stdout)
    assert "skipped 10.52.0.101 of k8s-pod-network: it is gone: its owner released it" in done.stdout
    assert "freed 10.52.0.102 of k8s-pod-network" in done.stdout
    assert (lease(machine, 0).stat().st_ino, lease(machine, 0).read_bytes()) == (inode, content.encode())
    assert away(machine) == {before["10.52.0.102"]}
    assert states(machine) == ["skipped", "skipped", "done"]


def test_an_address_that_comes_up_between_the_two_looks(node: NodeFactory) -> None:
    """The lease is the same file, but the kernel knows its address by now."""
    machine = node()
    before = leaking(machine)
    with asked(machine) as (process, terminal):
        shell(machine, "ip address add 10.52.0.101/32 dev lo")
        os.write(terminal, b"y\n")
        said = heard(terminal, "left; ")
        assert process.wait(30) == 1, said
    assert "2 freed, 1 left" in said
    assert away(machine) == {before["10.52.0.100"], before["10.52.0.102"]}


def test_two_at_once(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    with lock_held(machine) as release, at_the_lock(machine) as first:
        first.send_signal(signal.SIGSTOP)  # it waits for the lock no longer than 5 s, and the others may take longer
        pid = int((machine.root / "run/janitor/lock").read_text().split("process ")[1].split(")")[0])
        for words in (CLEAN, ("undo",)):
            second = machine.janitor(*words)
            assert (second.returncode, second.stdout) == (2, "")
            assert second.stderr == (
                f"janitor: 'janitor clean' (process {pid}) is already at work on this node; "
                "wait until it has finished\n"
            )
        # To look is allowed.
        assert machine.janitor("clean", "--dry-run", *ENDPOINT).returncode == 1
        release()
        first.send_signal(signal.SIGCONT)
        assert ended(first).returncode == 0
    assert away(machine) == leaked(before)


def test_no_lock_file(node: NodeFactory) -> None:
    machine = node()
    leaking(machine)
    (machine.leases() / "lock").unlink()
    before = there(machine)
    done = clean(machine)
    assert done.returncode == 1, done
    assert f"{DIRECTORY} has no lock file: host-local has not run there, or the file was removed" in done.stdout
    assert (there(machine), away(machine)) == (before, set())


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle(node: NodeFactory, number: signal.Signals) -> None:
    """The batch at hand is done to its end, the rest is left, and the journal says so."""
    machine = node()
    before = leaking(machine, 100)
    with lock_held(machine) as release, at_the_lock(machine) as process:
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        release()
        done = ended(process)
    assert (done.returncode, done.stderr) == (1, ""), done
    assert done.stdout.count("\nfreed ") == 16
    assert done.stdout.count(": janitor was asked to stop\n") == 84
    assert len(away(machine)) == 16
    assert away(machine) | leaked(there(machine)) == leaked(before)
    assert states(machine) == ["done"] * 16
    assert machine.janitor("undo").returncode == 0
    assert there(machine) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_at_any_time(node: NodeFactory, number: signal.Signals) -> None:
    """Every so many milliseconds of a pass."""
    machine = node()
    before = leaking(machine, 100)
    for delay in (0.1, 0.2, 0.25, 0.3, 0.35):
        with machine.popen([*CLOCK, *CLEAN], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(delay)
            process.send_signal(number)
            done = ended(process)
        assert done.returncode in (0, 1, 130, -number), (delay, done)
        assert away(machine) | leaked(there(machine)) == leaked(before)
        assert not away(machine) & leaked(there(machine))
    assert clean(machine).returncode == 0
    assert away(machine) == leaked(before)
    assert set(states(machine)) <= {"done", "skipped"}


# A runtime, and clocks.


@contextmanager
def asked(node: Node) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A clean at a terminal that has looked, shown its plan, and asked."""
    ours, its = pty.openpty()
    try:
        words = [word for word in CLEAN if word != "--yes"]
        with node.popen([*CLOCK, *words], stdin=its, stdout=its, stderr=its) as process:
            try:
                assert "Make these changes? [y/N]: " in heard(ours, "[y/N]: ")
                yield process, ours
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(its)


def heard(terminal: int, end: str) -> str:
    text = ""
    while end not in text:
        assert select.select([terminal], [], [], 30)[0], text
        text += os.read(terminal, 4096).decode()
    return text


def test_the_runtime_is_restarted_between_the_two_looks(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    with asked(machine) as (process, terminal):
        machine.restart_runtime()
        os.write(terminal, b"y\n")
        said = heard(terminal, "left\r\n")
        assert process.wait(30) == 1, said
    assert "nothing done, 3 left" in said
    assert (there(machine), away(machine)) == (before, set())


def test_no_is_an_answer(node: NodeFactory) -> None:
    machine = node()
    before = leaking(machine)
    with asked(machine) as (process, terminal):
        os.write(terminal, b"n\n")
        said = heard(terminal, "changed\r\n")
        assert process.wait(30) == 1
    assert "janitor: nothing was changed" in said
    assert (there(machine), away(machine)) == (before, set())


def evidence(node: Node) -> Evidence:
    return decode(node.janitor("collect", *ENDPOINT).stdout.encode())


def shifted(seen: Evidence, realtime_s: int, boottime_s: int) -> Evidence:
    """The same evidence with other clocks: the wall clock set, time gone by."""
    second = 1_000_000_000

    def moved(at: Clock) -> Clock:
        return Clock(at.realtime_ns + realtime_s * second, at.boottime_ns + boottime_s * second)

    return replace(seen, started=moved(seen.started), finished=moved(seen.finished))


def planned(seen: Evidence) -> Plan:
    return plan(seen, judge(seen))


def old_leases(node: Node) -> None:
    """Leases that are older than the runtime."""
    node.kubelet.run()
    for last in range(3):
        lease(node, last).write_bytes(f"{last:064x}\r\neth0".encode())
    time.sleep(3)
    node.restart_runtime()


def test_two_looks_agree_on_a_runtime(node: NodeFactory) -> None:
    machine = node()
    old_leases(machine)
    before = shifted(evidence(machine), 100, 100)
    same = shifted(evidence(machine), 105, 105)
    assert len(agreed(planned(before), planned(same), before, same).actions) == 3
    machine.restart_runtime()
    after = shifted(evidence(machine), 200, 200)
    assert len(planned(after).actions) == 3
    both = agreed(planned(before), planned(after), before, after)
    assert both.actions == ()
    assert {r.reasons for r in both.refusals} == {(because(Code.RUNTIME_RESTARTED),)}


@pytest.mark.parametrize("years", [-50, -10, -1, 1, 10, 30])
def test_the_clock_is_set_by_years(node: NodeFactory, years: int) -> None:
    machine = node()
    old_leases(machine)
    seen = evidence(machine)
    assert len(planned(shifted(seen, 100, 100)).actions) == 3
    # Only the wall clock's word says that they are old, and the socket's time shows that it is worth nothing.
    wrong = shifted(seen, 100 + years * 31_557_600, 100)
    assert planned(wrong).actions == ()
    assert sum(r.reasons[-1].code is Code.MAY_BE_CREATED for r in planned(wrong).refusals) == 3
    # Nor does the clock matter once they have been watched: that is counted on another one.
    assert machine.janitor_later(0, *CLEAN).returncode == 1
    watched = evidence(machine)
    assert len(planned(shifted(watched, years * 31_557_600, 700)).actions) == 3
    assert planned(shifted(watched, years * 31_557_600, 500)).actions == ()


# How it is called.


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clean", *ENDPOINT], "is not a terminal: use --yes to make the changes, or --dry-run to see them"),
        ([*CLEAN, "--grace", "5"], "--grace 5: must be at least 60 seconds"),
        ([*CLEAN, "--max", "0"], "--max 0: must be 1 or more"),
        ([*CLEAN, "--only", "LEASE999"], "--only 'LEASE999': there is no such check"),
        ([*CLEAN, "--no-such-option"], "no such option: --no-such-option"),
        (["undo", "20200101T000000Z-1"], "no such pass: 20200101T000000Z-1; 'janitor undo --list' shows all"),
    ],
)
def test_wrong_usage(node: NodeFactory, words: list[str], sentence: str) -> None:
    machine = node()
    before = leaking(machine)
    done = machine.janitor_later(1000, *words)
    assert done.returncode == 64, done
    assert sentence.lower() in done.stderr.lower()
    assert done.stderr.count("\n") == 1
    assert (there(machine), away(machine)) == (before, set())


@pytest.mark.parametrize("words", [CLEAN, ("undo",)])
def test_an_ordinary_user(node: NodeFactory, words: tuple[str, ...]) -> None:
    machine = node()
    before = leaking(machine)
    # Not by setpriv: an interpreter in root's home directory could not be started.
    code = (
        "import os; from janitor import config; from janitor.passes import clean; from janitor.commands import cli; "
        "from janitor.host import profiles; profiles.load(); "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); cli.main()"
    )
    done = machine.run([sys.executable, "-c", code, *words])
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("janitor: changing this node needs root (/run/janitor/lock: Permission denied)")
    assert (there(machine), away(machine)) == (before, set())
