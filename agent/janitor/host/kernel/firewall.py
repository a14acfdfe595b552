"""Which addresses the node's packet filter rules name. A dead pod's hostPort rules would lead to the next pod.

The kernel is asked, not a tool: so it does not matter which tool made a rule, or whether janitor can find that tool.
Both packet filters are read, nf_tables (nf_tables.py) and the older x_tables (x_tables.py), for IPv4 and IPv6. This
loads no module of x_tables; the kernel may load nf_tables itself. The search is for the kernel's form of an address,
four or sixteen aligned bytes. A counter or mask with the same bytes keeps a lease, which is the safe side. Standard
library only.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import unknown
from janitor.host.kernel import nf_tables, x_tables
from janitor.host.kernel.namespaces import in_network
from janitor.host.kernel.procfs import Proc, find_proc


def named_addresses(root: str, asked: Iterable[str]) -> frozenset[str] | Unknown:
    """Those of the addresses (canonical) that a rule of the node names. Unknown if the kernel does not tell."""
    patterns = {ip_address(address).packed: address for address in asked}
    proc = find_proc(root)
    if not isinstance(proc, Proc):
        return proc
    network = f"{proc.path}/1/ns/net"
    try:
        return frozenset(in_network(network, lambda: _named(patterns)))
    except OSError as error:
        return unknown(Code.CANNOT_READ_PACKET_FILTER, error)
    except ValueError as error:
        return unseen(Code.CANNOT_READ_PACKET_FILTER, error=str(error))


def _named(patterns: dict[bytes, str]) -> set[str]:
    found: set[str] = set()
    for data in _rules():
        found |= {address for packed, address in patterns.items() if address not in found and _holds(data, packed)}
    return found


def _rules() -> Iterator[bytes]:
    yield from nf_tables.rules()
    yield from x_tables.rules()


def _holds(data: bytes, packed: bytes) -> bool:
    """Whether the bytes occur where an address can begin: both kernel interfaces align addresses to four bytes."""
    at = data.find(packed)
    while at >= 0:
        if at % 4 == 0:
            return True
        at = data.find(packed, at + 1)
    return False
