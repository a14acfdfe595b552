"""Lines of the log: `key=value`, as logfmt has it, or JSON, the event first; with a priority where systemd reads them.

How much an event matters is known by its name, so that every place that says something says only what happened.
"""

import json
from typing import Final, Literal

from janitor.core.prose import safe

Format = Literal["keyvalue", "json"]

_WARNINGS: Final = frozenset(
    {
        "breaker open", "cache entry not discarded", "configuration not read", "events lost", "journal not used",
        "lease not freed", "lease not reserved", "lock lost", "lock not taken", "mirror not read", "mirror not saved",
        "not all was seen", "not listening", "notes not written", "old passes not dropped", "part failed",
        "pass failed", "rule not restored", "rules not read", "rules not restored", "rules not watched",
        "syncing failed", "textfile not written",
    }
)  # fmt: skip
_NOTICES: Final = frozenset(
    {"cache entry discarded", "earlier pass was cut short", "lease freed", "lease reserved", "rule deleted",
     "rule restored"}
)  # fmt: skip
_PRIORITIES: Final = {"warning": 4, "notice": 5, "info": 6}  # sd-daemon(3)


def level(event: str) -> str:
    """warning, notice or info."""
    return "warning" if event in _WARNINGS else "notice" if event in _NOTICES else "info"


def line(event: str, fields: dict[str, object], form: Format = "keyvalue", *, priority: bool = False) -> str:
    """One line without its end; empty values are left out, and in key=value those with spaces are quoted."""
    said = {name: value for name, value in fields.items() if value not in ("", None)}
    if form == "json":
        whole = {"event": event, "level": level(event), **said}
        text = json.dumps(whole, default=str, ensure_ascii=True)
    else:
        words = [f"event={_quoted(event)}"]
        words += [f"{name}={_quoted(str(value))}" for name, value in said.items()]
        text = " ".join(words)
    return f"<{_PRIORITIES[level(event)]}>{text}" if priority else text


def _quoted(value: str) -> str:
    text = safe(value)
    plain = text and not any(c in ' "=\\' for c in text)
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
