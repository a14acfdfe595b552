"""Rules about single values of an address plan: is it a range, and a permitted one (CIDR001, 002, 010, 017-022)."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from ipaddress import ip_address, ip_network

from janitor.core.address_plan.plan import Layout, Net, Range, Stated, host, overlap, parse, slot_count, within
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix

PRIVATE = tuple(ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
RESERVED = {
    ip_network("169.254.0.0/16"): "link-local addresses, including the metadata service",
    ip_network("127.0.0.0/8"): "the loopback",
    ip_network("224.0.0.0/4"): "multicast",
    ip_network("240.0.0.0/4"): "reserved, and not routed",
    ip_network("0.0.0.0/8"): "this host's own",
    ip_network("fe80::/10"): "link-local addresses",
    ip_network("ff00::/8"): "multicast",
    ip_network("::1/128"): "the loopback",
}
SHARED = ip_network("100.64.0.0/10")
HETZNER_GATEWAY = ip_network("172.31.1.1/32")
_SERVICE_HOST_BITS = 20


class Role(StrEnum):
    """What a range is for."""

    NETWORK = "network"
    PODS = "pod range"
    SERVICES = "Service range"


def roles(layout: Layout) -> Iterator[tuple[Role, Range]]:
    """The pod and Service ranges, each with its role."""
    yield from ((Role.PODS, part) for part in layout.pods)
    yield from ((Role.SERVICES, part) for part in layout.services)


def check(layout: Layout) -> Iterator[Finding]:
    """All rules of this file."""
    yield from _written(layout)
    yield from _families(layout)
    yield from _dns(layout)
    for role, part in roles(layout):
        yield from _usable(role, part, layout)
    for part in layout.services:
        yield from _service_size(part)
    for part in layout.pods:
        yield from _mask(part.net, part.stated, layout.plan.mask(part.net))


def _written(layout: Layout) -> Iterator[Finding]:
    plan = layout.plan
    values: list[tuple[Role | str, Stated]] = [(Role.NETWORK, plan.network)] if plan.network else []
    values += [(Role.PODS, value) for value in plan.pods]
    values += [(Role.SERVICES, value) for value in plan.services]
    values += [(f"subnet of {subnet.name}", subnet.cidr) for subnet in plan.subnets]
    for name, stated in values:
        net = parse(stated.value)
        if name is Role.NETWORK and plan.hetzner and net and net.version == 6:
            yield Finding.of(
                FindingId.CIDR001, name, f"network {stated.value} is IPv6, and Hetzner's networks are IPv4",
                (f"network: {stated}",), "The API takes IPv4 ranges only; a server's IPv6 addresses are public ones.",
                Fix.of("use a network inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"),
            )  # fmt: skip
        if net is None:
            yield _unreadable(name, stated, "a range like 10.42.0.0/16")
        elif str(net) != stated.value.strip().lower():
            host_bits = ip_address(stated.value.partition("/")[0].strip()) != net.network_address
            yield Finding.of(
                FindingId.CIDR001, name,
                f"{name} {stated.value}: {'host bits are set' if host_bits else 'not in canonical form'}",
                (f"{name}: {stated}", f"canonical form: {net}"),
                "Some components reject such a value and others use the range around it, so they disagree.",
                Fix.of(f"write {net}"),
                severity=Severity.ERROR if host_bits else Severity.INFO,
            )  # fmt: skip
    for stated in (*plan.dns, *(node.address for node in plan.nodes)):
        try:
            ip_address(stated.value.strip())
        except ValueError:
            yield _unreadable("address", stated, "an address like 10.43.0.10")


def _unreadable(name: str, stated: Stated, wanted: str) -> Finding:
    return Finding.of(
        FindingId.CIDR001, name, f"{name} '{stated.value}' is not valid", (f"{name}: {stated}",),
        "Components reject it, or read it as something else.", Fix.of(f"write {wanted}"),
    )  # fmt: skip


def _families(layout: Layout) -> Iterator[Finding]:
    """Pods, Services and nodes must have the same families, pods and Services in the same order (k3s#5781)."""
    pods, services = ([part.net.version for part in parts] for parts in (layout.pods, layout.services))
    nodes = {a.version for n, a in layout.nodes if not n.generated}
    evidence = [f"pods: {_named(pods)}", f"Services: {_named(services)}"]
    wrong = ""
    if any(len(set(families)) < len(families) for families in (pods, services)):
        wrong = "two ranges of one family"
    elif pods and services and pods != services:
        wrong = f"pods are {_named(pods)}, Services are {_named(services)}"
    elif pods and nodes and not nodes.issuperset(pods):
        wrong = f"pods are {_named(pods)}, but the nodes have {_named(sorted(nodes))} addresses only"
        evidence.append(f"nodes: {_named(sorted(nodes))}")
    if wrong:
        yield Finding.of(
            FindingId.CIDR002, "address families", f"address families do not match: {wrong}", tuple(evidence),
            "With dual-stack, pods, Services and nodes each need one range or address of each family, in the same "
            "order. Otherwise k3s refuses to start (k3s#5781), and other distributions start and then fail.",
            Fix.of("give pods and Services the same families in the same order, and each node an address of each"),
        )  # fmt: skip


def _named(versions: Sequence[int]) -> str:
    return " and ".join(f"IPv{version}" for version in versions) or "unstated"


def _dns(layout: Layout) -> Iterator[Finding]:
    for stated in layout.plan.dns:
        try:
            address = ip_address(stated.value.strip())
        except ValueError:
            continue
        mine = [part for part in layout.services if part.net.version == address.version]
        if not mine or address.is_link_local:  # a cache on each node (NodeLocal DNSCache) has 169.254.20.10
            continue
        net = mine[0].net
        wrong = ""
        if address not in net:
            wrong = f"is not in the Service range {net}"
        elif address == host(net, 0):
            wrong = f"is the first address of the Service range {net}, which no Service gets"
        elif address == host(net, 1):
            wrong = f"is the second address of the Service range {net}, which the Service 'kubernetes' has"
        elif net.version == 4 and address == host(net, -1):
            wrong = f"is the last address of the Service range {net}, which no Service gets"
        if wrong:
            yield Finding.of(
                FindingId.CIDR010, str(address), f"cluster DNS {address} {wrong}",
                (f"cluster DNS: {stated}", f"Service range: {mine[0].stated}"),
                "The DNS Service cannot get this address, so the DNS queries of pods are not answered. The usual "
                "cause is a default of 10.43.0.10 that was kept when the Service range was changed "
                "(kube-hetzner#1691).",
                Fix.of(
                    f"set the cluster DNS to {host(net, 10) or host(net, 2)}: cluster_dns_ipv4 of kube-hetzner; "
                    "cluster-dns in config.yaml of each k3s or RKE2 server, then restart it; elsewhere clusterDNS in "
                    "the kubelet's /var/lib/kubelet/config.yaml, and ",
                    Command("systemctl restart kubelet"),
                    ". Pods get it when they are recreated",
                ),
            )  # fmt: skip


def _usable(role: Role, part: Range, layout: Layout) -> Iterator[Finding]:
    net, evidence = part.net, (f"{role}: {part.stated}",)
    for reserved, what in RESERVED.items():
        if overlap(net, reserved):
            yield Finding.of(
                FindingId.CIDR017, str(net), f"{role} {net} overlaps {reserved}: {what}", evidence,
                "The kernel treats these addresses specially, whatever the routes say.",
                Fix.of("use a range inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"),
            )  # fmt: skip
    if layout.plan.hetzner and overlap(net, HETZNER_GATEWAY):
        yield Finding.of(
            FindingId.CIDR018, str(net), f"{role} {net} contains 172.31.1.1, Hetzner's gateway", evidence,
            "The default route of every Hetzner server goes through 172.31.1.1, and the API rejects routes that "
            "contain it.",
            Fix.of("use a range without 172.31.1.1, such as one inside 10.0.0.0/8"),
        )  # fmt: skip
    routed = layout.plan.hetzner and layout.plan.routes is not False
    public = role is Role.PODS and net.version == 4 and not any(within(net, block) for block in PRIVATE)
    shared = overlap(net, SHARED) is not None
    if shared and not (public and routed):  # else CIDR020 says more about the same fact
        yield Finding.of(
            FindingId.CIDR019, str(net), f"{role} {net} overlaps {SHARED} (carrier NAT, Tailscale)", evidence,
            "Tailscale and some providers use these addresses: a node that joins such a network loses routes.",
            Fix.of("use a range inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"),
        )  # fmt: skip
    if public and (routed or not shared) and not any(overlap(net, reserved) for reserved in RESERVED):
        yield Finding.of(
            FindingId.CIDR020, str(net),
            f"{role} {net} is not private address space (RFC 1918)", evidence,
            "Hetzner rejects such routes, and pods cannot reach the real owner of the addresses.",
            Fix.of("use a range inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"),
            severity=Severity.ERROR if routed else Severity.WARNING,
        )  # fmt: skip


def _service_size(part: Range) -> Iterator[Finding]:
    most = part.net.max_prefixlen - _SERVICE_HOST_BITS
    if part.net.prefixlen < most:
        yield Finding.of(
            FindingId.CIDR021, str(part.net), f"Service range {part.net} is larger than /{most}",
            (f"Service range: {part.stated}",),
            "kube-apiserver refuses to start: 'specified --service-cluster-ip-range is too large' (hcloud-k8s#383).",
            Fix.of(f"use a Service range of /{most} or smaller, such as {host(part.net, 0)}/{most}"),
        )  # fmt: skip


def _mask(net: Net, stated: Stated, mask: int) -> Iterator[Finding]:
    wrong = ""
    if mask > net.max_prefixlen:
        wrong = f"a node mask of /{mask} does not exist"
    elif mask < net.prefixlen:
        wrong = f"one node's /{mask} does not fit into it"
    elif net.version == 6 and mask - net.prefixlen > 16:
        wrong = f"a node mask of /{mask} makes more than 65536 slots"
    if wrong:
        yield Finding.of(
            FindingId.CIDR022, str(net), f"pod range {net}: {wrong}",
            (f"pod range: {stated}", f"node mask: /{mask}"),
            "kube-controller-manager exits when it starts: the node mask must be at least as long as the range's "
            "prefix, and for IPv6 at most 16 bits longer.",
            Fix.of(_better_mask(net)),
        )  # fmt: skip


def _better_mask(net: Net) -> str:
    """The usual mask if it fits; else the nearest that does, or a range for which it would."""
    usual = 24 if net.version == 4 else 64
    if net.version == 6 and usual - net.prefixlen > 16:
        return f"use a node mask of /{net.prefixlen + 16}, or a pod range of /{usual - 16} or smaller with /{usual}"
    if net.prefixlen < usual:
        return f"use a node mask of /{usual}: that makes {slot_count(net, usual)} slots"
    return f"use a larger pod range: this one fits one node at most; a /{usual - 8} fits 256 of /{usual}"
