"""What is read of rules, links and routes: as the kernel has them, in a network namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

RULES = {  # what is given to ip-rule(8) -> how it reads here
    "from 10.0.0.0/8 to 10.9.0.0/16 lookup 77": "from 10.0.0.0/8 to 10.9.0.0/16 lookup 77",
    "not fwmark 0x1/0xff iif lo lookup 100000": "not from all fwmark 0x1/0xff iif lo lookup 100000",
    "fwmark 0x80000 lookup 5": "from all fwmark 0x80000 lookup 5",
    "tos 0x10 oif nosuch.1 blackhole": "from all tos 0x10 oif nosuch.1 blackhole",
    "ipproto tcp sport 1-5 dport 80 lookup 5": "from all ipproto 6 sport 1-5 dport 80-80 lookup 5",
    "uidrange 1-7 lookup 5": "from all uidrange 1-7 lookup 5",
    "suppress_prefixlength 0 lookup main": "from all suppress_prefixlength 0 lookup 254",
    "suppress_ifgroup 3 lookup main": "from all suppress_ifgroup 3 lookup 254",
    "tun_id 77 lookup main": "from all tun_id 77 lookup 254",
    "from 1.2.3.4 lookup 3 realms 1/2": "from 1.2.3.4/32 realms 65538 lookup 3",
    "goto 500": "from all goto 500",
    "unreachable": "from all unreachable",
    "prohibit": "from all prohibit",
    "nop": "from all nop",
    "l3mdev": "from all l3mdev lookup 0",
}
READ_RULES = """
from janitor.host.netlink import RuleSocket
for rule in RuleSocket().dump(): print(rule)
"""
COMPARE = """
import json, socket
from pyroute2 import IPRoute
from janitor.host import iproute
with IPRoute() as ip:
    links = sorted([m['index'], m.get_attr('IFLA_IFNAME'), m.get_nested('IFLA_LINKINFO', 'IFLA_INFO_KIND') or '',
        bool(m['flags'] & 1) and m.get_attr('IFLA_OPERSTATE') != 'DOWN',
        sorted(f"{a.get_attr('IFA_LOCAL') or a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}"
            for a in ip.get_addr(index=m['index']))]
        for m in ip.get_links())
    names = {m[0]: m[1] for m in links}
    routes = sorted([m['family'], m.get_attr('RTA_TABLE'),
        f"{m.get_attr('RTA_DST') or ('::' if m['family'] == 10 else '0.0.0.0')}/{m['dst_len']}",
        names.get(m.get_attr('RTA_OIF'), ''), m.get_attr('RTA_GATEWAY') or '', m['proto'], m['type']]
        for f in (2, 10) for m in ip.get_routes(family=f))
kinds = {v: k for k, v in iproute._KINDS.items()}
here = iproute.links()
ours = sorted([l.index, l.name, l.kind, l.up, sorted(l.addresses)] for l in here)
there = sorted([{4: 2, 6: 10}[r.family], r.table, r.destination, r.device, r.gateway, r.protocol, kinds[r.kind]]
    for r in iproute.routes(frozenset(range(1, 200000)), here))
probe = iproute.route_get('203.0.113.9', '10.9.0.5', 'b0')
none = iproute.route_get('203.0.113.9', '10.9.0.5', 'nosuch')
print(json.dumps([[links, routes], [ours, there], [probe.device, probe.table, probe.error], none.error]))
"""
NETWORK = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 || true
ip link set lo up; ip link add b0 type bridge; ip link set b0 up; ip link add v0 type veth peer name v1
ip link set v1 master b0; ip link set v0 up; ip link set v1 up; ip addr add 10.9.0.1/24 dev b0
ip addr add fd00::1/64 dev b0 nodad; ip addr add 10.8.0.1 peer 10.8.0.2/32 dev v0
ip route add 203.0.113.0/24 via 10.8.0.2 dev v0 onlink table 77; ip route add blackhole 198.51.100.0/24
ip route add default via 10.9.0.7 dev b0 metric 5; ip route add 192.0.2.0/24 dev v0 table 100000
ip -6 route add unreachable fd01::/64; ip -6 route add fd02::/64 via fd00::2 dev b0 table 300
ip rule add from 10.9.0.0/24 lookup 77
"""


def inside(shell: str, program: str) -> str:
    words = ["unshare", "--net", "sh", "-c", f'{shell}\nexec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_form_of_a_rule_reads_as_it_was_made() -> None:
    made = "\n".join(f"ip rule add {words} priority {100 + at}" for at, words in enumerate(RULES))
    six = "ip -6 rule add from fd00::/64 to ::ffff:0:0/96 lookup 9 priority 100"
    read = inside(f"set -e\n{made}\n{six}", READ_RULES).splitlines()
    wanted = [f"{100 + at}: {words}" for at, words in enumerate(RULES.values())]
    assert [line for line in read if "lookup 9" not in line][1 : len(wanted) + 1] == wanted
    assert "100: from fd00::/64 to ::ffff:0.0.0.0/96 lookup 9" in read


def test_links_and_routes_are_those_that_another_reader_finds() -> None:
    other, ours, probe, none = json.loads(inside(NETWORK, COMPARE))
    assert ours == other
    assert len(ours[0]) == 4
    assert len(ours[1]) > 12
    assert probe == ["v0", 77, ""]
    assert none == "no interface with this name"
