"""RULE003 to RULE006: what systemd-networkd will do next to the rules, routes and links of the pods' network."""

import re
from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import NEW_LINE, Command, File, Fix, Part, Snippet
from janitor.core.model.routing import Link, Networkd, Routing
from janitor.core.model.text import count, listing
from janitor.core.rules.networkd import (
    DROP_IN,
    ROUTES,
    RULES,
    configures,
    drop_in_text,
    has_opt_out,
    is_off,
    keeps_everything,
    overruled_by,
    restart_pending,
    setting,
    wipes,
)
from janitor.core.rules.profiles import OwnersSeen, configured_ranges, known_rules, running_owners
from janitor.core.rules.rule_plan import gone_rules

_OWN = (2, 4, 9, 16)  # kernel, static, ra, dhcp: routes that networkd makes itself, or leaves alone


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """At most one finding per ID; none if networkd does nothing on this node."""
    routing = evidence.routing
    for networkd in known(routing.networkd):
        if not (networkd.pid or networkd.links) or not wipes(networkd.version) or keeps_everything(networkd):
            continue
        threatened = _threatened(routing, configured_ranges(routing, evidence.networks))
        if threatened:
            yield from _rules(threatened, networkd)
        yield from _greedy(routing, networkd)
        yield from _routes(routing, networkd)


def _threatened(routing: Routing, configured: tuple[str, ...] | Unknown) -> list[str]:
    """The rules that a profile matches; if they are gone already, those that should exist."""
    rules = [str(rule) for rule in known_rules(routing)]
    return rules or [f"{gone.rule.words} (again)" for gone in gone_rules(OwnersSeen(routing, configured))]


def _rules(threatened: list[str], networkd: Networkd) -> Iterator[Finding]:
    if is_off(networkd, RULES):
        if restart_pending(networkd, RULES):
            found = setting(networkd, RULES)
            where = f"{found.file}:{found.line}" if found else ""
            yield Finding.of(
                id=FindingId.RULE004,
                subject="systemd-networkd",
                summary="systemd-networkd is configured to leave rules alone, but has not been restarted since",
                evidence=(f"{where}: {RULES}=no", f"process {networkd.pid} started before that was written"),
                explanation=(
                    "systemd-networkd reads networkd.conf and its drop-ins only when it starts. Until it is "
                    "restarted, it still deletes every foreign rule when a link appears or is reconfigured. The "
                    "restart itself deletes no rules; for routes, see RULE005."
                ),
                fix=Fix.of(Command("systemctl restart systemd-networkd")),
            )
        return
    opt_out = has_opt_out(networkd.version)
    said = setting(networkd, RULES)
    yes = f"{said.file}:{said.line}: {RULES}=yes" if said else f"no file sets {RULES}, and it is on by default"
    yield Finding.of(
        id=FindingId.RULE003,
        subject="systemd-networkd",
        summary="systemd-networkd will delete the pods' policy rules when it next configures a link",
        evidence=(
            f"systemd-networkd {networkd.version or 'of unknown version'}: {yes}",
            f"it would delete: {listing(threatened)}",
            *networkd.setting_problems,
        ),
        explanation=(
            "It deletes every rule that is not `proto kernel` when it starts, on `networkctl reconfigure`, on a "
            "reload with a changed file (netplan apply), and when a link appears. Unattended package upgrades restart "
            "it (k0sproject/k0s#5623, systemd/systemd#22077)."
        ),
        fix=_telling(networkd, opt_out),
    )


def _telling(networkd: Networkd, opt_out: bool | None) -> Fix:
    """How to make networkd leave rules alone; if its version cannot, how to keep it from deleting these."""
    change = Command("janitor clean --fix networkd")
    if opt_out is True and overruled_by(networkd):
        return Fix.of(f"change the setting in {overruled_by(networkd)}, which is read after {DROP_IN}")
    if opt_out is True:
        return Fix.of(
            change, f", or save this as {DROP_IN}:", File(DROP_IN, drop_in_text(networkd.version)),
            "It takes effect when systemd-networkd next starts; that start deletes no rules and no routes",
        )  # fmt: skip
    pinning: tuple[str | Part, ...] = (
        "this version has no setting for that; pin the rules in janitor.toml: ",
        Snippet('[rules.protocol] kube-router = "kernel"'),
    )
    newer = (NEW_LINE, "or, if it is 247.10, 248.8 or newer, the drop-in of '", change, "'") if opt_out is None else ()
    return Fix.of(*pinning, *newer)


def _routes(routing: Routing, networkd: Networkd) -> Iterator[Finding]:
    if is_off(networkd, ROUTES) and not restart_pending(networkd, ROUTES):
        return
    if not any(running_owners(profile, routing) for profile in routing.profiles):
        return
    managed = {link.name for link in known(routing.links) if configures(networkd, link)}
    routes = [r for r in known(routing.routes) if r.device in managed and r.protocol not in _OWN and r.destination]
    default = any(route.destination in ("0.0.0.0/0", "::/0") for route in routes)
    if routes:
        yield Finding.of(
            id=FindingId.RULE005,
            subject="systemd-networkd",
            summary=(
                f"systemd-networkd will also delete {count(len(routes), 'route')} of "
                f"others{', including the default route' * default}"
            ),
            evidence=(listing([f"{r.destination} dev {r.device} proto {r.protocol}" for r in routes]),),
            explanation=(
                "systemd-networkd deletes routes on the links that it manages when it configures them. kube-router "
                "adds its own again within a minute; until then pods on other nodes cannot be reached."
            ),
            fix=Fix.of(f"the same drop-in as for RULE003 ({DROP_IN}), with ", Snippet(f"{ROUTES}=no")),
            severity=Severity.WARNING if default else Severity.INFO,
        )


def _greedy(routing: Routing, networkd: Networkd) -> Iterator[Finding]:
    patterns = [p.alive.link for p in routing.profiles if p.alive.link and running_owners(p, routing)]
    links = [link for link in known(routing.links) if _of_the_pods(link, patterns)]
    taken = [(link, file) for link in links if (file := configures(networkd, link))]
    if taken:
        yield Finding.of(
            id=FindingId.RULE006,
            subject=taken[0][1],
            summary=f"systemd-networkd manages links of the pod network: {listing([link.name for link, _ in taken])}",
            evidence=tuple(f"{link.name} is configured by {file}" for link, file in taken),
            explanation=(
                "Its [Match] matches more than the node's own interfaces, so systemd-networkd also removes addresses "
                "and routes from kube-bridge and the tunnels, including those of table 77."
            ),
            fix=Fix.of(
                "Narrow the Name= in that file, or save this as /etc/systemd/network/05-pods.network, then ",
                Command("networkctl reload"),
                ":",
                File(
                    "/etc/systemd/network/05-pods.network",
                    "[Match]\nName=kube-bridge tun-* veth*\n[Link]\nUnmanaged=yes",
                ),
            ),
        )


def _of_the_pods(link: Link, patterns: list[str]) -> bool:
    return bool(patterns) and (link.name == "kube-bridge" or any(re.fullmatch(p, link.name) for p in patterns))
