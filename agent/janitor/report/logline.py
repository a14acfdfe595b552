"""Lines of the log: logfmt (`key=value`) or JSON, the event first, with a priority if systemd reads them.

events.py declares the events' names and levels.
"""

import json
from typing import Final, Literal

from janitor.core.model.text import safe
from janitor.report.events import Level, LogEvent

Format = Literal["keyvalue", "json"]

_SHORT: Final = 32
_PRIORITIES: Final[dict[Level, int]] = {"warning": 4, "notice": 5, "info": 6}  # sd-daemon(3)

LONGEST: Final = 4096
"""Bytes that a pipe takes whole or not at all (PIPE_BUF, pipe(7)), so writing a line does not wait for a reader."""


def bounded(event: LogEvent, fields: dict[str, object], form: Format = "keyvalue", *, priority: bool = False) -> bytes:
    """The line with its newline in at most LONGEST bytes: the longest values are cut, which an ellipsis marks."""
    said = dict(fields)
    while len(data := f"{line(event, said, form, priority=priority)}\n".encode("utf-8", "backslashreplace")) > LONGEST:
        name = max(said, key=lambda name: len(str(said[name])))
        value = str(said[name])
        said[name] = f"{value[: len(value) // 2]}…"
        if len(value) < _SHORT:  # there are too many values, not too long ones
            return data[: LONGEST - 1] + b"\n"
    return data


def line(event: LogEvent, fields: dict[str, object], form: Format = "keyvalue", *, priority: bool = False) -> str:
    """One line without its newline. Empty values are left out; in key=value form, values with spaces are quoted."""
    said = {name: value for name, value in fields.items() if value not in ("", None)}
    if form == "json":
        whole = {"event": event.value, "level": event.level, **said}
        text = json.dumps(whole, default=str, ensure_ascii=True)
    else:
        words = [f"event={_quoted(event.value)}"]
        words += [f"{name}={_quoted(str(value))}" for name, value in said.items()]
        text = " ".join(words)
    return f"<{_PRIORITIES[event.level]}>{text}" if priority else text


def _quoted(value: str) -> str:
    text = safe(value)
    plain = text and not any(c in ' "=\\' for c in text)
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
