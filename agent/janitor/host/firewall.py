"""Which addresses the node's packet filter rules name: a dead pod's hostPort rules would lead to the next pod.

Asked for only before something is freed: listing the rules of iptables-legacy may load a kernel module. Where a tool is
not installed it has made no rule either: the CNI plugins that make such rules run these very programs (portmap,
firewall and bridge of containernetworking/plugins), so its absence is no Unknown. Standard library only.
"""

import re
import subprocess
from ipaddress import ip_address
from typing import Final

from janitor.core.evidence import Unknown
from janitor.host.files import unknown
from janitor.host.namespaces import in_network
from janitor.host.procfs import Proc, find_proc, node_root

_LISTINGS: Final = (("iptables-save",), ("ip6tables-save",), ("nft", "--numeric", "list", "ruleset"))
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:]+)(?![\w.])")
_TIMEOUT_S = 30


def named_addresses(root: str) -> frozenset[str] | Unknown:
    """Every address in any rule, canonical. Unknown where a tool that is there fails; empty where there is none."""
    proc = find_proc(root)
    if not isinstance(proc, Proc):
        return _named(root)
    try:
        return in_network(f"{proc.path}/1/ns/net", lambda: _named(root))
    except OSError as error:
        return unknown("entering the node's network namespace, to list the packet filter's rules", error)


def _named(root: str) -> frozenset[str] | Unknown:
    programs = node_root(root)
    found: set[str] = set()
    for words in _LISTINGS:
        argv = words if root == "/" else ("chroot", programs, *words)
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            continue
        except (OSError, subprocess.TimeoutExpired) as error:
            return Unknown(f"listing the packet filter's rules with {words[0]}: {error}")
        if done.returncode == 127 and root != "/":
            continue  # chroot's way of saying that there is no such program
        if done.returncode != 0:
            return Unknown(f"listing the packet filter's rules with {words[0]}: {done.stderr.strip()[:200]}")
        # `--to-destination 10.52.0.3:80` and `[fd00::3]:80`: the port is not of the address.
        text = re.sub(r"(\d\.\d+):\d+", r"\1", done.stdout.replace("[", " ").replace("]:", " "))
        for word in _ADDRESS.findall(text):
            try:
                found.add(str(ip_address(word)))
            except ValueError:
                continue
    return frozenset(found)
