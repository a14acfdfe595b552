"""A pod of the node's network that may change it: what it sends, and how fast, stops nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab.networkd import RoutedNode

pytestmark = pytest.mark.system

IN_A_POD = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
ALLOWED = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"]


@pytest.fixture
def routed() -> Iterator[RoutedNode]:
    with RoutedNode() as made:
        yield made


def lookups(node: RoutedNode) -> list[str]:
    return [line for line in node.rules().splitlines() if "lookup 77" in line]


# To the group of those who listen for rules: what is no rule, and one that there never was, deleted by networkd.
FORGED = """import socket, struct, sys
def attribute(kind, value): return struct.pack("=HH", 4 + len(value), kind) + value
rule = struct.pack("=8BI", 2, 0, 24, 0, 77, 0, 0, 1, 0)
rule += attribute(2, socket.inet_aton("10.244.0.0")) + attribute(6, struct.pack("=I", 4242))
rule += attribute(15, struct.pack("=I", 77)) + attribute(21, b"\\0\\0\\0\\0")
out = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
out.bind((0, 0))
for port in map(int, sys.argv[1:]):
    for kind, payload in ((32, rule), (33, rule), (33, b""), (32, b"\\2" + bytes(11) + attribute(15, b"x"))):
        out.sendto(struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, port) + payload, (0, 1 << 7))"""


def test_15_what_others_than_the_kernel_say_of_rules_is_not_heard(routed: RoutedNode) -> None:
    """Whoever may change the network may send to those who listen, with any port in the message."""
    routed.start_networkd()
    routed.kube_router()
    before = lookups(routed)
    watcher = routed.watch()
    networkd = routed.sh("cat /proc/net/netlink | awk '$2 == 0 && $3 > 0 { print $3 }'").split()
    routed.run([*IN_A_POD, *ALLOWED, sys.executable, "-c", FORGED, *networkd], check=True)
    time.sleep(1)
    assert "component failed" not in watcher.log()
    assert "4242" not in watcher.log()
    assert lookups(routed) == before
    routed.restart_networkd()
    watcher.wait_for('event="rule restored"', 2)
    assert lookups(routed) == before
