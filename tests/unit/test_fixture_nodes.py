"""`janitor scan --root` on whole nodes: what it says of each, against a file that somebody has read.

JANITOR_WRITE_GOLDEN=1 writes the files anew; read them before they are committed.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.lab.trees import SITUATIONS
from tests.unit.test_commands import janitor

GOLDEN = Path(__file__).parents[1] / "golden"
NOT_OURS = ("LEASE", "SCAN")  # leases are judged elsewhere, and no runtime answers here


def said(root: Path) -> dict[str, Any]:
    """What a scan says of the node, without leases and without what changes from one run to the next."""
    done = janitor("scan", "--root", str(root), "-o", "json", "--deadline", "0.5")
    assert done.returncode == 2, done.stderr  # no runtime answers, and that comes first, as always
    report = json.loads(done.stdout)
    mine = [f for f in report["findings"] if not f["id"].startswith(NOT_OURS)]
    text = json.dumps({"findings": mine, "skipped": report["skipped"]}, indent=1, ensure_ascii=False) + "\n"
    for number, pid in enumerate(sorted(p.name for p in (root / "proc").iterdir() if p.name.startswith("5000"))):
        text = text.replace(f"process {pid}", f"process {5_000_001 + number}")
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.mark.parametrize("name", SITUATIONS)
def test_scan(name: str, tmp_path: Path) -> None:
    SITUATIONS[name](tmp_path)
    found = said(tmp_path)
    file = GOLDEN / f"{name}.json"
    if os.environ.get("JANITOR_WRITE_GOLDEN"):
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("kubeadm-blanked", ["KUB001", "KUB002"]),
        ("kubeadm-correct", []),
        ("control-plane", []),
        ("hccm-twice", ["CIDR024", "HCCM001", "HCCM002"]),
        ("k3s-server", ["CIDR010"]),
        ("k3s-agent", []),
        ("rke2", ["CIDR003"]),
        ("k0s", ["CIDR007", "CNI002"]),
        ("docker-overlaps", ["CIDR016"]),
        ("plain", []),
    ],
)
def test_the_golden_files_say_what_they_are_for(name: str, ids: list[str]) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert sorted({f["id"] for f in golden["findings"]}) == ids
    assert "K10" not in json.dumps(golden)  # a token


def test_the_report_is_about_the_node_at_root(tmp_path: Path) -> None:
    SITUATIONS["plain"](tmp_path)
    (tmp_path / "etc/hostname").write_text("worker-9\n")
    done = janitor("scan", "--root", str(tmp_path), "-o", "json", "--only", "node", "--deadline", "0.5")
    assert json.loads(done.stdout)["node"] == "worker-9"


def test_no_secret_is_collected(tmp_path: Path) -> None:
    SITUATIONS["k3s-server"](tmp_path)
    done = janitor("collect", "--root", str(tmp_path), "--deadline", "0.5")
    assert b"K10" not in done.stdout
    assert b"(not kept)" in done.stdout


def test_links_that_lead_in_a_circle_and_yaml_that_refers_to_itself(tmp_path: Path) -> None:
    (tmp_path / "etc/cni/net.d").mkdir(parents=True)
    (tmp_path / "etc/cni/net.d/09-x.conf").symlink_to("09-x.conf")
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/cni").symlink_to("cni")
    config = tmp_path / "var/lib/kubelet/config.yaml"
    config.parent.mkdir(parents=True)
    bomb = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    config.write_text("\n".join(["kind: KubeletConfiguration", *bomb, "clusterDNS: *a9"]))
    done = janitor("scan", "--root", str(tmp_path), "-o", "json")
    assert (done.returncode, done.stderr) == (2, b"")
