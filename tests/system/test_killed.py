"""kill -9 at every system call of `janitor clean` and `janitor undo` that changes something.

The calls are found by tracing one run, not by knowing the code: what creates, writes, renames, links, removes, syncs or
locks under /var/lib/cni, /var/lib/janitor and /run/janitor. Then there is one run for each, in which strace kills the
process at that very call (its `when=` counts calls of one name in one thread; all changes are made by the first).
After each: no file is lost, the next run ends well, and undo brings everything back.
"""

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab import clock
from tests.lab.networks import Network, calico, canal
from tests.lab.node import JANITOR, Node, NodeFactory, missing
from tests.lab.runtimes import Containerd
from tests.system.conftest import of_series

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

OTHER = "2.4"
"""janitor makes the same changes with it, as a test shows, so it is killed with one containerd only."""

CLEAN = ("clean", "--yes", "--no-wait", "--cri-endpoint", "unix:///run/containerd/containerd.sock")
# The lab's clock stands in for waiting: every pass of the tests below is long after the first look.
CLOCK = (sys.executable, str(Path(clock.__file__)))
LATER, MUCH_LATER = 1000, 2000

LEASES = {f"10.52.0.{last}": f"{last:064x}\r\neth0".encode() for last in (20, 21, 22)} | {"10.52.0.23": b""}
DAMAGED = f"k8s-pod-network-{'f' * 64}-eth0"
LEAKED = {*LEASES, DAMAGED}

# Calls of these names are rare enough to be counted over the whole run of the first thread, whatever they are about …
BY_NAME = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "fsync", "fdatasync", "fchmod", "fchmodat", "chmod", "fchown", "utimensat", "truncate"),
    "flock",
)
# … and these only among those about given paths: how often /proc is opened differs from run to run.
BY_PATH = ("openat", "creat", "write", "pwrite64", "writev", "ftruncate")

_LINE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\w+|\?).*")
_OURS = re.compile(r'[<"](?P<path>/(?:var/lib/cni|var/lib/janitor|run/janitor)(?:/[^">]*)?)[">]')
_PASS = re.compile(r"\d{8}T\d{6}Z-\d+|[0-9a-f]{64}|process \d+|, \d{2,}(, \d+)?(?=\)|$)")

Files = dict[Path, tuple[int, bytes]]


@dataclass(frozen=True)
class Call:
    """A system call that changes something: the `number`th of its name, among those about `paths` if there are any."""

    name: str
    number: int
    paths: tuple[str, ...]
    what: str

    def strace(self) -> list[str]:
        words = [word for path in self.paths for word in ("-P", path)]
        return [*words, "-e", f"trace={self.name}", "-e", f"inject={self.name}:signal=KILL:when={self.number}"]


def janitor(node: Node, *words: str, at: int = LATER, before: Sequence[str] = ()) -> CompletedProcess[str]:
    """Run it inside, so many seconds later than it is; `before` is what it is started by."""
    return node.run([*before, *CLOCK, str(at), *words], env={"PYTHONDONTWRITEBYTECODE": "1"})


def traced(node: Node, *command: str, start: Sequence[str] = ()) -> list[str]:
    """Let this run to its end, started by `start`, and return the system calls of its first thread."""
    names = ",".join(f"?{name}" for name in (*BY_NAME, *BY_PATH))
    strace = ["strace", "-y", "-s", "0", "-o", "/run/trace", "-e", f"trace={names}"]
    done = node.run([*start, *strace, *command], env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done
    return (node.root / "run/trace").read_text().splitlines()


def changes(trace: list[str]) -> list[Call]:
    """The calls in it that change something of ours, and how each is to be hit again."""
    parsed = [match for line in trace if (match := _LINE.fullmatch(line))]

    def ours(call: re.Match[str]) -> tuple[str, ...]:
        paths = tuple(match["path"] for match in _OURS.finditer(call["arguments"]))
        reads = call["name"] == "openat" and "O_CREAT" not in call["arguments"]
        return () if call["result"].startswith("-1") or reads else paths

    written = tuple(sorted({ours(call)[-1] for call in parsed if call["name"] in BY_PATH and ours(call)}))
    assert not any(_PASS.search(path) for path in written), written
    found: list[Call] = []
    counted: Counter[str] = Counter()
    for call in parsed:
        name, paths = call["name"], written if call["name"] in BY_PATH else ()
        if paths and not any(f'"{path}"' in call["arguments"] or f"<{path}>" in call["arguments"] for path in paths):
            continue
        counted[name] += 1
        if ours(call):
            found.append(Call(name, counted[name], paths, told(call[0])))
    return found


def told(line: str) -> str:
    """A call without what differs from run to run."""
    return _PASS.sub("#", re.sub(r"\b\d+<", "<", line.rpartition(" = ")[0].strip()))


def files(node: Node) -> Files:
    """Everything under /var/lib/cni that is no directory, but for whose it is, which is written before all else."""
    there = [path for path in node.cni_dir.rglob("*") if not path.is_dir() and ".janitor-node" not in path.name]
    return {path: (path.stat().st_ino, path.read_bytes()) for path in there}


def quarantined(node: Node) -> list[Path]:
    return [path for path in files(node) if ".janitor-quarantine" in path.parts]


def events(node: Node) -> dict[tuple[str, int], str]:
    """What the journal says at last of each action."""
    journal = node.disk / "janitor/journal"
    records = [json.loads(line) for line in journal.read_text().splitlines() if line] if journal.exists() else []
    return {(record["pass"], record["n"]): record["event"] for record in records}


def nothing_lost(node: Node, before: Files) -> None:
    """Each file is in its place or in quarantine with its bytes, and there is none that was not there before."""
    now = files(node)
    kept = {path: (inode, content) for path, (inode, content) in now.items() if path in before}
    moved = {inode: content for path, (inode, content) in now.items() if path not in before}
    for path, (inode, content) in before.items():
        assert kept.get(path) == (inode, content) or moved.get(inode) == content, f"{path} is lost"
        if path.name not in LEAKED:
            assert kept.get(path) == (inode, content), f"{path} was none of ours"
    assert set(kept.values()) | set(moved.items()) <= set(before.values())
    assert set(now) - set(before) == set(quarantined(node))


def forget(node: Node) -> None:
    """Bring everything but the leases and the cache back to where it was, and let a first look be long ago."""
    marks = (*(node.cni_dir / "networks").glob(".janitor-node*"), *(node.disk / "janitor").glob("node*"))
    for path in (node.disk / "janitor/journal", *marks):
        path.unlink(missing_ok=True)
    shutil.rmtree(node.cni_dir / ".janitor-quarantine", ignore_errors=True)
    shutil.rmtree(node.root / "run/janitor", ignore_errors=True)
    before = files(node)
    looked = janitor(node, *CLEAN, at=100)
    assert (looked.returncode, files(node)) == (1, before), looked


def undo_all(node: Node) -> None:
    for one in sorted({pass_id for (pass_id, _), event in events(node).items() if event == "done"}, reverse=True):
        undone = janitor(node, "undo", one)
        assert undone.returncode == 0, undone


def killed(node: Node, call: Call, *words: str) -> None:
    """Run it, and have it die at this call."""
    strace = ("strace", "-y", "-s", "0", "-o", "/run/trace", *call.strace())
    done = janitor(node, *words, before=strace)
    trace = (node.root / "run/trace").read_text().splitlines()
    assert done.returncode != 0, done
    assert trace[-1:] == ["+++ killed by SIGKILL +++"], (trace, done)
    assert told(trace[-2]) == call.what


def everywhere(nodes: list[Node], calls: list[Call], survive: Callable[[Node, Call], None]) -> None:
    """Try each call, on as many nodes at a time as there are, and fail with all that went wrong."""

    def share(number: int) -> str:
        for call in calls[number :: len(nodes)]:
            try:
                survive(nodes[number], call)
            except AssertionError as error:
                # What this node is like now says nothing about the calls that follow.
                return f"killed at {call.what} (number {call.number}): {error}"
        return ""

    with ThreadPoolExecutor(len(nodes)) as pool:
        wrong = [sentence for sentence in pool.map(share, range(len(nodes))) if sentence]
    assert not wrong, "\n\n".join(wrong)


def leaking(node: Node, leases: int = len(LEASES)) -> Node:
    """A pod that lives, leases of nobody, one of which is empty, and a damaged cache entry."""
    node.kubelet.run()
    for address, content in list(LEASES.items())[-leases:]:
        (node.leases() / address).write_bytes(content)
    (node.results / DAMAGED).write_bytes(b"")
    forget(node)
    return node


def completed(node: Node, before: Files) -> None:
    """The run after one that was killed does all there is to do, and undo takes it all back."""
    after = janitor(node, *CLEAN)
    assert after.returncode == 0, after
    nothing_lost(node, before)
    now = files(node)
    leaked = sorted(file for path, file in before.items() if path.name in LEAKED)
    assert sorted(now[path] for path in quarantined(node)) == leaked
    assert "intend" not in events(node).values()
    undo_all(node)
    assert files(node) == before


@pytest.fixture(scope="module")
def waiting(default_containerd: Containerd | None) -> Iterator[Node]:
    """A node whose runtime has time to grow a minute old while the first tests run."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Node(default_containerd) as node:
        node.boot()
        yield leaking(node)


@pytest.fixture
def survived(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> Callable[[list[Call]], None]:
    """Tell, in the report and on the terminal, at how many calls it was killed."""

    def tell(calls: list[Call]) -> None:
        record_property("killed and survived", len(calls))
        with capsys.disabled():
            print(f"[killed at {len(calls)} calls, survived {len(calls)}]", end=" ", flush=True)

    return tell


def test_clean_is_killed_at_every_change(
    node: NodeFactory, waiting: Node, survived: Callable[[list[Call]], None]
) -> None:
    nodes = [leaking(node()) for _ in range(2)]
    calls = changes(traced(nodes[0], *CLOCK, str(LATER), *CLEAN))
    undo_all(nodes[0])
    forget(nodes[0])

    def survive(one: Node, call: Call) -> None:
        before = files(one)
        killed(one, call, *CLEAN)
        nothing_lost(one, before)
        completed(one, before)
        forget(one)

    everywhere(nodes, calls, survive)
    assert len(calls) >= 40, [call.what for call in calls]
    survived(calls)


def forgotten_sandbox(node: Node) -> Node:
    """The lease and the undamaged cache entry of a pod that no runtime knows any more: clean runs its CNI DEL."""
    pod = node.kubelet.run()
    node.cut("intact")
    node.forget_metadata()
    node.boot()
    assert list(node.addresses()) == [pod.ip]
    forget(node)
    return node


def test_clean_with_a_del_is_killed_at_every_change(node: NodeFactory, survived: Callable[[list[Call]], None]) -> None:
    nodes = [forgotten_sandbox(node(calico())) for _ in range(2)]
    results = [entry(one) for one in nodes]
    calls = changes(traced(nodes[0], *CLOCK, str(LATER), *CLEAN))
    # What comes before the first change of its own is as in the test above.
    calls = calls[next(n for n, call in enumerate(calls) if call.name == "mkdir") :]
    assert any("link" in call.name for call in calls), [call.what for call in calls]
    restore(nodes[0], results[0])

    def survive(one: Node, call: Call) -> None:
        before = set(files(one).values())
        killed(one, call, *CLEAN)
        assert set(files(one).values()) >= before
        # A second name, given and taken, changes the file's ctime: it has to be watched once more.
        after = [janitor(one, *CLEAN, at=seconds) for seconds in (LATER, MUCH_LATER)][-1]
        assert after.returncode == 0, after
        assert set(files(one).values()) >= before
        assert one.addresses() == {}
        assert "intend" not in events(one).values()
        restore(one, results[nodes.index(one)])

    everywhere(nodes, calls, survive)
    survived(calls)


def entry(node: Node) -> Path:
    """The pod's entry in libcni's cache (that of its loopback interface is of no interest)."""
    (path,) = node.results.glob("k8s-pod-network-*")
    return path


def restore(node: Node, result: Path) -> None:
    """undo brings the lease back; the cache entry, whose DEL has been run, only a person can."""
    undo_all(node)
    for path in quarantined(node):
        if path.name.endswith(".cache"):
            path.rename(result)
    forget(node)


def test_undo_is_killed_at_every_change(node: NodeFactory, survived: Callable[[list[Call]], None]) -> None:
    nodes = [leaking(node(), 1) for _ in range(2)]
    before = [files(one) for one in nodes]
    assert janitor(nodes[0], *CLEAN).returncode == 0
    calls = changes(traced(nodes[0], *CLOCK, str(LATER), "undo"))
    assert files(nodes[0]) == before[0]

    def survive(one: Node, call: Call) -> None:
        forget(one)
        cleaned = janitor(one, *CLEAN)
        assert cleaned.returncode == 0, cleaned
        killed(one, call, "undo")
        nothing_lost(one, before[nodes.index(one)])
        again = janitor(one, "undo")
        assert files(one) == before[nodes.index(one)], again

    everywhere(nodes, calls, survive)
    survived(calls)


def test_another_containerd_makes_no_other_changes(node: NodeFactory) -> None:
    def made(network: Network, prepared: Callable[[Node], Node], other: Containerd | None) -> list[list[str]]:
        one = prepared(node(network, containerd=other))
        commands = CLEAN, ("undo",)
        return [[call.what for call in changes(traced(one, *CLOCK, str(LATER), *words))] for words in commands]

    for network, prepared in ((canal(), leaking), (calico(), forgotten_sandbox)):
        here, there = made(network, prepared, None), made(network, prepared, of_series(OTHER))
        assert all(here), "each command changes something"
        assert here == there


def test_the_command_itself_makes_the_same_changes(waiting: Node) -> None:
    """Without the lab's clock: the runtime has run for a minute, and the rest is a time namespace's 700 seconds."""
    before = files(waiting)
    expected = [call.what for call in changes(traced(waiting, *CLOCK, str(LATER), *CLEAN))]
    undo_all(waiting)
    forget(waiting)
    time.sleep(max(0.0, 61 - (time.time() - waiting.socket.stat().st_ctime)))
    start = ("unshare", "--time", "--boottime", "700", "--monotonic", "700", "--fork")
    calls = changes(traced(waiting, str(JANITOR), *CLEAN, start=start))
    assert [call.what for call in calls] == expected
    nothing_lost(waiting, before)
    assert len(quarantined(waiting)) == len(LEAKED)
