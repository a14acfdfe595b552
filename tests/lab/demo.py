"""`make demo`: a node whose power is cut, what that leaves in its leases, and what janitor says about it.

On a real containerd where this machine allows it, and otherwise on the simulated one, which its first line says.
Exit 0, or that of `janitor scan` where it is neither "clean" (0) nor "findings" (1).
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.lab import node as real
from tests.lab.kubelet import Pod
from tests.lab.node import Node
from tests.lab.simulated import SimulatedNode

# No machine boots faster; and files written within two seconds of the runtime's start might be its own.
DARK = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--simulated", action="store_true", help="the simulated runtime, even where a real one is here")
    reason = "--simulated was given" if parser.parse_args().simulated else real.missing()
    if reason is not None:
        print(f"The container runtime of this demo is SIMULATED: {reason}.")
        with SimulatedNode() as simulated:
            return story(simulated)
    with Node() as node:
        print(f"A real containerd {node.containerd.version} with host-local, in namespaces of this machine.")
        return story(node)


def story(node: Node | SimulatedNode) -> int:
    node.boot()
    say("Three pods run, and have been for a while: their leases are on the disk.")
    for name in ("web-0", "web-1", "web-2"):
        node.kubelet.run(name, namespace="shop")
    orphan = leak(node)
    say(f"A fourth ended while its CNI DEL was skipped: {orphan} stays taken.")
    node.sync()
    new = [node.kubelet.run(name, namespace="shop") for name in ("api-0", "api-1", "api-2")]
    say("Three more have just started. Nobody has synced their leases.")
    node.cut()
    say("The power is cut. It comes back.")
    time.sleep(DARK)
    node.boot()

    for pod in node.kubelet.list():
        node.kubelet.stop(pod)
        node.kubelet.remove(pod)
    live = [node.kubelet.run(pod.name, namespace="shop") for pod in new]
    say("The kubelet has removed every old pod and started three again. Now the leases:")
    show(node, new[0])

    status = prompt(node, "scan")
    prompt(node, "explain", new[0].ip)
    prompt(node, "explain", orphan)
    prompt(node, "explain", live[0].ip)
    return 0 if status in (0, 1) else status


def leak(node: Node | SimulatedNode) -> str:
    """Leave a lease without a sandbox, as a skipped CNI DEL does; returns its address."""
    pod = node.kubelet.run("job-0", namespace="shop")
    lease = node.leases() / pod.ip
    content = lease.read_bytes()
    node.kubelet.stop(pod)
    node.kubelet.remove(pod)
    lease.write_bytes(content)
    lease.chmod(0o600)
    return pod.ip


def show(node: Node | SimulatedNode, example: Pod) -> None:
    """The directory as an administrator sees it: size and name."""
    print(f"\n$ wc -c /var/lib/cni/networks/{node.leases().name}/*")
    for address, content in node.addresses().items():
        print(f"{len(content):>4} {address}")
    if not node.addresses().get(example.ip, b"?"):
        say("Those of 0 bytes belong to nobody now, and no CNI DEL will ever match them.")


def prompt(node: Node | SimulatedNode, *words: str) -> int:
    print(f"\n$ janitor {' '.join(words)}", flush=True)
    done = node.janitor(*words)
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.write(done.stderr)
    return done.returncode


def say(sentence: str) -> None:
    print(f"# {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
