"""kube-router with ipip tunnels, on the machine of vm.py: Debian's kernel has ipip, a host's kernel may not.

Run `python -m tests.lab.vm_kube_router` by hand, after `make real`. The guest (vm_kube_router_guest.py) is node 1, with
its own systemd and networkd; node 2 is namespaces in it. Tunnels, routes and rules are kube-router's own. Times are
those of an emulated machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.lab import programs, vm_disk
from tests.lab.cache import REPOSITORY
from tests.lab.kube_router import ADDRESSES, PODS, PODS_V6
from tests.lab.vm import Machine

PACKAGES = ("etcd-server", "ipset", "openssl")
PROGRAMS = ((programs.KUBERNETES, ("kube-apiserver", "kubectl")), (programs.KUBE_ROUTER, ("kube-router",)))
_LONGEST_S = 3600.0
_UNITS = ("etcd.service", "containerd.service", "systemd-networkd-wait-online.service")  # not wanted


def missing() -> str | None:
    """Why this cannot run here, or None."""
    return vm_disk.missing() or programs.missing(*(module for module, _ in PROGRAMS))


def furnish(root: Path) -> None:
    """Install the programs and janitor where the lab's modules look for them, and the guest program."""
    repository = root / "opt/repository"
    shutil.copytree(REPOSITORY / "tests/real", repository / "tests/real", ignore=shutil.ignore_patterns("__pycache__"))
    for module, names in PROGRAMS:
        directory = repository / ".cache/lab" / module.directory.name
        directory.mkdir(parents=True)
        for name in names:
            shutil.copy(module.directory / name, directory)
    (root / "usr/bin/janitor").write_text(vm_disk.DAEMON)
    (root / "usr/bin/janitor").chmod(0o755)
    (root / "etc/systemd/system/lab.service").write_text(vm_disk.PLAY.format("vm_kube_router_guest"))
    subprocess.run(["systemctl", f"--root={root}", "mask", *_UNITS], check=True, capture_output=True)


def play() -> dict[str, Any]:
    """The guest's report, by its steps."""
    with tempfile.TemporaryDirectory(prefix="janitor-vm-") as directory:
        machine = Machine(vm_disk.Base(Path(directory), ("without",), PACKAGES, furnish), "without")
        try:
            machine.boot("begun")
            return machine.wait_for("over", _LONGEST_S)
        finally:
            machine.cut()


def wrong(said: dict[str, Any]) -> list[str]:
    """The expectations that failed."""
    tunnel = next((line.split()[1] for line in said["tunnels"] if line.startswith("ipip ")), "none")
    by_tunnel, rules = f" dev {tunnel} ", said["rules"]
    log = [line for line in said["janitor's log"] if 'event="rule restored"' in line]
    wanted = {
        "an ipip tunnel": tunnel.startswith("tun-"),
        "its route in table 77": any(f"{ADDRESSES[1]}{by_tunnel}" in line for line in said["routes"]),
        "a rule for each family": [line.split()[2] for line in rules] == [PODS[0], PODS_V6[0]],
        "pods' packets go through the tunnel": by_tunnel in said["path"],
        "networkd deletes the rules": said["rules after a restart of networkd"] == [],
        "they stay away": said["rules 65 s later"] == [] and said["kube-router's syncs meanwhile"] > 0,
        "pods' packets do not": " dev eth0" in said["path 65 s later"],
        "the routes stay": said["routes 65 s later"] == said["routes"],
        "started anew it makes them": said["rules after kube-router was started anew"] == rules,
        "janitor restores them": said["rules after a restart of networkd with janitor"] == rules,
        "each once, after networkd": sum('deleted_by="systemd-networkd' in line for line in log) == len(rules),
        "byte by byte": said["same bytes"],
        "pods' packets go through it again": by_tunnel in said["path with janitor"],
    }
    return [what for what, well in wanted.items() if not well]


def main() -> None:
    """Print the guest's report; exit 1 if an expectation failed."""
    if reason := missing():
        sys.exit(reason)
    began = time.monotonic()
    said = play()
    for step, value in said.items():
        several = isinstance(value, list) and any(isinstance(line, str) for line in value)
        print(f"{step}:", *(value if several else [value]), sep="\n  " if several else " ")
    print(f"took {time.monotonic() - began:.0f} s")
    bad = ["it did not come to its end"] if "failed" in said else wrong(said)
    sys.exit(f"not as it should be: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
