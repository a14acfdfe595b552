"""Ways to make janitor do harm, each on a real node: what a pod or a stranger did, and that it comes to nothing."""

from __future__ import annotations

import json

import pytest

from tests.lab.daemon import Daemon
from tests.lab.networks import PORTMAP, dual_stack
from tests.lab.node import NodeFactory
from tests.system.test_traps import SOCKET, argv, clean, kept_by_the_list_alone, remove_task, until

pytestmark = pytest.mark.system

FIREWALL = {"type": "firewall", "backend": "iptables"}


def test_02_names_that_are_no_utf_8_end_nothing(node: NodeFactory) -> None:
    """Of a pod's mounts, namespaces, links, processes and sockets, which any pod gives them as it likes."""
    machine = node()
    pod = machine.kubelet.run()
    script = """
        name=$(printf 'a\\377b')
        mkdir "/run/$name"; mount -t tmpfs "$name" "/run/$name"
        ip netns add pinned; : >"/run/$name/$name"; mount --bind /run/netns/pinned "/run/$name/$name"
        ip -n pinned link add "$name" type bridge; ip netns del pinned
        mount -t tmpfs "$name" "/run/$name" # the pin is out of reach now, and in the table all the same
        for program in kubelet kube-router; do cp "$(readlink -f /bin/sh)" "/run/$name/$program"; done
        cd "/run/$name"
        KUBE_ROUTER_CNI_CONF_FILE="/run/$name/x" "/run/$name/kube-router" -c 'sleep 1000; :' "--$name" &
        # As a pod's process may call itself, and say of itself.
        exec env "$name=$name" "/run/$name/kubelet" -c 'sleep 1000; :' "--hostname-override=$name" "--node-ip=$name"
    """
    machine.popen(["bash", "-ec", script])
    until(lambda: any("/kubelet -c" in line for line in machine.machine.processes().values()), "it runs")
    here = ("--cri-endpoint", SOCKET)
    for words in (("scan", *here), ("scan", "--all", *here), ("explain", pod.ip, *here), ("clean", "--dry-run", *here)):
        done = machine.janitor(*words)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert done.returncode in (0, 1, 2), (words, done.stderr)
    evidence = machine.janitor("collect", *here)
    assert (evidence.returncode, evidence.stderr) == (0, ""), evidence.stderr
    json.loads(evidence.stdout)
    report = json.loads(machine.janitor("scan", "-o", "json", *here).stdout)
    assert {lease["address"]: lease["verdict"] for lease in report["leases"]} == {pod.ip: "live"}
    with Daemon(machine) as daemon:
        daemon.wait_for('event="pass incomplete"')
        assert "component failed" not in daemon.log()


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


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_05_stale_rules_are_found_though_no_iptables_can_be(node: NodeFactory, variant: str) -> None:
    """As on k3s, which brings an iptables of its own: the runtime finds it, and janitor's PATH has none."""
    machine = node()
    dead = machine.kubelet.run(host_ports={8080: 80})
    kept_by_the_list_alone(machine, dead)
    remove_task(machine, dead)
    machine.lose_metadata()
    for entry in machine.results.glob(f"*{dead.id}*"):
        entry.unlink()
    machine.run(["iptables", "-t", "nat", "-F"], check=True)
    rule = ["-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", f"{dead.ip}:80"]
    machine.run([f"iptables-{variant}", "-t", "nat", "-A", "PREROUTING", *rule], check=True)

    def cleans() -> str:
        done = machine.run(["env", "PATH=/run", *argv()], timeout=120)
        return " ".join((done.stdout + done.stderr).split())

    said = cleans() + cleans()
    assert "packet filter rules still contain its address" in said, said
    assert list(machine.addresses()) == [dead.ip]
    machine.run([f"iptables-{variant}", "-t", "nat", "-F"], check=True)
    cleans()
    assert machine.addresses() == {}
