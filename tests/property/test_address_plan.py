"""The rules against a count of every single address in a small space; and no proposal that has a finding."""

from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from janitor.core.address_plan.check import examine
from janitor.core.address_plan.plan import KUBE_HETZNER, AddressPlan, NodeSubnet, PlannedNode, Stated, kube_hetzner
from janitor.core.address_plan.proposal import clean, propose

SPACE = int(IPv4Network("10.0.0.0/22").network_address)  # 1024 addresses, and every range of a plan in them
BITS = 10


@st.composite
def nets(draw: st.DrawFn, shortest: int = 23, longest: int = 28) -> str:
    prefix = draw(st.integers(shortest, longest))
    index = draw(st.integers(0, (1 << (prefix - 32 + BITS)) - 1))
    return str(IPv4Network((SPACE + (index << (32 - prefix)), prefix)))


ADDRESSES = st.integers(0, (1 << BITS) - 1).map(lambda n: str(IPv4Network(SPACE + n).network_address))


@st.composite
def plans(draw: st.DrawFn) -> AddressPlan:
    allocated = draw(st.booleans())
    pods, mask = draw(nets(22, 25)), draw(st.integers(24, 29))
    slots = [str(net) for net in IPv4Network(pods).subnets(new_prefix=max(mask, IPv4Network(pods).prefixlen))]
    nodes = tuple(
        PlannedNode(
            f"node-{i}",
            Stated(draw(ADDRESSES)),
            (draw(st.sampled_from(slots)),) if allocated and draw(st.booleans()) else (),
        )
        for i in range(draw(st.integers(0, 4)))
    )
    return AddressPlan(
        network=draw(st.none() | nets(22, 24).map(Stated)),
        pods=(Stated(pods),),
        services=(Stated(draw(nets())),),
        dns=draw(st.just(()) | ADDRESSES.map(lambda a: (Stated(a),))),
        subnets=tuple(NodeSubnet(f"subnet {i}", Stated(draw(nets(25, 28)))) for i in range(draw(st.integers(0, 3)))),
        nodes=nodes,
        node_mask=mask,
        max_pods=draw(st.sampled_from([4, 30, 110])),
        node_count=draw(st.integers(0, 14)),
        routes=draw(st.sampled_from([True, False, None])),
        hetzner=draw(st.booleans()),
        allocated=allocated,
    )  # fmt: skip


def every(net: str) -> frozenset[int]:
    """All addresses of a range, one by one."""
    return frozenset(int(address) for address in IPv4Network(net))


def counted(plan: AddressPlan) -> set[str]:
    """The verdicts, from sets of addresses alone: nothing of the rules' arithmetic is in this."""
    pods, services = every(plan.pods[0].value), every(plan.services[0].value)
    ordered = sorted(pods)
    size = 1 << (32 - plan.node_mask)
    slots = [frozenset(ordered[i : i + size]) for i in range(0, len(ordered), size)] if size <= len(ordered) else []
    nodes = {node.name: next(iter(every(f"{node.address.value}/32"))) for node in plan.nodes}
    given = {node.name: every(net) for node in plan.nodes for net in node.pods}
    joining = max(plan.node_count, len(nodes))
    first = slots[:joining]
    verdicts = set()
    if pods & services:
        verdicts.add("CIDR003")
    subnets = [every(s.cidr.value) for s in plan.subnets]
    used = [frozenset({a}) for a in nodes.values() if not any(a in s for s in subnets)] + subnets
    said: set[frozenset[int]] = set()
    if plan.allocated:
        if any(nodes[name] in mine for name, mine in given.items()):
            verdicts.add("CIDR004")
        if any(a in mine for name, a in nodes.items() for owner, mine in given.items() if owner != name):
            verdicts.add("CIDR005")
        said = {mine for mine in given.values() if any(a in mine for a in nodes.values())}
        if any(u & pods and not any(u & pods & mine for mine in said) for u in used):
            verdicts.add("CIDR006")
    else:
        said = {s for s in first if any(a in s for a in nodes.values())}
        if said:
            verdicts.add("CIDR004")
            if joining > 1:
                verdicts.add("CIDR005")
        left = [u & pods for u in used if u & pods]
        if any(not slots or any(s not in said for s in slots if s & u) for u in left):
            verdicts.add("CIDR006")
    if any(u & services for u in used) or services & set(nodes.values()):
        verdicts.add("CIDR007")
    if plan.network:
        network = every(plan.network.value)
        if not pods <= network:
            verdicts.add("CIDR008")
        if not services <= network:
            verdicts.add("CIDR009")
        if plan.hetzner and sorted(network)[1] in pods | services:
            verdicts.add("CIDR028")
    if plan.dns:
        (address,) = every(f"{plan.dns[0].value}/32")
        if address not in sorted(services)[2:-1]:
            verdicts.add("CIDR010")
    if slots and joining and len(slots) * 4 < joining * 5:
        verdicts.add("CIDR013")
    if slots and size - 3 < plan.max_pods:
        verdicts.add("CIDR015")
    if plan.hetzner and plan.routes and len(slots) > 100:
        verdicts.add("CIDR014")
    if not slots:
        verdicts.add("CIDR022")
    return verdicts


@given(plans())
@settings(max_examples=1000, deadline=None)
def test_the_rules_agree_with_a_count_of_every_address(plan: AddressPlan) -> None:
    assert {finding.id for finding in examine(plan)} == counted(plan)


@given(plans())
@settings(max_examples=150, deadline=None)
def test_no_proposal_has_a_finding_in_a_small_space(plan: AddressPlan) -> None:
    found = propose(plan)
    if found is not None:
        assert clean(found.plan)
        assert not counted(found.plan) - {"CIDR008", "CIDR009", "CIDR014"}  # all of them info: harmless here
        assert (found.plan.nodes, found.plan.subnets) == (plan.nodes, plan.subnets)
    else:
        assert not clean(plan)


PRIVATE = st.sampled_from(
    ["10.0.0.0/8", "10.20.0.0/16", "10.20.128.0/17", "172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/14"]
)
WIDE = st.builds(
    lambda a, prefix: str(IPv4Network((int(IPv4Network(a).network_address) & (-1 << (32 - prefix)), prefix))),
    st.sampled_from(["10.20.128.0", "10.42.0.0", "10.43.0.0", "172.31.0.0", "192.168.0.0", "100.64.0.0", "9.0.0.0"]),
    st.integers(9, 24),
)


@st.composite
def schemes(draw: st.DrawFn) -> AddressPlan:
    network = Stated(draw(PRIVATE))
    pools = tuple(tuple(draw(st.lists(st.integers(0, 5), max_size=4))) for _ in range(2))
    subnets, nodes = kube_hetzner(network, pools[0], pools[1])
    return AddressPlan(
        network, (Stated(draw(WIDE)),), (Stated(draw(WIDE)),), (), subnets, nodes, draw(st.integers(0, 120)),
        routes=draw(st.booleans()), hetzner=True, scheme=KUBE_HETZNER, pools=(pools[0], pools[1]),
    )  # fmt: skip


@given(schemes())
@settings(max_examples=80, deadline=None)
def test_no_proposal_has_a_finding_by_scheme(plan: AddressPlan) -> None:
    found = propose(plan)
    if found is None:
        return
    assert clean(found.plan)
    ranges = [IPv4Network(part.value) for part in (*found.plan.pods, *found.plan.services)]
    ranges += [IPv4Network(subnet.cidr.value) for subnet in found.plan.subnets]
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2) if one != other)


V6 = st.builds(
    lambda block, prefix: f"fd00:{block}::/{prefix}",
    st.sampled_from(["42", "43", "42:8000"]),
    st.sampled_from([48, 56, 64, 108, 112, 120]),
)


NODES = st.sampled_from(["", "fd00:42::7", "10.20.128.9"])


@given(st.tuples(WIDE, V6), st.tuples(WIDE, V6), st.booleans(), NODES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_proposal_has_a_finding_in_dual_stack(
    pods: tuple[str, str], services: tuple[str, str], turned: bool, node: str, single: bool
) -> None:
    plan = AddressPlan(
        pods=tuple(map(Stated, reversed(pods) if turned else pods)),
        services=tuple(map(Stated, services[:1] if single else services)),
        nodes=(PlannedNode("node", Stated(node)),) if node else (),
    )  # fmt: skip
    found = propose(plan)
    assert found is not None  # there is room everywhere
    assert clean(found.plan)
    families = [IPv4Network if "." in part.value else IPv6Network for part in found.plan.pods]
    assert families == [IPv4Network if "." in part.value else IPv6Network for part in found.plan.services]


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["10.0.0.0/8", "x", "", "::/0", "1.2.3.4/-1"]))
@settings(max_examples=300, deadline=None)
def test_any_words_are_judged(pods: str, services: str, network: str) -> None:
    plan = AddressPlan(Stated(network), (Stated(pods),), (Stated(services),), (Stated(pods),))
    examine(plan)
    propose(plan)
