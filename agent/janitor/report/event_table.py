"""docs/log-events.md: the events of the daemon's log, generated from the declarations in events.py."""

from janitor.report.events import LogEvent

_HEADER = """\
# Log events

`janitor run` writes one line per event to standard error. `event` is the name below; fields without a value are left
out. With `--log-format json` a line also has `level`. Under systemd it has the priority of that level. Warnings need
attention, notices report changes on the node, and the rest is information.

This file is generated from `agent/janitor/report/events.py` by `make docs`.

| Event | Level | Fields | Meaning |
|---|---|---|---|
"""


def document() -> str:
    """The whole file: events by level, then in the order of declaration."""
    events = sorted(LogEvent, key=lambda event: ("warning", "notice", "info").index(event.level))
    return _HEADER + "".join(f"{_row(event)}\n" for event in events)


def _row(event: LogEvent) -> str:
    fields = ", ".join(f"`{field}`" for field in event.fields)
    counter = f" Counted in `{event.action.metric}_total`." if event.action is not None else ""
    return f"| `{event.value}` | {event.level} | {fields} | {event.meaning}{counter} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
