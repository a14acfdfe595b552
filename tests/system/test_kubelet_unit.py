"""A real systemd: the kubelet incident from start to cure, and our parser of its files against systemd's."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from janitor.host.node import files_only
from janitor.host.systemd.systemd_units import read_unit
from tests.lab import systemd
from tests.lab.systemd import Systemd
from tests.lab.trees import KUBEADM_DROP_IN, KUBELET_UNIT

pytestmark = pytest.mark.system

JANITOR = str(Path(sys.executable).with_name("janitor"))
HCLOUD = '[Service]\nEnvironment="KUBELET_EXTRA_ARGS=--cloud-provider=external"\n'
CASES = 150


@pytest.fixture(scope="module")
def machine() -> Iterator[Systemd]:
    if reason := systemd.missing():
        pytest.skip(reason)
    with Systemd() as running:
        yield running


def findings(machine: Systemd, *, inside: bool) -> dict[str, Any]:
    """What a scan says about the kubelet: from inside, where systemd answers, or through --root, by its files."""
    words = [JANITOR, "scan", "-o", "json", "--only", "kubelet", "--deadline", "0.5"]
    if inside:
        text = machine.run(*words, check=False)
    else:
        text = subprocess.run([*words, "--root", machine.root], capture_output=True, text=True, check=False).stdout
    return {f["id"]: f for f in json.loads(text)["findings"] if f["id"].startswith("KUB")}


def test_the_incident(machine: Systemd) -> None:
    """kubernetes/autoscaler#8013: a drop-in sets the flag, the package's environment file takes it away."""
    lib = "/etc/systemd/system"  # /usr is this machine's; for systemd both are the same
    started = KUBELET_UNIT.replace("/usr/bin/kubelet", "/opt/kubelet").replace(
        "[Unit]", "[Unit]\nDefaultDependencies=no"
    )
    machine.write(
        f"{lib}/kubelet.service", started.replace("Wants=network-online.target\nAfter=network-online.target\n", "")
    )
    machine.write(f"{lib}/kubelet.service.d/10-kubeadm.conf", KUBEADM_DROP_IN.replace("/usr/bin/", "/opt/"))
    machine.write(f"{lib}/kubelet.service.d/20-hcloud.conf", HCLOUD)
    machine.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n")
    machine.write("/etc/kubernetes/kubelet.conf", "kind: Config\n")
    machine.write("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n")
    machine.write("/var/lib/kubelet/kubeadm-flags.env", 'KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.3 --v=2"\n')
    (machine.directory / "opt/kubelet").write_bytes(machine.standin.read_bytes())
    (machine.directory / "opt/kubelet").chmod(0o755)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "kubelet")

    before = machine.argv("kubelet")
    assert before[0] == "/opt/kubelet"
    assert "--node-ip=10.0.0.3" in before
    assert not any(word.startswith("--cloud-provider") for word in before)  # the incident
    unit = read_unit(files_only(machine.root), "kubelet.service")
    assert unit is not None
    assert list(unit.argv) == before

    for inside in (True, False):
        said = findings(machine, inside=inside)
        assert set(said) == {"KUB001", "KUB002"}
        assert "--cloud-provider=external" in said["KUB001"]["summary"]
        assert "/etc/default/kubelet sets it to nothing" in said["KUB002"]["summary"]

    time.sleep(1.2)  # what is changed within a second of the start may be older than it, by clock ticks
    # patch(1) takes the fix as it stands there, which the table indents, and the patch of the document.
    (alone,) = said["KUB002"]["fix"]["patches"]
    whole = "\n".join(f"  {line}" for line in said["KUB002"]["fix"]["text"].splitlines()) + "\n"
    for options, text in ((["--dry-run"], alone), ([], whole)):
        subprocess.run(
            ["patch", "-p1", "-d", str(machine.directory), *options],
            input=text, text=True, check=True, capture_output=True,
        )  # fmt: skip
    assert (machine.directory / "etc/default/kubelet").read_text() == "KUBELET_EXTRA_ARGS=--cloud-provider=external\n"
    assert set(findings(machine, inside=True)) == {"KUB001", "KUB005"}  # written, and not restarted yet

    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "kubelet")
    after = machine.argv("kubelet")
    assert after == [*before, "--cloud-provider=external"]
    assert findings(machine, inside=True) == {}
    assert findings(machine, inside=False) == {}

    # And what only systemd can say: its files have changed since it read them.
    machine.write(f"{lib}/kubelet.service.d/30-more.conf", "[Service]\nNice=1\n")
    stale = findings(machine, inside=True)["KUB005"]
    assert any("NeedDaemonReload=yes" in line for line in stale["evidence"])


PIECES = [" ", "  ", "\t", '"', "'", "\\", "\\\\", "$", "${", "}", "$$", "=", "#", ";", "a", "b c", "--flag=x",
          "--f='g h'", "\\n", "\\x41", "\\s", "A", "B", "%%", "é", "\\\n", "\\q", ",", "{", "`", "!"]  # fmt: skip
NAMED = [
    ('Environment="A=one two" B=three', ""),
    ("Environment=A=one two", ""),
    ("Environment='A=x' \"B=y z\"\nEnvironment=A=later", ""),
    ("Environment=A=gone\nEnvironment=\nEnvironment=B=kept", ""),
    ("Environment=A=inline", "A=\n"),
    ("Environment=A=inline", "A='quoted  spaces' # no comment\nB=x\\\n  y\n"),
    ("", "export A=1\n# comment \\\nB=swallowed?\n; C=2\nA=3\n"),
    ("", 'A="a\\"b\\\\c\\$d\\e"\nB=\'it\'s\n'),
    ("", 'A=unterminated \'quote\nB="x\ny"z \n'),
    ("", "A=trailing   \nB=  leading\n"),
    ("", "A=1\r\nB=2\r\n"),
    ("", "=x\nA\nB=ok\n A = spaced \n"),
    ('Environment="A=unbalanced\nEnvironment=B=ok', ""),
    ("Environment=A=a\\x20b B=c\\td", ""),
]
COMMANDS = [
    "$A ${B} x${A}y $$A $C", '"$A" \'${B}\' $A', "--a=$A --b=${B}", "${A}${B} $B", "a\\x20b \"c d\"e 'f'", "${C} $",
]  # fmt: skip


def generated() -> list[tuple[str, str, str]]:
    """Situations as (lines of the unit, environment file, arguments): by hand first, then by chance."""
    chance = random.Random(20260)

    def text(most: int) -> str:
        return "".join(chance.choice(PIECES) for _ in range(chance.randint(0, most)))

    found = [(unit, file, command) for unit, file in NAMED for command in COMMANDS[:3]]
    while len(found) < CASES:
        unit = "\n".join(f"Environment={text(3)}A={text(6)}" for _ in range(chance.randint(0, 2)))
        file = "\n".join(f"{chance.choice('AB')}={text(8)}" for _ in range(chance.randint(0, 3)))
        found.append((unit, file, f"{chance.choice(COMMANDS)} {text(5)}"))
    return found


def test_our_parser_agrees_with_systemd(machine: Systemd) -> None:
    situations = generated()
    names = [f"case{number}.service" for number in range(len(situations))]
    for name, (lines, file, command) in zip(names, situations, strict=True):
        machine.write(f"/etc/{name}.env", file)
        text = f"[Unit]\nDefaultDependencies=no\n[Service]\n{lines}\nEnvironmentFile=-/etc/{name}.env\n"
        machine.write(f"/etc/systemd/system/{name}", f"{text}ExecStart=/opt/standin {command}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", *names, check=False)
    shown = machine.run("systemctl", "show", "--property=Id,MainPID", *names).split("\n\n")
    pids = {
        p["Id"]: int(p["MainPID"]) for block in shown if (p := dict(x.split("=", 1) for x in block.splitlines() if x))
    }
    wrong, compared = [], 0
    for name, situation in zip(names, situations, strict=True):
        unit = read_unit(files_only(machine.root), name)
        ours = list(unit.argv) if unit else []
        directory = Path(f"{machine.root}/proc/{pids[name]}")
        theirs = []
        if pids[name]:
            theirs = (
                directory.joinpath("cmdline").read_bytes().decode("utf-8", "replace").removesuffix("\0").split("\0")
            )
            compared += 1
        if ours != theirs:
            wrong.append((situation, ours, theirs))
    assert compared > CASES // 2  # the rest is what systemd refuses, and so do we
    assert wrong == []


@pytest.mark.parametrize("mask", [False, True])
def test_drop_ins_of_one_name(machine: Systemd, mask: bool) -> None:
    """The one in the place of highest precedence is read; a link to /dev/null takes both away."""
    name = f"shadow{int(mask)}.service"
    place = f"/etc/systemd/system/{name}.d"
    machine.write(f"/run/systemd/system/{name}", "")  # an empty file masks nothing that lies higher
    machine.write(
        f"/etc/systemd/system/{name}", "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/opt/standin $A\n"
    )
    machine.write(f"/etc/systemd/system/{name}.d/50-b.conf", '[Service]\nEnvironment="A=from b"\n')
    inside = Path(machine.root)
    lower = inside / f"run/systemd/system/{name}.d"
    lower.mkdir(parents=True)
    (lower / "60-a.conf").write_text('[Service]\nEnvironment="A=from run"\n')
    upper = machine.directory / f"etc/systemd/system/{name}.d/60-a.conf"
    if mask:
        upper.symlink_to("/dev/null")
    else:
        upper.write_text('[Service]\nEnvironment="A=from etc"\n')
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", name)
    unit = read_unit(files_only(machine.root), name)
    assert unit is not None
    assert list(unit.argv) == machine.argv(name) == ["/opt/standin", "from", "b" if mask else "etc"]
    assert unit.shadowed == ((f"/run/systemd/system/{name}.d/60-a.conf", f"/etc/systemd/system/{name}.d/60-a.conf"),)
    theirs = machine.run("systemctl", "show", "--property=DropInPaths", "--value", name).split()
    assert list(unit.drop_ins) == [path for path in theirs if not (mask and path == f"{place}/60-a.conf")]
