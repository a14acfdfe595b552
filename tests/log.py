"""What a component logs, for tests: every line with its event and its fields."""

from typing import Any

from janitor.report.events import LogEvent


class Log(list[tuple[LogEvent, dict[str, Any]]]):
    """Stands for the daemon's log, and takes only fields that the event declares."""

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        assert set(fields) <= set(event.fields), f"{event.value} has no field {set(fields) - set(event.fields)}"
        self.append((event, fields))

    def of(self, event: LogEvent) -> list[dict[str, Any]]:
        return [fields for logged, fields in self if logged is event]

    def events(self) -> list[LogEvent]:
        return [event for event, _ in self]
