"""Who makes policy rules: a process that ends, or refuses, while it is asked about."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from janitor.core.model.evidence import Unknown
from janitor.host import routing
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.whose import Whose
from janitor.host.node import node_with

ID, OTHER = "a" * 64, "b" * 64
PROFILE: Any = SimpleNamespace(alive=SimpleNamespace(process="kube-router", configuration=()))


@pytest.mark.parametrize("ended", [True, False])
def test_one_that_ends_while_it_is_asked_about_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """The kernel may say EACCES then. A pod may have any number of such, and call them what it likes."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/comm").write_text("kube-router\n")

    def refuses(_: object, pid: int) -> bool:
        if ended:
            shutil.rmtree(tmp_path / str(pid))
        raise PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/{pid}/ns/pid")

    monkeypatch.setattr(Whose, "makes_rules", refuses)
    found = routing.find_owners(node_with("/", Proc(str(tmp_path))), [PROFILE])
    assert found == () if ended else isinstance(found, Unknown)


def test_of_one_pod_few_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have any number; whoever is not in it is asked all the same."""
    for pid in range(1, 101):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / f"{pid}/comm").write_text("kube-router\n")
        pod = ID if pid < 100 else OTHER
        (tmp_path / f"{pid}/cgroup").write_text("0::/init.scope\n" if pid == 1 else f"0::/kubepods/{pod}\n")
    asked: list[int] = []
    monkeypatch.setattr(Whose, "makes_rules", lambda _, pid: asked.append(pid))
    assert routing.find_owners(node_with("/", Proc(str(tmp_path))), [PROFILE]) == ()
    assert (len(asked), asked[-1]) == (1 + 16 + 1, 100)
