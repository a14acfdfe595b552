"""The rule of the boot stage: what may be freed before any container runtime has started. Pure.

At that moment no lease is alive, whoever wrote it, because no network namespace outlives a boot. Only ownership is left
to decide: a lease is freed only where CRI would have written it. `cloud-init/janitor-boot.sh` follows the same rule,
and tests/system/test_boot_table.py compares the two.

0. The data directory has no other node's mark, and no other node of the machine uses it (core/model/node_mark.py).
1. The directory belongs to a host-local network that CRI uses according to the configuration on the disk, without
   `disableGC`, not on a network file system, and its name is valid in CNI. A chain with the `firewall` plugin is left
   alone: the DEL of its old sandboxes is still to come, goes by address, and would cut off the next pod with that
   address. A network is left alone too if a file that cannot be parsed here mentions it: it may set either of these.
   Networks that multus delegates to inherit what the enclosing chain says.
2. Without any configuration, a directory counts as CRI's only if it holds nothing but complete CRI leases and
   bookkeeping, no other engine is known to use it, and libcni's cache remembers neither `disableGC` nor `firewall`
   for it. If the configuration is damaged, nothing is freed.
3. In such a directory: files that are named after an address and name a CRI sandbox; in case 1 also files that
   host-local never finishes like this, above all empty ones. Everything else stays.
4. Of libcni's cache: entries of these networks that are empty or all NUL. While such an entry exists, the runtime
   cannot stop its sandbox.

Ranges are not checked, and no limit like `max_per_pass` applies: these guard against errors about liveness, and nothing
is alive. A node that has filled up 65,000 addresses is repaired at once.
"""

import re
from dataclasses import dataclass
from typing import Final

from janitor.core.leases.file_identity import entry_file, identity_of
from janitor.core.leases.scope import shared
from janitor.core.model.action import Action, DiscardEntry, FreeLease, Plan, Refusal
from janitor.core.model.codes import Code
from janitor.core.model.evidence import CacheEntry, LeaseDirectory, Network, Unknown, known
from janitor.core.model.lease import CRI_ID, ParsedLease, parse_lease
from janitor.core.model.node_mark import Owner, another
from janitor.core.model.reason import Reason, because

NETWORK_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""containernetworking/cni, pkg/utils: other names are invalid."""

PLAIN_PATH: Final = re.compile(r"[a-zA-Z0-9_./@:+-]+")
"""Of a lease directory. Other paths are refused, because the shell script could not parse them safely."""

ENGINES: Final = frozenset({"podman", "bridge", "buildkit"})
"""Networks that podman, nerdctl and buildkit keep in the same data directory; podman's leases look like CRI's."""

_EARLY: Final = because(Code.BEFORE_ANY_RUNTIME)
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.@:]+")
_BLANK: Final = frozenset({Code.EMPTY, Code.CACHE_NULS})


@dataclass(frozen=True, slots=True)
class Configured:
    """CNI configuration at boot.

    `obscure`: texts that cannot be parsed and may be about `firewall` or `disableGC`. `absent`: there is no
    configuration at all, not even a damaged one.
    """

    networks: tuple[Network, ...] | Unknown
    obscure: tuple[str, ...] = ()
    absent: bool = False


def plan_at_boot(
    configured: Configured,
    directories: tuple[LeaseDirectory, ...],
    cache: tuple[CacheEntry, ...],
    node: tuple[Owner, ...],
) -> Plan:
    """What to move on `node`. A refusal says why a directory with possible candidates is left alone."""
    actions: list[Action] = []
    refusals: list[Refusal] = []
    others = {d.path: why for d in directories if (why := another(d.path.rpartition("/")[0], d.marks, node))}
    ours = [n for n in known(configured.networks) if n.directory not in others]
    networks = {n.name for n in ours if not _refused(n.directory, n.name, configured)}
    for directory in directories:
        found = [(file, parse_lease(file)) for file in known(directory.entries)]
        candidates = [(file, parsed) for file, parsed in found if parsed.shape in ("lease", "corrupt")]
        reason = _refused(directory.path, directory.network, configured)
        if other := shared(directory):
            reason = other
        elif directory.path in others:
            reason = others[directory.path]
        elif isinstance(directory.entries, Unknown):
            reason = directory.entries.reason
        elif not reason and isinstance(configured.networks, Unknown):
            reason = _mixed([parsed for _, parsed in found])
            if not reason:
                networks.add(directory.network)
        if reason:
            if candidates or isinstance(directory.entries, Unknown):
                refusals.append(Refusal(directory.path, (because(Code.LEASES_LEFT, reason, leases=len(candidates)),)))
            continue
        for file, parsed in candidates:
            proof = (*((parsed.note,) if parsed.note else ()), _EARLY, *_guessed(configured))
            actions.append(
                FreeLease(
                    directory.path, file.name, parsed.container_id, parsed.interface, "", proof,
                    file=identity_of(f"{directory.path}/{file.name}", file), ctime_ns=file.ctime_ns,
                )
            )  # fmt: skip
    actions += [_discard(entry) for entry in cache if _blocks(entry) and entry.network in networks]
    return Plan(tuple(actions), tuple(refusals))


def _refused(path: str, name: str, configured: Configured) -> Reason | None:
    """Why the leases of a directory must not be freed; None if they may be."""
    if not NETWORK_NAME.fullmatch(name):
        return because(Code.BAD_NETWORK_NAME)
    if not PLAIN_PATH.fullmatch(path):
        return because(Code.UNUSUAL_PATH)
    if any(name in text or "\\u" in text for text in configured.obscure):
        return because(Code.OBSCURE_CONFIGURATION)
    if isinstance(configured.networks, Unknown):
        if not configured.absent:
            return because(Code.CONFIGURATION_UNREADABLE)
        return because(Code.ANOTHER_ENGINE) if name in ENGINES or name.startswith("nerdctl") else None
    here = [network for network in configured.networks if network.directory == path]
    if not any(network.used_by_cri for network in here):
        return because(Code.NETWORK_NOT_NAMED)
    if any(network.disable_gc for network in here):
        return because(Code.BOOT_GC_DISABLED)
    if any("firewall" in network.plugins for network in here):
        return because(Code.FIREWALL_PLUGIN)
    return None


def _mixed(leases: list[ParsedLease]) -> Reason | None:
    """Without a configuration: why a directory may be somebody else's. None if all of it is CRI's."""
    whole = [p for p in leases if p.shape == "lease" and p.interface and not p.stuck]
    others = [p for p in leases if p.shape != "bookkeeping"]
    return None if len(whole) == len(others) else because(Code.NOT_ALL_CRI)


def _guessed(configured: Configured) -> tuple[Reason, ...]:
    if isinstance(configured.networks, Unknown):
        return (because(Code.NO_CONFIGURATION_BUT_CRI),)
    return ()


def _blocks(entry: CacheEntry) -> bool:
    named = CRI_ID.fullmatch(entry.container_id) and _INTERFACE.fullmatch(entry.interface)
    return bool(named) and entry.regular and entry.damage is not None and entry.damage.code in _BLANK


def _discard(entry: CacheEntry) -> Action:
    directory, _, name = entry.path.rpartition("/")
    proof = tuple(reason for reason in (entry.damage, _EARLY) if reason is not None)
    return DiscardEntry(
        directory, name, entry.container_id, entry.interface, "", proof,
        file=identity_of(entry.path, entry_file(entry)), ctime_ns=entry.ctime_ns,
    )  # fmt: skip
