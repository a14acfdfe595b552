"""The daemon's parts when what they need is not to be had: descriptors, a disk that answers, a readable file."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.config import ConfigError, load
from janitor.core.model.action import Policy
from janitor.core.model.fingerprint import Fingerprint
from janitor.core.model.retry import SECOND
from janitor.daemon.component import Part
from janitor.daemon.fsync_worker import Syncing
from janitor.daemon.lease_pass import Order
from janitor.daemon.lease_worker import Passing
from janitor.daemon.loop import Daemon
from janitor.daemon.pass_record import PassRecord
from janitor.daemon.status import Settings
from janitor.daemon.textfile import Textfile
from janitor.host.http import Answer, Server, ServerEvent
from janitor.host.kernel.procfs import clock
from janitor.host.kernel.signals import Signals
from janitor.passes.scan import Options
from janitor.report.events import LogEvent
from janitor.report.pass_metrics import synced
from tests.limits import no_descriptor_left
from tests.log import Log
from tests.nodes import with_processes

FAMILIES = synced(5, 0.25)


def drive(part: Part | Server, until: Callable[[], bool], seconds: float = 5) -> None:
    """What the loop does, for one part."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, part
        readers, writers = part.descriptors()
        due = part.due_ns
        wait = max(0.0, (due - clock().boottime_ns) / 1e9) if due is not None else 1.0
        ready = select.select(readers, writers, [], min(wait, 0.2))
        part.run(frozenset(ready[0] + ready[1]))


def settings(root: Path, **other: Any) -> Settings:
    quiet = Settings(
        options=Options(root=str(root)), policy=Policy(), leases=True, rules=False, repair_rules=False, no_rules="",
        interval_s=60, keep_days=30, durable=False, listen=None, hosts=(), textfile="",
    )  # fmt: skip
    return replace(quiet, **other)


def order(tidy: bool, postponed: frozenset[str]) -> Order:
    raise AssertionError(tidy, postponed)


# No descriptor left.


def test_a_pass_that_cannot_be_begun_is_a_failed_pass(tmp_path: Path) -> None:
    log = Log()
    order = Order(Options(root=str(tmp_path)), Policy(), 30, False)
    passing = Passing(lambda *_: order, 60, log)
    passing.record.results["complete"] = 7
    with no_descriptor_left():
        passing.run(frozenset())
    assert passing.record.results == {"complete": 7, "failed": 1}
    assert log.of(LogEvent.PASS_FAILED)[0]["why"] == "cannot start its process: Too many open files"
    assert passing.due_ns is not None
    assert clock().boottime_ns < passing.due_ns <= clock().boottime_ns + 6 * SECOND


def test_syncing_that_cannot_be_begun_is_tried_again(tmp_path: Path) -> None:
    log = Log()
    syncing = Syncing(str(tmp_path), (), log)
    with no_descriptor_left():
        syncing.run(frozenset())
    assert log.of(LogEvent.SYNCING_FAILED)
    assert syncing.due_ns is not None
    assert syncing.due_ns > clock().boottime_ns


def test_a_port_without_a_descriptor_for_who_calls_costs_nothing_and_answers_later() -> None:
    server = Server(("127.0.0.1", 0), lambda path: Answer(200, "text/plain", path.encode()), list[ServerEvent]().append)
    server.run(frozenset())
    (fd,), _ = server.descriptors()
    with socket.socket(fileno=os.dup(fd)) as listening:
        where = listening.getsockname()
    with socket.create_connection(where) as caller:
        caller.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        with no_descriptor_left():
            server.run(frozenset([fd]))
            assert server.descriptors() == ([], [])
            assert server.due_ns is not None
            assert server.due_ns > clock().boottime_ns
        drive(server, lambda: bool(select.select([caller], [], [], 0)[0]))
        assert b"200 OK" in caller.recv(4096)
    server.close()


def test_connections_without_number_keep_no_probe_out() -> None:
    """Any pod that reaches the port may open them, and send nothing."""
    server = Server(("127.0.0.1", 0), lambda path: Answer(200, "text/plain", path.encode()), list[ServerEvent]().append)
    server.run(frozenset())
    (fd,), _ = server.descriptors()
    with socket.socket(fileno=os.dup(fd)) as listening:
        where = listening.getsockname()
    with contextlib.ExitStack() as callers:
        for _ in range(100):
            callers.enter_context(socket.create_connection(where, 1))
        caller = callers.enter_context(socket.create_connection(where, 1))
        caller.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        for _ in range(100):
            callers.enter_context(socket.create_connection(where, 1))
        drive(server, lambda: bool(select.select([caller], [], [], 0)[0]))
        assert b"200 OK" in caller.recv(4096)
        assert len(server._connections) <= 16
    server.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9742", 200), ("10.0.0.7", 200), ("[::1]:9742", 200), ("[fd00::7]", 200), ("localhost", 200),
        ("", 200), ("LOCALHOST.:9742", 200), ("janitor.example.com:443", 200),
        # Whoever owns a name can have it resolve to the loopback: the browser of a person on the node would read it.
        ("rebound.attacker.example", 421), ("127.0.0.1.attacker.example", 421), ("localhost.attacker.example:1", 421),
        ("127.0.0.1@attacker.example", 421), ("[::1].attacker.example", 421), ("127.0.0.1, x", 421),
    ],
)  # fmt: skip
def test_the_page_is_had_by_addresses_and_by_names_that_the_operator_allows(host: str, status: int) -> None:
    server = Server(
        ("127.0.0.1", 0), lambda _: Answer(200, "text/plain", b""), list[ServerEvent]().append, ("janitor.example.com",)
    )
    request = f"GET / HTTP/1.1\r\nAccept: */*\r\nhOST: {host}\r\n\r\n".encode()
    assert server._respond(request).startswith(f"HTTP/1.1 {status} ".encode())
    # Of two, each must do.
    twice = request.replace(b"Accept: */*", b"Host: localhost")
    assert server._respond(twice).startswith(f"HTTP/1.1 {status} ".encode())


def test_what_sends_no_host_is_no_browser() -> None:
    server = Server(("127.0.0.1", 0), lambda _: Answer(200, "text/plain", b""), list[ServerEvent]().append)
    assert server._respond(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("ago_s", "unchanged", "may"), [(60, 0, True), (60, 3, True), (60, 4, False), (301, 0, False)])
def test_how_many_passes_may_end_after_a_check_and_for_how_long(
    tmp_path: Path, ago_s: int, unchanged: int, may: bool
) -> None:
    """However long the interval is: the alert on passes that do not see everything counts on it."""
    fingerprint = Fingerprint(("/var/lib/cni",), (), "of the pass before")
    begun = Order(Options(root=str(tmp_path)), Policy(), 30, False)
    looked_ns = clock().boottime_ns - ago_s * SECOND
    passing = Passing(
        lambda *_: begun, 600, Log(), PassRecord(looked_ns=looked_ns), _fingerprint=fingerprint, _unchanged=unchanged
    )
    passing.run(frozenset())
    passing.close(1)
    assert passing._order is not None
    assert passing._order.fingerprint == (fingerprint if may else replace(fingerprint, digest=""))


def test_the_process_of_a_pass_imports_nothing(tmp_path: Path) -> None:
    """It would do so in every pass: the daemon has loaded all that a pass needs before it starts one."""
    program = "import sys; sys.argv[0] = 'janitor'; from janitor.commands.cli import main; main()"
    words = ["run", "--only", "leases", "--observe", "--listen", "", "--root", str(tmp_path)]
    with_processes(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", program, *words], stderr=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stderr is not None
        said = []
        for line in daemon.stderr:
            said.append(line)
            if line.startswith("event=pass "):
                daemon.terminate()
    began = next(number for number, line in enumerate(said) if line.startswith("event=started"))
    assert [line for line in said[began:] if line.startswith("import time:")] == []


# For how long nothing happened, and why nothing happens.


def test_a_machine_that_was_suspended_is_not_ill(tmp_path: Path) -> None:
    now = clock().boottime_ns
    passing = Passing(order, 60, Log(), PassRecord(ended_ns=now - 700 * SECOND))
    assert passing.health(now - 900 * SECOND).ill
    daemon = Daemon(settings(tmp_path, leases=False), lambda: pytest.fail(), Log())
    daemon._began_ns = now - 900 * SECOND
    daemon._round = replace(daemon._round, boottime_ns=daemon._began_ns)  # and then nothing, until now
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)  # so that the loop waits for nothing
        daemon._once(signals)
    daemon._close()
    assert not passing.health(daemon._began_ns).ill


def test_without_a_directory_for_its_lock_the_port_says_why(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    log = Log()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ("127.0.0.1", free.getsockname()[1])
    daemon = Daemon(settings(tmp_path, listen=where), lambda: pytest.fail(), log)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)  # so that the loop waits for nothing
        daemon._once(signals)
        assert log.of(LogEvent.WAITING)
        assert [slot.name for slot in daemon._parts.slots if slot.part is not None] == ["http"]
        with socket.create_connection(where) as caller:
            caller.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            for _ in range(5):
                daemon._once(signals)
            answer = caller.recv(4096)
        assert b"503" in answer.splitlines()[0]
        assert b"waiting for the daemon lock: " in answer
        assert (daemon.health().ill, daemon.overview().looked) == ("", None)
    daemon._close()


def test_a_hangup_while_it_still_begins_does_not_end_it(tmp_path: Path) -> None:
    """From the first line of ours on: it is sent before typer is there."""
    file = tmp_path / "janitor.toml"
    file.write_text("mode = 7\n")
    program = (
        "import os, signal, sys; sys.argv = ['janitor', 'run', '--config', sys.argv[1]]\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from janitor.commands.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False, timeout=20
    )
    assert "reading the configuration" in done.stderr
    assert done.returncode > 0


# The configuration.


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "mode = 7", "interval = 1e", "\0"])
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    file = tmp_path / "janitor.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="reading the configuration"):
        load(file)


def test_a_configuration_that_is_no_file_or_a_huge_one(tmp_path: Path) -> None:
    file = tmp_path / "janitor.toml"
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        load(file)
    file.unlink()
    with file.open("wb") as huge:
        huge.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        load(file)


def test_whatever_reading_it_raises_the_old_one_stays(tmp_path: Path) -> None:
    def read() -> Settings:
        raise RecursionError("maximum recursion depth exceeded")

    log = Log()
    daemon = Daemon(settings(tmp_path), read, log)
    daemon._reload()
    assert log.of(LogEvent.CONFIGURATION_NOT_READ)[0]["why"].startswith("RecursionError")
    assert daemon.settings == settings(tmp_path)


# The textfile.


def test_the_textfile_is_written_whole_and_readable(tmp_path: Path) -> None:
    file = tmp_path / "janitor.prom"
    part = Textfile(str(file), lambda: FAMILIES, Log())
    drive(part, lambda: part.written is not None and not part._worker.busy)
    assert file.stat().st_mode & 0o777 == 0o644
    assert "janitor_files_synced_total 5.0" in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["janitor.prom"]


@pytest.mark.parametrize("obstacle", ["fifo", "link"])
def test_nothing_that_lies_in_its_way_is_opened(tmp_path: Path, obstacle: str) -> None:
    file, elsewhere = tmp_path / "janitor.prom", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    fresh = tmp_path / "janitor.prom.new"
    os.mkfifo(fresh) if obstacle == "fifo" else fresh.symlink_to(elsewhere)
    part = Textfile(str(file), lambda: FAMILIES, Log())
    drive(part, lambda: part.written is not None)
    part.close(0)
    assert (file.is_file(), elsewhere.read_text()) == (True, "precious")


def test_what_goes_wrong_is_said_once(tmp_path: Path) -> None:
    log = Log()
    part = Textfile(str(tmp_path / "no/janitor.prom"), lambda: FAMILIES, log)
    for times in (1, 2):
        part.soon()
        drive(part, lambda: part._worker.busy)
        drive(part, lambda: not part._worker.busy)
        assert len(log.of(LogEvent.TEXTFILE_NOT_WRITTEN)) == 1, times
    assert "No such file" in log[0][1]["why"]
    with no_descriptor_left():
        part.soon()
        part.run(frozenset())
    assert "Too many open files" in log[1][1]["why"]


def stop_its_child(part: Textfile) -> None:
    """Before it has written anything; on a busy machine it may be quicker than we are."""
    while True:
        part.soon()
        part.run(frozenset())
        child = part._worker.child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        if stat[0] == "T" and not select.select([child.fileno()], [], [], 0)[0]:
            return
        os.kill(child.pid, signal.SIGCONT)
        drive(part, lambda: not part._worker.busy)
        part.written = None


def test_a_disk_that_does_not_answer_holds_up_nobody(tmp_path: Path) -> None:
    """The child is stopped where it would wait for a disk."""
    log = Log()
    part = Textfile(str(tmp_path / "janitor.prom"), lambda: FAMILIES, log, patience_s=0.3)
    stop_its_child(part)
    for times in (1, 2):
        part.soon()
        part.run(frozenset())
        drive(part, lambda: bool(log))
        assert len(log) == 1, times
    assert "no answer from the disk for 0.3 s" in log[0][1]["why"]
    drive(part, lambda: part.written is not None)  # by the next one
    part.close(0)


@pytest.mark.parametrize("new", ["other.prom", ""])
def test_another_place_for_the_textfile(tmp_path: Path, new: str) -> None:
    old = tmp_path / "janitor.prom"
    part = Textfile(str(old), lambda: FAMILIES, Log())
    drive(part, lambda: part.written is not None)
    part.path = str(tmp_path / new) if new else ""
    part.soon()
    drive(part, lambda: not old.exists() and not part._worker.busy)
    assert [path.name for path in tmp_path.iterdir()] == ([new] if new else [])


def test_a_textfile_that_is_somebody_elses_by_now_stays(tmp_path: Path) -> None:
    old = tmp_path / "janitor.prom"
    part = Textfile(str(old), lambda: FAMILIES, Log())
    drive(part, lambda: part.written is not None)
    (tmp_path / "x").write_text("another's")
    (tmp_path / "x").rename(old)
    part.path = ""
    part.soon()
    drive(part, lambda: part.due_ns is None and not part._worker.busy)
    assert old.read_text() == "another's"
