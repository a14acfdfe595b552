"""Whether rules that are gone, and that nobody was seen to delete, were deleted by systemd-networkd.

Asked after our own restart, after events were lost, and where the deleter is out of sight. Then three things have to
come together, or the rule is only reported: networkd was at work in the time nobody watched, it has left nothing that
it would have deleted, and the owner of the rule is alive and has a use for it.
"""

from collections.abc import Sequence

from janitor.core.evidence import Unknown
from janitor.core.profiles import not_in_use, not_wanted
from janitor.core.prose import listing
from janitor.core.routing import Match, Networkd, Profile, Routing
from janitor.core.rules import RTPROT_STATIC, PolicyRule

DYNAMIC_S = 600
"""How old a note of rules may be that come and go with pods."""


def missing_evidence(
    rule: PolicyRule,
    profile: Profile,
    match: Match,
    routing: Routing,
    configured: tuple[str, ...],
    before: Sequence[PolicyRule],
    there: Sequence[PolicyRule],
    since_ns: int,
    now_ns: int,
    *,
    blind: bool = False,
) -> tuple[str, ...]:
    """What speaks against networkd, or is not known; nothing if all speaks for it.

    `before` are all foreign rules as they were at `since_ns` (since the epoch, as `now_ns`), `there` what is there now.
    `blind`: the host's processes cannot be seen.
    """
    reasons: list[str] = []
    if profile.dynamic and now_ns - since_ns > DYNAMIC_S * 1_000_000_000:
        reasons.append(
            f"the note of it is older than {DYNAMIC_S} s, and rules of {profile.title} come and go with pods"
        )
    if isinstance(routing.networkd, Unknown):
        reasons.append(f"whether systemd-networkd was at work is not known: {routing.networkd.reason}")
    elif not any(at_work_since(networkd, since_ns) for networkd in routing.networkd):
        reasons.append("systemd-networkd has neither started nor configured a link since")
    present = {one.exact for one in there}
    # What a .network file declares is `proto static`; networkd keeps that.
    still = [one for one in before if one.foreign and one.protocol != RTPROT_STATIC and one.exact in present]
    if still:
        left = listing([str(one) for one in still])
        reasons.append(f"systemd-networkd would have deleted all foreign rules, and these are left: {left}")
    reasons += not_wanted(rule, profile, match, routing, configured)
    reasons += not_in_use(profile, routing, blind=blind)
    return tuple(dict.fromkeys(reasons))


def at_work_since(networkd: Networkd, since_ns: int) -> bool:
    """Whether it has started, or has configured a link (it rewrites that link's state then), since that time."""
    started = networkd.pid and networkd.started_ns > since_ns
    return bool(started) or any(link.changed_ns > since_ns for link in networkd.links)
