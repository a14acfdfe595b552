"""`clean --fix networkd` on a real node: the drop-in, who overrules it and who is asked, and where it is of no use."""

from __future__ import annotations

import os
import pty
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import networkd
from tests.lab.networkd import RoutedNode
from tests.lab.node import JANITOR
from tests.system.test_clean_bad_input import heard
from tests.system.test_rules import findings

REASON = networkd.missing()
pytestmark = [pytest.mark.system, pytest.mark.skipif(REASON is not None, reason=REASON or "")]
FIX = ("clean", "--fix", "networkd")
PARTS = "/run/lab/parts"


@pytest.fixture(scope="module")
def shared() -> Iterator[RoutedNode]:
    """For the tests that leave it as it was; its networkd runs."""
    with RoutedNode() as made:
        made.start_networkd()
        yield made


@pytest.fixture
def node() -> Iterator[RoutedNode]:
    with RoutedNode() as made:
        yield made


def drop_in(node: RoutedNode) -> Path:
    return node.machine.root / "etc/systemd/networkd.conf.d/50-janitor.conf"


def test_the_drop_in(node: RoutedNode) -> None:
    node.kube_router()
    node.start_networkd()
    time.sleep(0.3)
    node.janitor("clean", "--yes", "--only", "rules")
    before = node.rules()
    assert findings(node) == ["RULE003"]
    done = node.janitor(*FIX, "--yes")
    assert done.returncode == 0, done
    assert "systemctl restart systemd-networkd" in done.stdout
    assert findings(node) == ["RULE004"]
    node.restart_networkd()
    time.sleep(0.4)
    assert node.rules() == before
    assert findings(node) == []
    file = drop_in(node)
    assert "ManageForeignRoutingPolicyRules=no" in file.read_text()
    # Again: it is there. Another one of that name: kept, and put back by undo.
    assert "already in place" in node.janitor(*FIX, "--yes").stdout
    file.write_text("[Network]\nManageForeignRoutes=yes\n")
    assert node.janitor(*FIX, "--yes").returncode == 0
    assert "1 change undone" in node.janitor("undo").stdout
    assert file.read_text() == "[Network]\nManageForeignRoutes=yes\n"
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")
    done = node.janitor(*FIX, "--yes")
    assert (done.returncode, "it is a symbolic link" in done.stdout, file.is_symlink()) == (1, True, True)


def test_a_drop_in_that_is_overruled_is_said_to_be(node: RoutedNode) -> None:
    node.kube_router()
    node.start_networkd()
    node.drop_in("[Network]\nManageForeignRoutingPolicyRules=yes\n", "99-vendor.conf")
    done = node.janitor(*FIX, "--yes")
    assert done.returncode == 1
    assert "/run/systemd/networkd.conf.d/99-vendor.conf:2 overrides /etc/" in done.stderr
    assert not drop_in(node).exists()


def test_it_is_shown_and_asked_for(shared: RoutedNode) -> None:
    shown = shared.janitor(*FIX, "--dry-run")
    assert shown.returncode == 1
    assert "    ManageForeignRoutingPolicyRules=no\n" in shown.stdout
    nobody = shared.janitor(*FIX, input="")
    assert (nobody.returncode, nobody.stdout) == (64, shown.stdout)
    assert (
        nobody.stderr
        == "janitor: cannot ask for confirmation, standard input is not a terminal: use --yes to make the change\n"
    )
    ours, its = pty.openpty()
    try:
        with shared.machine.popen([str(JANITOR), *FIX], stdin=its, stdout=its, stderr=its) as process:
            try:
                heard(ours, "Make this change? [y/N]: ")
                os.write(ours, b"n\n")
                heard(ours, "janitor: nothing was changed\r\n")
                assert process.wait(30) == 1
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(its)
    assert not drop_in(shared).exists()


@pytest.fixture
def parts(shared: RoutedNode) -> Iterator[str]:
    """As a container has it: of the node's directories those that janitor writes to, and /etc/systemd as well."""
    there = ("var/lib/janitor", "run/systemd", "etc/systemd")
    shared.sh(" && ".join(f"mkdir -p {PARTS}/{part} && mount --bind /{part} {PARTS}/{part}" for part in there))
    yield PARTS
    shared.sh(" && ".join(f"umount {PARTS}/{part}" for part in there))


def test_in_a_container_with_parts_of_the_node(shared: RoutedNode, parts: str) -> None:
    done = shared.janitor(*FIX, "--yes", "--root", parts)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"janitor: {parts} has only parts of the node: run this on the node, or where the node's / is mounted\n"
    )
    assert not drop_in(shared).exists()


def test_in_a_container_without_the_nodes_processes(shared: RoutedNode, parts: str) -> None:
    shared.sh(f"mount -t tmpfs lab {parts}/var/lib/janitor")
    done = shared.janitor(*FIX, "--yes", "--root", parts)
    shared.sh(f"umount {parts}/var/lib/janitor")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"janitor: looking at systemd-networkd: /proc is not that of the node at {parts}: "
        "its process 1 sees a different /var/lib/janitor; "
        "set hostPID: true for the pod, or check whether that directory was mounted again\n"
    )
    assert not drop_in(shared).exists()
