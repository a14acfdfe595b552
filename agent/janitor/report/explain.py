"""`janitor explain ADDRESS`: everything known about one address, and what would free it."""

import textwrap
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from janitor.core.leases.judgement import Verdict
from janitor.core.leases.sightings import Sightings
from janitor.core.model.codes import Code
from janitor.core.model.reason import because
from janitor.core.model.text import duration, safe
from janitor.report.document import LeaseRow, Report
from janitor.report.words import text

_MEANING = {
    Verdict.LIVE: "in use; janitor keeps it",
    Verdict.HELD: "its sandbox is dead, but the kubelet has not removed it yet; janitor keeps it",
    Verdict.PENDING: "no owner was found, but it is not proven dead; janitor keeps it",
    Verdict.ORPHANED: "proven dead; 'janitor clean' frees it",
    Verdict.CORRUPT: "proven dead; 'janitor clean' frees it",
    Verdict.FOREIGN: "janitor does not manage it and never changes it",
    Verdict.MISSING: "in use, but not reserved: host-local may give it to a second pod",
}


def explain(report: Report, sightings: Sightings, address: str, width: int = 120) -> str:
    """The explanation as text, wrapped at `width` columns. `address` need not be leased."""
    found = [lease for lease in report.leases if lease.address == address]
    unseen = list(not_seen(report, sightings, address))
    blocks = [_lease(lease) for lease in found] or [_not_leased(report, sightings, address, blind=bool(unseen))]
    if unseen and not any(lease.unseen for lease in found):
        blocks[-1] += [f"  not seen   {reason}" for reason in unseen]
    return "\n\n".join("\n".join(_wrapped(line, width) for line in block) for block in blocks) + "\n"


def not_seen(report: Report, sightings: Sightings, address: str) -> Iterator[str]:
    """What could not be looked at, so that the statement about `address` stays uncertain."""
    yield from (finding.summary for finding in report.findings if finding.status == "unknown")
    if not any(lease.address == address for lease in report.leases):
        yield from (text(part.reason) for part in sightings.unseen_addresses)


def _wrapped(line: str, width: int) -> str:
    indent = " " * 13 if line.startswith("  ") else "  "
    return textwrap.fill(
        safe(line), max(width, 40), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _lease(lease: LeaseRow) -> list[str]:
    lines = [f"{lease.address} in {lease.network} is {lease.verdict}: {_MEANING[lease.verdict]}"]
    if lease.pod:
        lines.append(f"  pod        {lease.pod}")
    if lease.container_id:
        lines.append(f"  container  {lease.container_id} {lease.interface}".rstrip())
    exists = " (does not exist)" if lease.verdict is Verdict.MISSING else ""
    lines.append(f"  file       {lease.directory}/{lease.address}{exists}")
    lines += [f"  because    {reason.text}" for reason in lease.reasons]
    lines += [f"  not seen   {reason.text}" for reason in lease.unseen]
    lines.append(f"  freed by   {_freed_by(lease)}")
    return lines


def _freed_by(lease: LeaseRow) -> str:
    match lease.verdict:
        case Verdict.LIVE:
            who = f"deleting the pod {lease.pod}" if lease.pod else "stopping whatever uses it"
            return f"{who}, and nothing else"
        case Verdict.HELD:
            return "the kubelet, with StopPodSandbox and RemovePodSandbox (by hand: crictl stopp, crictl rmp)"
        case Verdict.PENDING if lease.unseen:
            return "nothing, until janitor can see what it could not see"
        case Verdict.PENDING if lease.provable_in_s:
            return f"'janitor clean', after watching it for {duration(lease.provable_in_s)} more"
        case Verdict.PENDING:
            return "nothing, while these reasons hold"
        case Verdict.ORPHANED | Verdict.CORRUPT:
            return "janitor clean"
        case Verdict.MISSING:
            return "deleting the pod; 'janitor clean' writes the lease back if it is still missing a minute later"
        case _:
            return "its owner"


def _not_leased(report: Report, sightings: Sightings, address: str, *, blind: bool) -> list[str]:
    """Calls an address free only if everything was looked at and nobody was seen using it."""
    users = [text(reason) for reason in sightings.address_alive.get(address, ())]
    claimant = sightings.claimed.get(address)
    if claimant is not None and claimant.ready:  # its sandbox may show the kernel no address at all (gVisor)
        users.append(text(because(Code.CLAIMED, pod=str(claimant.pod), state="READY")))
    return [_without_lease(report, address, in_use=bool(users), blind=blind), *(f"  because    {u}" for u in users)]


def _without_lease(report: Report, address: str, *, in_use: bool, blind: bool) -> str:
    networks = [network for network in report.networks if network.in_scope]
    for network in networks:
        where = f"{network.data_dir}/{network.name}"
        for part in network.ranges:
            if address in part.reserved:
                return f"{address} is {part.reserved[address]} in {network.name}: host-local never gives it to a pod"
            if any(ip_address(address) in ip_network(subnet) for subnet in part.subnets):
                without = f"{network.name} has no lease for it in {where}"
                if in_use:
                    return f"{address} is in use, but {without}: host-local may also give it to a pod"
                if blind:
                    return f"{address} may be free, but janitor could not see everything: {without}"
                return f"{address} is free: {without}"
    if blind:
        return f"no lease was found for {address}, but janitor could not see everything"
    unknown = [network for network in networks if not network.ranges]
    if unknown:
        return f"{address} is not leased; it may be in the range of {unknown[0].name}, which is not known"
    return f"{address} is not leased, and is in no range of a host-local network that CRI uses on this node"
