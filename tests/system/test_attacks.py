"""Ways to make janitor do harm, each on a real node: what a pod or a stranger did, and that it comes to nothing."""

from __future__ import annotations

import pytest

from tests.lab.networks import PORTMAP, dual_stack
from tests.lab.node import NodeFactory
from tests.system.test_traps import clean, kept_by_the_list_alone, remove_task

pytestmark = pytest.mark.system

FIREWALL = {"type": "firewall", "backend": "iptables"}


def test_04_the_del_of_a_dead_pod_leaves_the_rules_of_whoever_has_its_address_now(node: NodeFactory) -> None:
    """Somebody removed the IPv4 lease of a dead pod by hand; a new pod got it; the dead one's IPv6 lease is left."""
    machine = node(dual_stack("10.52.0.0/29", cni_version="0.4.0", chain=[PORTMAP, FIREWALL]))
    dead = machine.kubelet.run()
    second = next(address for address in machine.addresses() if ":" in address)
    kept_by_the_list_alone(machine, dead)
    remove_task(machine, dead)
    machine.lose_metadata()
    (machine.leases() / dead.ip).unlink()
    (machine.leases() / "last_reserved_ip.0").write_bytes(b"")  # host-local starts over, as it does in a small range
    pods = [machine.kubelet.run() for _ in range(4)]
    assert dead.ip in [pod.ip for pod in pods]

    def rules() -> list[str]:
        saved = machine.run(["iptables-save"], check=True).stdout
        return [line for line in saved.splitlines() if f"{dead.ip}/32" in line]

    before = rules()
    assert len(before) >= 2
    clean(machine)
    assert rules() == before
    # Without the DEL the dead pod's own rules stand, so its address is not given to anybody either.
    assert second in machine.addresses()
