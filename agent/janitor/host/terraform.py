"""The address plan in a kube.tf: assignments of literals, nothing that Terraform would have to work out.

A small part of HCL (strings, numbers, lists, objects, comments); whatever else a value is, is an expression, and
one that the plan depends on is refused with its line. Standard library only.
"""

import re
from dataclasses import dataclass
from typing import Final

from janitor.core.address_plan import KUBE_HETZNER
from janitor.core.evidence_node import Setting

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


def settings(text: str, source: str) -> tuple[Setting, ...]:
    """What a kube.tf says of the plan, with kube-hetzner's defaults for what it leaves out. ValueError if it cannot."""
    found = _assignments(text)
    # A pool has attributes of its own; those of the module come first, and once.
    result = [Setting(KUBE_HETZNER, "scheme", KUBE_HETZNER, source)]
    for name, key in _KEYS.items():
        value = found.get(name)
        if isinstance(value, Expression):
            raise ValueError(f"line {value.line}: {name} is an expression; give its value with --{_flag(key)}")
        if value is None and name in _DEFAULTS:
            result.append(Setting(KUBE_HETZNER, key, _DEFAULTS[name], "kube-hetzner's default"))
        elif isinstance(value, str):
            result.append(Setting(KUBE_HETZNER, key, value, source))
        elif value is not None:
            raise ValueError(f"{name} is not a string")
    pools: dict[str, list[int]] = {}
    for name, key in (("control_plane_nodepools", "control-plane-pools"), ("agent_nodepools", "agent-pools")):
        value = found.get(name)
        if isinstance(value, list) and value:
            pools[key] = [_count(pool) for pool in value]
            result.append(Setting(KUBE_HETZNER, key, ",".join(map(str, pools[key])), source))
    most = found.get("autoscaler_nodepools")
    if isinstance(most, list):
        scaled = sum(n for pool in most if isinstance(pool, dict) and isinstance(n := pool.get("max_nodes"), int))
        result.append(Setting(KUBE_HETZNER, "nodes", str(sum(map(sum, pools.values())) + scaled), source))
    return tuple(result)


def _flag(key: str) -> str:
    return {"cluster-cidr": "pods", "service-cidr": "services", "cluster-dns": "dns"}.get(key, key)


def _count(pool: Value) -> int:
    if isinstance(pool, dict):
        nodes = pool.get("nodes")
        number = pool.get("count")
        if isinstance(nodes, dict):
            return len(nodes)
        if isinstance(number, int):
            return number
    return 1


def _assignments(text: str) -> dict[str, Value]:
    """Every `name = value` outside an object; where a name is assigned twice, the first one counts."""
    tokens = _tokens(text)
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
    """The value that begins at `at`, and where it ends."""
    first = tokens[at] if at < len(tokens) else _Token("mark", "", 0)
    value: Value = Expression(first.line)
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
    """Past the rest of an expression: up to a line's end or a comma, outside all parentheses."""
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
    return items, at + 1


def _object(tokens: list[_Token], at: int) -> tuple[Value, int]:
    items: dict[str, Value] = {}
    while at < len(tokens) and tokens[at].text != "}":
        if tokens[at].kind in ("word", "string") and at + 1 < len(tokens) and tokens[at + 1].text in ("=", ":"):
            name = tokens[at].text.strip('"')
            items[name], at = _value(tokens, at + 2)
        else:
            at += 1
    return items, at + 1
