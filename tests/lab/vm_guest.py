"""Inside the machine of vm.py: acts as the kubelet once per boot, and reports on the console.

At the first boot it starts pods and waits for the cut. At each later one it first stops and removes the old sandboxes,
and starts new pods last, so that their age at the next cut is known.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.lab.kubelet import Kubelet, Pod, RpcError

PODS = 4
_MARK = "LAB "
LEASES = Path("/var/lib/cni/networks/k8s-pod-network")
_RESULTS = Path("/var/lib/cni/results")


def say(**step: object) -> None:
    """Print one line for the host. The newline comes first because the console may be in the middle of another line."""
    print(f"\n{_MARK}{json.dumps(step)}", flush=True)


def leases() -> list[Path]:
    return [path for path in LEASES.glob("*") if path.name[0].isdigit()] if LEASES.is_dir() else []


def damaged(paths: list[Path]) -> int:
    """How many are empty or all NUL."""
    return sum(not path.read_bytes().strip(b"\0") for path in paths)


def gone(kubelet: Kubelet, pod: Pod) -> bool:
    try:
        kubelet.stop(pod)
        kubelet.remove(pod)
    except RpcError:
        return False
    return True


def _daemon() -> str:
    """systemd's state of the daemon; "" if there is none."""
    if not Path("/etc/systemd/system/janitor.service").exists():
        return ""
    return subprocess.run(["systemctl", "is-active", "janitor.service"], capture_output=True, text=True).stdout.strip()


def until_ready(kubelet: Kubelet) -> None:
    """Wait for the runtime and its network."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if kubelet.network_ready():
                return
        except RpcError:
            pass
        time.sleep(0.2)


def import_image() -> None:
    archive = "/var/lib/pause.tar"
    subprocess.run(["ctr", "-n", "k8s.io", "images", "import", "--snapshotter", "native", archive], check=True)


def main() -> None:
    kubelet = Kubelet(lambda: Path("/run/containerd/containerd.sock"), cgroup_parent="/pods")
    until_ready(kubelet)
    imported = Path("/var/lib/lab-imported")
    if not imported.exists():
        import_image()
        imported.touch()
        gone(kubelet, kubelet.run())  # the first one takes longest, under emulation
        subprocess.run(["sync"], check=True)
        for _ in range(PODS):
            kubelet.run()
        say(started=PODS)
        return
    old = [pod for pod in kubelet.list() if not pod.ready]
    found = leases()
    stock = {
        "old": len(old), "leases": len(found), "damaged": damaged(found),
        "damaged results": damaged(list(_RESULTS.glob("k8s-pod-network-*"))),
    }  # fmt: skip
    stuck = sum(not gone(kubelet, pod) for pod in old)
    new = [kubelet.run() for _ in range(PODS)]
    left = len({path.name for path in leases()} - {pod.ip for pod in new})
    journal = subprocess.run(["journalctl", "-b", "-o", "cat", "--no-pager"], capture_output=True, text=True).stdout
    about = [line for line in journal.splitlines() if "janitor-boot" in line]  # systemd's own too, such as a timeout
    said = [line for line in about if "before any container runtime of this boot" in line] or about[-1:]
    say(
        stock={
            **stock,
            "new": len({pod.ip for pod in new}),
            "stuck": stuck,
            "left": left,
            "said": said[0] if said else "",
            "daemon": _daemon(),
        }
    )


if __name__ == "__main__":
    main()
