"""Evidence as JSON and back: what `janitor collect` writes and `--evidence` reads.

A reason is written with its sentence besides its code and facts, for people and for jq. Only the code and the facts are
read back. Evidence of version 1 had only the sentence.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from janitor.core.model.addresses import make_range
from janitor.core.model.codes import Code
from janitor.core.model.evidence import EVIDENCE_VERSION, Evidence, Unknown, known
from janitor.core.model.reason import Fact, Reason, because
from janitor.report.json_bytes import indented
from janitor.report.words import text

_SENTENCES: Final = {"damage": "", "mismatch": "", "why": "role", "problem": "usable"}
"""Fields that were sentences in version 1, and the sibling field that identifies each; "" for any object."""
_MAIN_ROUTE: Final = {"destination", "gateway", "interface", "metric"}


def encode(evidence: Evidence) -> bytes:
    """One JSON object; bytes are base64-encoded."""
    return indented(_walk(msgspec.to_builtins(evidence), _with_text), indent=1)


def decode(data: bytes) -> Evidence:
    """Exactly the evidence that was encoded. ValueError says in one sentence what is wrong with `data`."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if not 1 <= version <= EVIDENCE_VERSION:
            raise ValueError(
                f"it has version {version}, but this janitor reads versions 1 to {EVIDENCE_VERSION}: use the janitor "
                "that collected it"
            )
        document = _walk(msgspec.json.decode(data), _from_version_1 if version == 1 else _without_text)
        evidence = msgspec.convert(document, type=Evidence)
        for network in known(evidence.networks):
            if not isinstance(network.range_sets, Unknown):
                for part in (part for parts in network.range_sets for part in parts):
                    make_range(part.subnet, part.start, part.end, part.gateway)
        return evidence
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is not the output of 'janitor collect' ({error})") from None


class _Version(msgspec.Struct):
    version: int


def _walk(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy in which `change` was applied to each object, the innermost first."""
    if isinstance(value, dict):
        return change({name: _walk(part, change) for name, part in value.items()})
    if isinstance(value, list | tuple):
        return [_walk(part, change) for part in value]
    return value


def _with_text(part: dict[str, Any]) -> dict[str, Any]:
    """Give a reason its sentence, and its facts as an object."""
    if part.keys() != {"code", "facts", "cause"}:
        return part
    facts = dict(part["facts"])
    return {"code": part["code"], "text": text(_reason(part["code"], facts, part["cause"])), "facts": facts,
            "cause": part["cause"]}  # fmt: skip


def _reason(code: str, facts: dict[str, Any], cause: dict[str, Any] | None) -> Reason:
    behind = None if cause is None else _reason(cause["code"], cause["facts"], cause["cause"])
    known_facts: dict[str, Fact] = {
        name: tuple(fact) if isinstance(fact, list) else fact for name, fact in facts.items()
    }
    return because(Code(code), behind, **known_facts)


def _without_text(part: dict[str, Any]) -> dict[str, Any]:
    if part.keys() != {"code", "text", "facts", "cause"} or not isinstance(part["facts"], dict):
        return _renamed(part)
    return {"code": part["code"], "facts": list(part["facts"].items()), "cause": part["cause"]}


def _renamed(part: dict[str, Any]) -> dict[str, Any]:
    """The owners of policy rules were `makers` in version 1, and in the first builds with version 2."""
    if "makers" in part and "networkd" in part:
        part["owners"] = part.pop("makers")
    return part


def _from_version_1(part: dict[str, Any]) -> dict[str, Any]:
    """Convert an object of version 1: `Unknown` as a sentence and a hint, other sentences, and `interface`."""
    if part.keys() == _MAIN_ROUTE:
        return {name: value for name, value in part.items() if name != "interface"} | {"device": part["interface"]}
    if part.keys() in ({"reason"}, {"reason", "hint"}) and isinstance(part["reason"], str):
        return {"reason": _recorded(part["reason"], part.get("hint") or "")}
    for name, beside in _SENTENCES.items():
        if isinstance(part.get(name), str) and (not beside or beside in part):
            part[name] = _recorded(part[name]) if part[name] else None
    return _renamed(part)


def _recorded(sentence: str, hint: str = "") -> dict[str, Any]:
    facts = [["text", sentence], *([["hint", hint]] if hint else [])]
    return {"code": Code.RECORDED, "facts": facts, "cause": None}
