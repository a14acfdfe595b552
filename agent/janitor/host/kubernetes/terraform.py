"""The address plan in a kube.tf: assignments of literals, and nothing that Terraform would have to evaluate.

Parses a small part of HCL: strings, numbers, lists, objects and comments. Any other value is an expression. If the plan
depends on one, the error gives its line. Standard library only.
"""

import re
from dataclasses import dataclass
from typing import Final

from janitor.core.address_plan.plan import KUBE_HETZNER
from janitor.core.model.evidence_node import Setting

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<newline>\n)
      |(?P<heredoc><<[-~]?(?P<tag>\w+)\n.*?\n\s*(?P=tag)\b)
      |(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>[A-Za-z_][\w-]*)|(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_DEFAULTS: Final = {
    "network_ipv4_cidr": "10.0.0.0/8",
    "cluster_ipv4_cidr": "10.42.0.0/16",
    "service_ipv4_cidr": "10.43.0.0/16",
}
_KEYS: Final = {
    "network_ipv4_cidr": "network",
    "cluster_ipv4_cidr": "cluster-cidr",
    "service_ipv4_cidr": "service-cidr",
    "cluster_dns_ipv4": "cluster-dns",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Expression:
    """Something that only Terraform can evaluate."""

    line: int


Value = str | int | list["Value"] | dict[str, "Value"] | Expression


def settings(text: str, source: str, given: frozenset[str] = frozenset()) -> tuple[Setting, ...]:
    """The address plan of a kube.tf, with kube-hetzner's defaults for what it leaves out.

    `given` are options that were specified elsewhere: they may be expressions in the file. ValueError if the file has
    no kube-hetzner module, more than one, or one that cannot be understood.
    """
    try:
        found = _module(_tokens(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    result = [Setting(KUBE_HETZNER, "scheme", KUBE_HETZNER, source)]
    for name, key in _KEYS.items():
        value = found.get(name)
        if key in given:
            continue
        if isinstance(value, Expression):
            raise ValueError(f"line {value.line}: {name} is an expression; give its value with --{_flag(key)}")
        if value is None and name in _DEFAULTS:
            result.append(Setting(KUBE_HETZNER, key, _DEFAULTS[name], "kube-hetzner's default"))
        elif isinstance(value, str):
            result.append(Setting(KUBE_HETZNER, key, value, source))
        elif value is not None:
            raise ValueError(f"{name} is not a string")
    if "cluster_dns_ipv4" not in found and "cluster-dns" not in given:
        result += _old_dns(found)
    if "node-subnet" not in given:
        result += _subnets(found, source)
    return (*result, *_pools(found, source, given))


def _old_dns(found: dict[str, Value]) -> list[Setting]:
    """Before kube-hetzner#1691 (April 2025) the cluster DNS did not follow the Service range. Exact versions only."""
    exact = re.fullmatch(r"=?\s*v?(\d+)\.(\d+)\.\d+", str(found.get("version", "")))
    if exact and (2, 11) <= (int(exact[1]), int(exact[2])) < (2, 15):
        return [Setting(KUBE_HETZNER, "cluster-dns", "10.43.0.10", f"kube-hetzner {found['version']}'s default")]
    return []


def _pools(found: dict[str, Value], source: str, given: frozenset[str]) -> list[Setting]:
    """The number of nodes in each pool, and the total including the autoscaler's maximum."""
    result: list[Setting] = []
    known, fixed = True, 0
    for name, key in (("control_plane_nodepools", "control-plane-pools"), ("agent_nodepools", "agent-pools")):
        if key in given:
            known = False
        elif name in found and (counts := [_count(pool, name, key, given) for pool in _listed(found, name, key)]):
            result.append(Setting(KUBE_HETZNER, key, ",".join(map(str, counts)), source))
            fixed += sum(counts)
    if "autoscaler_nodepools" in found and "nodes" not in given:
        scaled = 0
        for pool in _listed(found, "autoscaler_nodepools", "nodes"):
            most = pool.get("max_nodes", 0)
            if not isinstance(most, int):
                raise ValueError(_refused("max_nodes of a pool in autoscaler_nodepools", most, "nodes"))
            scaled += most
        if scaled and not known:
            raise ValueError("pools are given otherwise, and the autoscaler adds to them: give --nodes as well")
        result.append(Setting(KUBE_HETZNER, "nodes", str(fixed + scaled), source))
    return result


def _listed(found: dict[str, Value], name: str, key: str) -> list[dict[str, Value]]:
    value = found[name]
    pools = value if isinstance(value, list) else [value]
    for pool in pools:
        if not isinstance(pool, dict):
            raise ValueError(_refused(name, pool, key))
    return [pool for pool in pools if isinstance(pool, dict)]


def _refused(what: str, value: Value, key: str) -> str:
    where = f"line {value.line}: " if isinstance(value, Expression) else ""
    return f"{where}{what} is an expression; give --{_flag(key)}"


def _subnets(found: dict[str, Value], source: str) -> list[Setting]:
    """The number of subnets in the network (subnet_amount; subnet_count since v3). ValueError if unequal."""
    own = "give the subnets that there are with --node-subnet"
    if found.get("network_subnet_mode") not in (None, "per_nodepool"):
        raise ValueError(f"network_subnet_mode is not per_nodepool: {own}")
    pools = found.get("agent_nodepools")
    if any(isinstance(pool, dict) and "subnet_ip_range" in pool for pool in (pools if isinstance(pools, list) else ())):
        raise ValueError(f"a pool has a subnet_ip_range of its own: {own}")
    name = next((name for name in ("subnet_count", "subnet_amount") if name in found), "")
    many = found.get(name)
    if not name:
        return []
    if not isinstance(many, int) or not 2 <= many <= 65_536 or many.bit_count() != 1:
        raise ValueError(f"{name} is not a power of two: {own}")
    return [Setting(KUBE_HETZNER, "subnet-count", str(many), source)]


def _module(tokens: list[_Token]) -> dict[str, Value]:
    """The assignments of the kube-hetzner module; those outside of modules if the file has no module at all."""
    found: list[tuple[str, dict[str, Value]]] = []
    outside: list[_Token] = []
    others = at = 0
    while at < len(tokens):
        head = tokens[at : at + 3]
        if len(head) == 3 and (head[0].text, head[1].kind, head[2].text) == ("module", "string", "{"):
            end = _closing(tokens, at + 3)
            values = _assignments(tokens[at + 3 : end])
            name = head[1].text.strip('"')
            if "kube-hetzner" in f"{name} {values.get('source')}" or values.keys() & _KEYS.keys():
                found.append((name, values))
            others += 1
            at = end + 1
        else:
            outside.append(tokens[at])
            at += 1
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise ValueError(f"it has {len(found)} kube-hetzner modules ({names}): give each a file of its own")
    if found:
        return found[0][1]
    loose = {} if others else _assignments(outside)
    if not loose.keys() & _KEYS.keys():
        raise ValueError("it has no kube-hetzner module, so there is no plan in it")
    return loose


def _closing(tokens: list[_Token], at: int) -> int:
    """The index of the brace that closes the block open at `at`."""
    depth = 1
    while at < len(tokens) and depth:
        depth += (tokens[at].text == "{") - (tokens[at].text == "}")
        at += 1
    if depth:
        raise ValueError("a block in it is not closed: it is cut off, or a brace is missing")
    return at - 1


def _flag(key: str) -> str:
    return {"cluster-cidr": "pods", "service-cidr": "services", "cluster-dns": "dns"}.get(key, key)


def _count(pool: dict[str, Value], name: str, key: str, given: frozenset[str]) -> int:
    nodes, number = pool.get("nodes"), pool.get("count", 1)
    if isinstance(nodes, dict):
        return len(nodes)
    wrong = number if nodes is None else nodes
    if isinstance(wrong, int):
        return wrong
    if "nodes" in given:
        return 1  # the plan depends little on the nodes of one pool, and the total is given elsewhere
    raise ValueError(f"{_refused(f'the number of nodes of a pool in {name}', wrong, key)} and --nodes")


def _assignments(tokens: list[_Token]) -> dict[str, Value]:
    """Every `name = value` outside of objects. If a name is assigned twice, the first one counts."""
    found: dict[str, Value] = {}
    at = 0
    while at < len(tokens) - 2:
        name, sign, following = tokens[at : at + 3]
        if name.kind == "word" and sign.text == "=" and following.text != "=":
            value, at = _value(tokens, at + 2)
            found.setdefault(name.text, value)
        else:
            at += 1
    return found


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        kind = "heredoc" if kind == "tag" else kind
        if kind != "space":
            found.append(_Token(kind, match[0], line))
        line += match[0].count("\n")
    return found


def _value(tokens: list[_Token], at: int) -> tuple[Value, int]:
    """The value that begins at `at`, and the index after it."""
    first = tokens[at] if at < len(tokens) else _Token("mark", "", 0)
    value: Value = Expression(first.line)
    following = tokens[at + 1].text if first.text in ("[", "{") and at + 1 < len(tokens) else ""
    if following == "for":
        return Expression(first.line), _end(tokens, at)
    if first.text == "[":
        value, at = _list(tokens, at + 1)
    elif first.text == "{":
        value, at = _object(tokens, at + 1)
    else:
        if first.kind == "string" and "${" not in first.text:
            value = re.sub(r"\\(.)", r"\1", first.text[1:-1])
        elif first.kind == "number" and "." not in first.text:
            value = int(first.text)
        elif first.text in ("true", "false"):
            value = first.text
        at += 1
    after = tokens[at].text if at < len(tokens) else ""
    if after in ("", "\n", ",", "]", "}"):
        return value, at
    return Expression(first.line), _end(tokens, at)


def _end(tokens: list[_Token], at: int) -> int:
    """The index after an expression: the end of the line or a comma, outside of all parentheses."""
    depth = 0
    while at < len(tokens):
        text = tokens[at].text
        if depth == 0 and text in ("\n", ",", "]", "}"):
            break
        depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
        at += 1
    return at


def _list(tokens: list[_Token], at: int) -> tuple[Value, int]:
    items: list[Value] = []
    while at < len(tokens) and tokens[at].text != "]":
        if tokens[at].text in ("\n", ","):
            at += 1
            continue
        item, at = _value(tokens, at)
        items.append(item)
    _closed(tokens, at)
    return items, at + 1


def _object(tokens: list[_Token], at: int) -> tuple[Value, int]:
    items: dict[str, Value] = {}
    while at < len(tokens) and tokens[at].text != "}":
        if tokens[at].kind in ("word", "string") and at + 1 < len(tokens) and tokens[at + 1].text in ("=", ":"):
            name = tokens[at].text.strip('"')
            items[name], at = _value(tokens, at + 2)
        else:
            at += 1
    _closed(tokens, at)
    return items, at + 1


def _closed(tokens: list[_Token], at: int) -> None:
    if at >= len(tokens):
        raise ValueError("a list or an object in it is not closed: it is cut off, or a bracket is missing")
