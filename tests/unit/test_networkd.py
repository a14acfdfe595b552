"""systemd-networkd's configuration, read as systemd reads it; systemd itself says in which order the files count."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from janitor.core.model.routing import NetworkFile
from janitor.core.rules.networkd import matches
from janitor.host.node import files_only
from janitor.host.systemd.networkd import _in_order, _network_files, _settings

RULES = "ManageForeignRoutingPolicyRules"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def effective(root: Path) -> tuple[dict[str, tuple[str, str, int]], list[str]]:
    problems: list[str] = []
    return {s.name: (s.value, s.file, s.line) for s in _settings(files_only(str(root)), problems)}, problems


def test_nothing(tmp_path: Path) -> None:
    assert effective(tmp_path) == ({}, [])


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        (f"[Network]\n{RULES}=no\n", "no", 2),
        (f"[Network]\r\n {RULES} = OFF \r\n", "no", 2),
        (f"# x\n[Network]\n; {RULES}=yes\n{RULES}=0\n", "no", 4),
        (f"[Network]\n{RULES}=no\n{RULES}=true\n", "yes", 3),
        (f"[Network]\n{RULES}=\\\n# a comment in between\nno\n", "no", 2),
        (f"[Network]\n{RULES}=no", "no", 2),
    ],
)
def test_what_systemd_takes(tmp_path: Path, text: str, value: str, line: int) -> None:
    write(tmp_path, "etc/systemd/networkd.conf", text)
    assert effective(tmp_path) == ({RULES: (value, "/etc/systemd/networkd.conf", line)}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"[Network]\n{RULES}=nope\n", f"networkd.conf:2: {RULES}=nope is neither yes nor no"),
        (f"[Network]\n{RULES}=\n", "is neither yes nor no"),
        (f"[Network]\n{RULES} no\n", "is not an assignment"),
        (f"{RULES}=no\n", "is not an assignment"),
        ("\x00\xff\n", "is not an assignment"),
    ],
)
def test_what_systemd_ignores_is_said(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path, "etc/systemd/networkd.conf", text)
    found, problems = effective(tmp_path)
    assert found == {}
    assert problem in problems[0]


def test_other_sections_and_a_directory_in_its_place(tmp_path: Path) -> None:
    write(tmp_path, "etc/systemd/networkd.conf", f"[DHCPv4]\n{RULES}=no\n")
    (tmp_path / "etc/systemd/networkd.conf.d/10-x.conf").mkdir(parents=True)
    found, problems = effective(tmp_path)
    assert found == {}
    assert "10-x.conf" in problems[0]


DROP_INS = {
    "usr/lib/systemd/networkd.conf.d/80-release.conf": "no",
    "etc/systemd/networkd.conf.d/50-admin.conf": "yes",
    "run/systemd/networkd.conf.d/90-run.conf": "yes",
    "etc/systemd/networkd.conf.d/90-run.conf": "no",
    "usr/local/lib/systemd/networkd.conf.d/60-local.conf": "yes",
    "etc/systemd/networkd.conf": "yes",
}


def test_the_order_of_the_files(tmp_path: Path) -> None:
    for path, value in DROP_INS.items():
        write(tmp_path, path, f"[Network]\n{RULES}={value}\n")
    assert effective(tmp_path)[0] == {RULES: ("no", "/etc/systemd/networkd.conf.d/90-run.conf", 2)}
    (tmp_path / "etc/systemd/networkd.conf.d/90-run.conf").unlink()
    assert effective(tmp_path)[0] == {RULES: ("yes", "/run/systemd/networkd.conf.d/90-run.conf", 2)}
    (tmp_path / "run/systemd/networkd.conf.d/90-run.conf").unlink()
    assert effective(tmp_path)[0] == {RULES: ("no", "/usr/lib/systemd/networkd.conf.d/80-release.conf", 2)}
    os.symlink("/dev/null", tmp_path / "etc/systemd/networkd.conf.d/80-release.conf")
    assert effective(tmp_path)[0] == {RULES: ("yes", "/usr/local/lib/systemd/networkd.conf.d/60-local.conf", 2)}


@pytest.mark.system
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_names_the_same_files_in_the_same_order(tmp_path: Path) -> None:
    for path, value in DROP_INS.items():
        write(tmp_path, path, f"[Network]\n{RULES}={value}\n")
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", f"--root={tmp_path}", "cat-config", "systemd/networkd.conf"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = [line.removeprefix(f"# {tmp_path}") for line in said.stdout.splitlines() if re.match("# /", line)]
    ours = ["/etc/systemd/networkd.conf", *_in_order(files_only(str(tmp_path)), "networkd.conf.d", ".conf", [])]
    assert files == ours


def test_network_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        "etc/systemd/network/20-b.network",
        "[Match]\nName=eth* !eth9\nName=\nName=en*\n[Link]\nUnmanaged=yes\n",
    )
    write(tmp_path, "usr/lib/systemd/network/10-a.network", "[Match]\nName=*\n[Network]\nKeepConfiguration=static\n")
    write(tmp_path, "run/systemd/network/10-a.network.d/keep.conf", "[Network]\nKeepConfiguration=yes\n")
    problems: list[str] = []
    assert list(_network_files(files_only(str(tmp_path)), problems)) == [
        NetworkFile("/usr/lib/systemd/network/10-a.network", ("*",), False, "yes"),
        NetworkFile("/etc/systemd/network/20-b.network", ("en*",), True, ""),
    ]
    assert problems == []


def test_names() -> None:
    assert matches(NetworkFile("", ("eth*", "kube-bridge"), False, ""), "kube-bridge")
    assert not matches(NetworkFile("", ("!eth*",), False, ""), "eth0")
    assert matches(NetworkFile("", ("!eth*",), False, ""), "tun-1")
