"""Building the programs of tests/real where that cannot be done: one last line that says why, and an exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import programs
from tests.lab.cache import REPOSITORY, MissingError


def build(tmp_path: Path, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "JANITOR_LAB_CACHE": str(tmp_path / "cache"), **changed}
    argv = [sys.executable, "-m", "tests.lab.programs", *words]
    return subprocess.run(argv, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("go", "sentence"),
    [
        ("", "is needed and is not in PATH"),
        ("#!/bin/sh\necho go1.19.8\n", "PATH has go1.19.8"),
        ("#!/bin/sh\nexit 1\n", "PATH has one that does not start"),
    ],
)
def test_without_a_go_of_that_age(go: str, sentence: str, tmp_path: Path) -> None:
    if go:
        (tmp_path / "go").write_text(go)
        (tmp_path / "go").chmod(0o755)
    done = build(tmp_path, PATH=f"{tmp_path}:/nowhere")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "Go 1." in done.stderr
    assert sentence in done.stderr


def test_a_registry_that_does_not_answer_is_named_in_the_last_line(tmp_path: Path) -> None:
    if reason := programs.go_missing():
        pytest.skip(reason)
    # Nobody listens there; and no module has been fetched before.
    done = build(tmp_path, "--patience", "0", GOPROXY="http://127.0.0.1:1", GOMODCACHE=str(tmp_path / "modules"))
    assert done.returncode == 2
    assert "the Go module registry did not give the sources of plugins" in done.stderr.splitlines()[-1]
    assert "connection refused" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "cache").glob("real-*[0-9a-f]"))


def test_what_is_not_built_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANITOR_LAB_CACHE", str(tmp_path))
    reason = programs.missing(programs.KUBERNETES, programs.PLUGINS)
    assert reason is not None
    assert reason.startswith("not built: kubernetes, plugins of tests/real (")
    monkeypatch.setenv("PATH", "/nowhere")
    reason = programs.missing(programs.PLUGINS)
    assert reason is not None
    assert "go.dev/doc/install" in reason


def test_what_no_registry_has_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(programs.ELSEWHERE, raising=False)
    with pytest.raises(MissingError, match="crio, pinns: in no package registry; JANITOR_REAL must name"):
        programs.elsewhere("crio", "pinns")
    (tmp_path / "crio").touch()
    monkeypatch.setenv(programs.ELSEWHERE, str(tmp_path))
    with pytest.raises(MissingError, match="which lacks pinns"):
        programs.elsewhere("crio", "pinns")
    assert programs.elsewhere("crio") == [tmp_path / "crio"]


def test_each_module_pins_what_it_is_called_after() -> None:
    assert {module.name for module in programs.ALL} == {path.parent.name for path in programs.REAL.glob("*/go.mod")}
    for module in programs.ALL:
        assert module.version.count(".") == 2
        # The programs say this version, so it is in what the linker is told.
        assert module.version in module.link


def test_kubernetes_is_of_one_release() -> None:
    text = (programs.KUBERNETES.source / "go.mod").read_text()
    minor, patch = programs.KUBERNETES.version.split(".")[1:]
    replaced = [line.split() for line in text.splitlines() if " => " in line]
    assert len(replaced) > 30
    assert {words[-1] for words in replaced} == {f"v0.{minor}.{patch}"}


def test_the_documents_name_the_go_that_is_needed() -> None:
    wanted = ".".join(str(number) for number in max(module.go for module in programs.ALL))
    for name in ("README.md", "CONTRIBUTING.md"):
        assert f"Go {wanted}" in (REPOSITORY / name).read_text(), name


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_ci_says_so_in_its_first_line(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "sed", "sort", "tail", "head"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    argv = [str(tmp_path / "bash"), str(REPOSITORY / ".ci/run")]
    done = subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.startswith("the programs of tests/real are built with Go 1.")
    assert "PATH has none" in done.stdout
