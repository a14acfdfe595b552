"""systemd/janitor.service: systemd understands it, it is as closed as it claims, and what it leaves open suffices."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from janitor.host.kubernetes import metadata
from tests.lab.cache import REPOSITORY
from tests.lab.daemon import Daemon
from tests.lab.node import NodeFactory
from tests.system.test_daemon import aged

UNIT = REPOSITORY / "systemd/janitor.service"
AIM = 3.0
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze"),
]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there on every machine."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/janitor/bin/janitor", "/bin/true"))
    return path


def test_systemd_understands_it(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "janitor" in line] == []


def test_it_is_closed(unit: Path) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for janitor.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) < AIM, done.stdout


def test_its_capabilities_suffice(node: NodeFactory) -> None:
    """Everything that it does on a node with orphans, with the unit's bounding set and without new privileges."""
    machine = node()
    live = machine.kubelet.run().ip
    aged(machine, 5)
    lines = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    wanted = ",".join(f"+{name.removeprefix('CAP_').lower()}" for line in lines for name in line.split())
    with Daemon(machine, ahead=100, before=("setpriv", "--no-new-privs", "--bounding-set", f"-all,{wanted}")) as daemon:
        daemon.wait_for("event=pass.*live=1 free=252")
        daemon.wait_for('event="watching rules"')
        log = daemon.log()
        assert log.count('event="lease freed"') == 5
        assert "pass incomplete" not in log
        assert "fail" not in log
        assert list(machine.addresses()) == [live]
        machine.kubelet.run()
        daemon.wait_for("event=pass.*live=2")
        assert daemon.metric("janitor_files_synced_total") >= 3


def test_it_may_ask_the_metadata_service() -> None:
    """Otherwise the daemon on a Hetzner server would report that the service does not answer (MD001)."""
    allowed = re.findall(r"^IPAddressAllow=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert {"localhost", metadata.ADDRESS} <= set(" ".join(allowed).split())
