"""The commands on bad input: one sentence on standard error, the right exit code, never a traceback."""

import json
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import pytest

from janitor.host.cni.locks import only_janitor
from janitor.report.evidence_json import encode
from tests.situations import evidence, lease

BIN = Path(sys.executable).parent


def janitor(*words: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [BIN / "janitor", *words], input=stdin, capture_output=True, timeout=60, env={**os.environ, **environment}
    )
    assert b"Traceback" not in done.stderr + done.stdout
    return done


def test_help_needs_no_model_of_the_node() -> None:
    """Each command imports what it needs when it runs: the whole takes longer to load than the help to print."""
    program = "import sys, janitor.commands.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "janitor.commands.clean" in loaded
    assert not {"janitor.core.model.evidence", "janitor.passes.scan", "msgspec", "grpc", "pyroute2"} & set(loaded)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["scan", "--bogus"], 64, "No such option: --bogus"),
        (["bogus"], 64, "No such command"),
        (["scan", "-o", "yaml"], 64, "'yaml' is not one of"),
        (["scan", "--only", "LEASE999"], 64, "there is no such check"),
        (["scan", "--only", "leeses"], 64, "there is no such check (did you mean 'leases'?); name a family"),
        (["scan", "--only", "KUBE001"], 64, "there is no such check (did you mean 'KUB001'?); name a family"),
        (["scan", "--only", ""], 64, "there is no such check"),
        (["scan", "--data-dir", "/nowhere"], 64, "not the absolute path of a directory"),
        (["scan", "--only", "nonsense"], 64, "there is no such check"),
        (["scan", "--root", "/nowhere"], 64, "--root /nowhere is not a directory"),
        (["scan", "--data-dir", "relative"], 64, "not the absolute path of a directory"),
        (["scan", "--deadline", "0"], 64, "--deadline 0: must be 0.1 to 300 seconds"),
        (["scan", "--config", "/nowhere.toml"], 64, "there is no such file"),
        (["scan", "--evidence", "/nowhere.json"], 2, "reading the evidence /nowhere.json: No such file"),
        (["scan", "--evidence", "-", "--root", "/mnt"], 64, "--evidence cannot be used with --root"),
        (["clean", "--fix", "resolved", "--yes"], 64, "--fix resolved: unknown setting; the only one is networkd"),
        (["clean", "--fix", "networkd", "--only", "rules"], 64, "--fix cannot be used with --only or --network"),
        (["clean", "--fix", "networkd", "--network", "cbr0"], 64, "--fix cannot be used with --only or --network"),
        (["explain", "web-1"], 64, "'web-1' is not an IP address"),
        (["explain"], 64, "Missing argument 'ADDRESS'"),
        ([], 64, "Usage: janitor"),
    ],
)
def test_bad_words(words: list[str], code: int, sentence: str) -> None:
    done = janitor(*words)
    assert (done.returncode, sentence in done.stderr.decode()) == (code, True), done.stderr
    if code == 64 and words:
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == b""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not the output of 'janitor collect'"),
        (b"{", "not the output of 'janitor collect'"),
        (b"[]", "not the output of 'janitor collect'"),
        (b'{"version": 999}', "version 999, but this janitor reads versions 1 to 2"),
        (b'{"version": 1}', "missing required field"),
        (b"\xff\xfe\x00", "not the output of 'janitor collect'"),
    ],
)
def test_bad_evidence(content: bytes, sentence: str) -> None:
    done = janitor("scan", "--evidence", "-", stdin=content)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert sentence in done.stderr.decode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("grase = 100\n", "unknown setting 'grase' (did you mean 'grace'?)"),
        ("Interval-s = 100\n", "unknown setting 'Interval-s' (did you mean 'interval'?)"),
        (
            "dry_run = true\n",
            "unknown setting 'dry_run'; the settings are cri_endpoints, data_dirs, data_dirs_are_ours, ",
        ),
        ("[rules]\nprofile = []\n", "unknown setting 'profile' in [rules] (did you mean 'profiles'?)"),
        ("[rule]\nprofiles = []\n", "unknown setting 'rule' (did you mean 'rules'?)"),
        (
            "[rules]\nprofiles = ['kuberouter']\n",
            "unknown profile 'kuberouter' (did you mean 'kube-router'?); the",
        ),
        ("[rules.protocol]\ncilum = 'keep'\n", "unknown profile 'cilum' (did you mean 'cilium'?)"),
        ("[checks]\nleases = 'observe'\ngrace = 60\n", "'grace' is not a setting in [checks]: move it above the first"),
        ("[rules]\ngrace = 60\n", "'grace' is not a setting in [rules]: move it above the first table"),
        ("rules = 1\n", "rules must be a table, not a whole number"),
        ('grace = "long"\n', "grace must be a whole number, not text in quotes"),
        ("durable = 1\n", "durable must be true or false, not a whole number"),
        ("interval = 07:30:00\n", "interval must be a number, not "),
        (
            'cri_endpoints = "unix:///run/x.sock"\n',
            "cri_endpoints must be a list in brackets, not text in quotes",
        ),
        ("data_dirs = [1]\n", "each item of data_dirs must be text in quotes, not a whole number"),
        ("rules.profiles = 'kube-router'\n", "rules.profiles must be a list in brackets, not text in quotes"),
        ("mode = 'Observe'\n", "mode: 'Observe' is not valid; use repair or observe"),
        ("mode = observe\n", "Invalid value (at line 1, column 8); put text in quotes"),
        ("[checks]\nleases = 'clean'\n", "checks: 'clean' is not valid; use repair or observe"),
        (
            "[checks]\nLEASE0011 = 'observe'\n",
            "[checks] in the configuration: 'LEASE0011': there is no such check (did",
        ),
        ("[rules.protocol]\ncilium = 'static'\n", "rules.protocol: 'static' is not valid; use keep or kernel"),
        (
            "data_dirs = ['var/lib/cni/networks']\n",
            "'var/lib/cni/networks'; a data directory must be an absolute",
        ),
        (
            "cri_endpoints = ['tcp://127.0.0.1:1']\n",
            "cri_endpoints has 'tcp://127.0.0.1:1', which is not a Unix socket",
        ),
        (
            "cri_endpoints = ['unix://run/x.sock']\n",
            "cri_endpoints has 'unix://run/x.sock', which is not a Unix socket",
        ),
        (
            "ignore_namespaces = ['default/web-1']\n",
            "'ignore_namespaces' is a setting of [scope]: move it below that line",
        ),
        ("[scope]\nignore_namespaces = ['default']\n", "name a pod as NAMESPACE/NAME, such as default/web-1"),
        ("program_dirs = ['opt/bin']\n", "program_dirs has 'opt/bin'; a program directory must be an absolute path"),
        ("hosts = ['a.example:80']\n", "hosts has 'a.example:80'; use host names in lower case"),
        ("grace = 60\ngrace = 61\n", "a setting or table is defined twice (at line 2, column 11)"),
        ("[scope]\n[scope]\n", "a setting or table is defined twice (at line 2, column 7)"),
        ("grace = 5\n", "grace is 5; it must be at least 60 seconds"),
        ("deadline = -1.0\n", "it must be 0.1 to 300 seconds"),
        ("= =", "Invalid"),
    ],
)
def test_bad_configuration(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "janitor.toml"
    file.write_text(content)
    done = janitor("scan", "--config", str(file))
    assert (done.returncode, len(done.stderr.splitlines())) == (64, 1)
    assert sentence in done.stderr.decode()


def test_json_against_the_shipped_schema(tmp_path: Path) -> None:
    import importlib.resources

    schema = json.loads(importlib.resources.files("janitor.report").joinpath("schema.json").read_text())
    file = tmp_path / "evidence.json"
    file.write_bytes(encode(evidence(lease(), lease("10.52.0.78", b""), lease("10.52.0.79", b"by hand"))))
    done = janitor("scan", "-o", "json", "--evidence", str(file))
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema).validate(document)
    assert (done.returncode, document["status"]) == (1, "findings")
    assert {x["address"]: x["verdict"] for x in document["leases"]} == {
        "10.52.0.2": "live", "10.52.0.77": "orphaned", "10.52.0.78": "corrupt", "10.52.0.79": "foreign",
    }  # fmt: skip


def test_a_pipe_is_as_wide_as_the_terminal_that_it_is_in() -> None:
    """`janitor scan | less`: lines for 120 columns would be broken in the middle of words."""
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", 0), os.fdopen(terminal, "wb", 0) as stderr:
        termios.tcsetwinsize(terminal, (24, 60))
        words = ["scan", "--evidence", "-"]
        given = encode(evidence(lease()))
        done = subprocess.run([BIN / "janitor", *words], input=given, stdout=subprocess.PIPE, stderr=stderr, timeout=60)
    assert done.returncode == 1
    findings = done.stdout.decode().partition("ADDRESS ")[0]
    assert 40 < max(map(len, findings.splitlines())) <= 60
    wide = janitor(*words, stdin=given)
    assert 60 < max(map(len, wide.stdout.decode().splitlines())) <= 120
    assert b"\x1b" not in done.stdout


def test_fail_on_and_only(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(encode(evidence(lease())))
    assert janitor("scan", "--evidence", str(file)).returncode == 1
    assert janitor("scan", "--evidence", str(file), "--fail-on", "error").returncode == 0
    assert janitor("scan", "--evidence", str(file), "--only", "LEASE002").returncode == 0
    assert janitor("scan", "--evidence", str(file), "--only", "leases").returncode == 1


def test_the_table_says_the_same_in_every_width_and_without_colour(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_bytes(encode(evidence(lease())))
    out = janitor("scan", "--evidence", str(file)).stdout.decode()
    assert out.startswith(
        "k8s-pod-network 10.52.0.0/24: 2 of 253 used: 1 live, 1 orphaned; 'janitor clean' would free 1\n"
    )
    assert "\x1b" not in out


def test_output_that_nobody_reads_to_the_end(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    files = [lease(f"10.52.{i // 250}.{i % 250}") for i in range(20_000)]
    file.write_bytes(encode(evidence(*files)))
    line = f"{BIN}/janitor scan -o json --evidence {file} | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120)
    assert done.stderr == b""


@contextmanager
def listening(path: Path, answer: bytes | None) -> Iterator[None]:
    """A socket that says `answer` to whoever connects, or nothing at all and never hangs up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                if answer is None:
                    held.append(peer)
                else:
                    with peer, suppress(OSError):  # the caller may be gone already
                        peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for peer in held:
                peer.close()
            thread.join()


SOCKET = "run/containerd/containerd.sock"


def unseen(root: Path, *words: str) -> str:
    done = janitor("scan", "-o", "json", "--root", str(root), *words)
    assert done.returncode == 2
    return "\n".join(f["summary"] for f in json.loads(done.stdout)["findings"] if f["status"] == "unknown")


def test_no_such_socket(tmp_path: Path) -> None:
    assert "the socket does not exist" in unseen(tmp_path, "--cri-endpoint", "unix:///run/none.sock")
    assert "no container runtime was found" in unseen(tmp_path)


def test_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "run/containerd").mkdir(parents=True)
    (tmp_path / SOCKET).touch()
    assert "it is not a socket" in unseen(tmp_path)


def test_not_a_unix_socket_at_all(tmp_path: Path) -> None:
    done = janitor("scan", "--cri-endpoint", "tcp://127.0.0.1:1234")
    assert (done.returncode, b"not a Unix socket" in done.stderr) == (64, True)
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet/config.yaml").write_text("containerRuntimeEndpoint: npipe:////./pipe/x\n")
    assert "is not a Unix socket" in unseen(tmp_path)


def test_standard_output_that_cannot_be_written() -> None:
    for redirection, sentence in ("> /dev/full", "No space left on device"), (">&-", "it is closed"):
        line = f"exec {BIN}/janitor scan {redirection}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert sentence in done.stderr


def test_version() -> None:
    assert janitor("--version").stdout == janitor("version").stdout


def test_a_name_cannot_forge_a_line_or_paint_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "var/lib/cni/networks/net").mkdir(parents=True)
    (tmp_path / "var/lib/cni/networks/net/\x1b[31mEVIL\n10.1.1.1").touch()
    for words in (["scan"], ["scan", "--all"], ["explain", "10.1.1.1"]):
        out = janitor(*words, "--root", str(tmp_path)).stdout.decode()
        assert "\x1b" not in out
        assert "\n10.1.1.1 " not in out or words[0] == "explain"


def test_a_stale_socket(tmp_path: Path) -> None:
    (tmp_path / "run/containerd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / SOCKET))
    assert "nothing listens there" in unseen(tmp_path)


def test_another_protocol(tmp_path: Path) -> None:
    with listening(tmp_path / SOCKET, b"SSH-2.0-OpenSSH_9.2\r\n"):
        assert "does not speak gRPC" in unseen(tmp_path)


def test_a_runtime_that_hangs(tmp_path: Path) -> None:
    with listening(tmp_path / SOCKET, None):
        assert "no answer within 1 s" in unseen(tmp_path, "--deadline", "1")


def test_a_socket_without_cri(tmp_path: Path) -> None:
    (tmp_path / "run/containerd").mkdir(parents=True)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_insecure_port(f"unix:{tmp_path / SOCKET}")
    server.start()
    try:
        assert "it does not serve CRI v1" in unseen(tmp_path)
    finally:
        server.stop(None).wait()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    assert "is too long: a Unix socket allows" in unseen(deep, "--cri-endpoint", "/run/containerd/containerd.sock")


def test_a_bug_is_said_to_be_one() -> None:
    line = "import janitor.commands.cli as c, janitor.passes.scan as p; p.observe = lambda *a: 1 // 0; c.main()"
    for words, traceback in ([], False), (["--debug"], True):
        argv: list[Any] = [BIN / "python", "-c", line, *words, "scan"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert (done.returncode, "Please report" in done.stderr) == (70, True)
        assert ("Traceback" in done.stderr) == traceback


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_an_ordinary_user(tmp_path: Path) -> None:
    # Everything is imported first: the interpreter itself may lie where only root can read.
    line = (
        "import contextlib, io, os; from janitor.commands.cli import app, main\n"
        "with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())): app(standalone_mode=False)\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
    )
    done = subprocess.run([BIN / "python", "-c", line, "scan"], capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.returncode, done.stderr) == (2, "")
    assert "run janitor as root" in done.stdout


def test_what_was_done_is_shown_beside_a_janitor_at_work(tmp_path: Path) -> None:
    intention = {
        "event": "intend", "pass": "20261120T000000Z-1", "n": 0, "at": 1_790_000_000.0, "boot_id": "b",
        "quarantine": "/var/lib/janitor/quarantine/20261120T000000Z-1/10.52.0.5",
        "action": {"kind": "free", "directory": "/var/lib/cni/networks/n", "name": "10.52.0.5"},
    }  # fmt: skip
    journal = tmp_path / "var/lib/janitor/journal"
    journal.parent.mkdir(parents=True)
    journal.write_text(json.dumps(intention) + "\n")
    with only_janitor(str(tmp_path), "janitor clean"):
        done = janitor("undo", "--list", "--root", str(tmp_path))
    assert (done.returncode, done.stdout.decode().endswith("1 unfinished\n")) == (0, True), done
    assert journal.read_text() == json.dumps(intention) + "\n", "what another one is at is not ours to end"
