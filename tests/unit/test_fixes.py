"""Fixes on a terminal: sentences are broken where it ends, and what is to be pasted stays on one line."""

import json
import re

import pytest

from janitor.report.fixes import fix_lines
from tests.lab.cache import REPOSITORY

KUBE_HETZNER = "kubectl -n kube-system rollout restart deployment hcloud-cloud-controller-manager"
FIXES = sorted(
    {
        f["fix"]
        for file in (REPOSITORY / "tests/golden").glob("*.json")
        for f in json.loads(file.read_text())["findings"]
    }
)


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("fix", FIXES)
def test_of_every_golden_node(fix: str, width: int) -> None:
    lines = fix_lines(fix, width)
    assert " ".join(" ".join(lines).split()) == " ".join(f"Fix: {fix}".split()), "nothing is lost"
    for option in re.findall(r"\S+ -{1,2}[a-z]\S*", fix):  # whatever takes options is a command
        if not option.startswith(("one ", "the ")):
            assert any(option in line for line in lines), f"{option} was broken"
    for command in re.findall(r"(?:systemctl|kubectl|apt-get|ip link) [^;:,.]+", fix):
        assert any(command.partition(" and ")[0] in line for line in lines)


def test_at_80_columns_only_commands_are_longer() -> None:
    longer = [line.strip() for fix in FIXES for line in fix_lines(fix, 80) if len(line) > 80]
    assert longer == [f"{KUBE_HETZNER}."]


@pytest.mark.parametrize(
    ("fix", "command"),
    [
        ("x " * 20 + "restart the pod: kubectl delete pod -n shop api-0; or wait", "kubectl delete pod -n shop api-0"),
        ("x " * 20 + "journalctl -u kubelet | grep -i -e csinode -e 'connection refused'",
         "journalctl -u kubelet | grep -i -e csinode -e 'connection refused'"),
        ("x " * 20 + "or by hand: crictl stopp ID && crictl rmp ID", "crictl stopp ID && crictl rmp ID"),
        ("x " * 20 + "rm /var/lib/cni/results/a-b-eth0 /var/lib/cni/results/c-d-eth0 …",
         "rm /var/lib/cni/results/a-b-eth0 /var/lib/cni/results/c-d-eth0 …"),
        ("in /etc/default/kubelet, add to KUBELET_EXTRA_ARGS: --a-long-flag=1 --node-ip 10.0.0.3 --b\nthen: reboot",
         "--a-long-flag=1 --node-ip 10.0.0.3 --b"),
        ('make /etc/default/kubelet with the line KUBELET_EXTRA_ARGS="--v=2 --node-ip 10.0.0.3"; then: reboot',
         'KUBELET_EXTRA_ARGS="--v=2 --node-ip 10.0.0.3"'),
        ("x " * 20 + "('janitor clean --only rules --dry-run' says why)", "'janitor clean --only rules --dry-run'"),
        ("by hand:\nip rule add from 10.244.0.0/24 lookup 77 priority 32765 protocol kernel # and so on",
         "ip rule add from 10.244.0.0/24 lookup 77 priority 32765 protocol kernel # and so on"),
    ],
)  # fmt: skip
def test_commands_in_sentences(fix: str, command: str) -> None:
    for width in range(20, 100):
        lines = fix_lines(fix, width)
        assert any(command in line for line in lines), lines
        assert width < 40 or len(lines) > 1 or len(lines[0]) <= width


def test_files_are_as_they_are() -> None:
    unit = (
        "[Unit]\nDescription=something that is long, longer than the terminal is wide; and so on\n\n[Mount]\nWhat=tmpfs"
    )
    assert fix_lines(f"Save this as /etc/systemd/system/x.mount\n{unit}", 40)[-5:] == [
        f"  {line}" for line in unit.splitlines()
    ]


def test_nothing_in_it_paints_the_terminal() -> None:
    assert fix_lines("rm /a\x1b[31m/b", 80) == ["  Fix: rm /a\\x1b[31m/b"]
