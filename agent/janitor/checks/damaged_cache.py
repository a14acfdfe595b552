"""LEASE009: damaged entries of libcni's cache, which may keep a sandbox from ever being stopped."""

import re
from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import CacheEntry, Endpoint, Evidence, known
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.text import count, listing
from janitor.report.words import text

_SHOWN = 8
_READS_CACHE_ON_DEL = (0, 4)  # CNI spec 0.4.0 added prevResult to DEL; before that the cache is not read
_TOLERANT_CONTAINERD = (2, 0)  # has libcni 1.2 or newer, which skips an unreadable entry


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for the entries that keep a listed sandbox from being stopped, one for the rest."""
    damaged = [entry for entry in known(evidence.cache) if entry.damage]
    stuck = [e for e in damaged if e.container_id in judgement.sightings.sandboxes and _blocks(e, evidence)]
    harmless = [e for e in damaged if e not in stuck]
    if stuck:
        sandboxes = judgement.sightings.sandboxes
        pods = list(dict.fromkeys(str(sandboxes[e.container_id].pod) for e in stuck))
        yield Finding.of(
            id=FindingId.LEASE009,
            subject="/var/lib/cni/results",
            summary=f"{count(len(pods), 'sandbox', 'sandboxes')} can never be stopped: libcni's "
            "cache is damaged",
            evidence=(f"pods: {listing(pods)}", *_shown(stuck)),
            explanation=(
                "StopPodSandbox reads the cached result before CNI DEL, and fails forever if it cannot ('failed to "
                "get network … cached result: decoding version from network config'): the pod hangs in Terminating "
                "and its address is not released. The files were written without a sync shortly before a power cut "
                "(containernetworking/cni#1055)."
            ),
            fix=Fix.of(
                Command("janitor clean --only leases"), "; or by hand, while the pod is not running: ",
                Command.of("rm", *(e.path for e in stuck[:3])), " …" if len(stuck) > 3 else "",
            ),
        )  # fmt: skip
    if harmless:
        yield Finding.of(
            id=FindingId.LEASE009,
            subject="/var/lib/cni/results",
            summary=f"{count(len(harmless), 'damaged file')} in libcni's cache, harmless",
            evidence=_shown(harmless),
            explanation=(
                "No listed sandbox needs them, or they are not read: the network's cniVersion is below 0.4.0, or the "
                "runtime is containerd 2.x."
            ),
            fix=Fix.of("none is needed"),
            severity=Severity.INFO,
        )


def _shown(entries: list[CacheEntry]) -> tuple[str, ...]:
    more = len(entries) - _SHOWN
    return (
        *(f"{e.path}: {text(e.damage)}" for e in entries[:_SHOWN] if e.damage),
        *((f"and {more} more",) if more > 0 else ()),
    )


def _blocks(entry: CacheEntry, evidence: Evidence) -> bool:
    """Whether DEL fails on it. Unknown counts as yes: this is a warning, not an action."""
    if entry.network == "cni-loopback":
        return False  # containerd's own; measured on 1.6.20 and 1.7.24: stop and remove ignore it
    version = entry.cni_version or next(
        (n.cni_version for n in known(evidence.networks) if n.name == entry.network), ""
    )
    if version and _numbers(version) < _READS_CACHE_ON_DEL:
        return False
    return not all(_tolerant(endpoint) for endpoint in known(evidence.endpoints))


def _tolerant(endpoint: Endpoint) -> bool:
    return endpoint.runtime_name == "containerd" and _numbers(endpoint.runtime_version) >= _TOLERANT_CONTAINERD


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 4)
