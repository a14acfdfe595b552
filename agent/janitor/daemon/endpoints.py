"""What the daemon shows on its port."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from janitor.core.model.text import count, duration
from janitor.daemon.component import Health, Part
from janitor.host.http import Answer, AnswerFailed, Listening, NotListening, Server, ServerEvent
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family, text
from janitor.report.page import ACTIONS, NOW, ActionRecord, actions_table
from janitor.report.pass_lines import Looked

_METRICS: Final = "text/plain; version=0.0.4"
_EMPTY: Final = "<!doctype html><html lang=en><meta charset=utf-8><title>janitor</title><h1>{}</h1>{}{}</html>"


class Endpoints(Server, Part):
    """The component that answers requests."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What is known about the node, for people."""

    looked: Looked | None = None  # the last full pass
    age_s: float | None = None  # since the last full pass, independent of the wall clock
    leases: bool = False  # leases are looked after
    watched: int | None = None  # policy rules; None if none can be watched


def log_server(event: ServerEvent, log: Log) -> None:
    """Log an event of the server."""
    match event:
        case Listening():
            log(LogEvent.LISTENING, address=event.address)
        case NotListening():
            log(LogEvent.NOT_LISTENING, address=event.address, why=event.why, again_s=event.again_s)
        case AnswerFailed():
            log(LogEvent.COMPONENT_FAILED, part="http", path=event.path, why=event.why)


@dataclass(frozen=True, slots=True)
class Seen:
    """Answers requests from what the components know; changes nothing."""

    overview: Callable[[], Overview]
    metrics: Callable[[], tuple[Family, ...]]
    health: Callable[[], Health]
    mode: Callable[[], str]
    action_records: Callable[[], tuple[ActionRecord, ...]]

    def answer(self, path: str) -> Answer:
        """The answer to GET `path`."""
        if path == "/metrics":
            return Answer(200, _METRICS, text(self.metrics(), process=True))
        if path in ("/healthz", "/readyz"):
            health = self.health()
            why = health.ill or (health.unready if path == "/readyz" else "")
            return Answer(503 if why else 200, "text/plain", f"{why or 'ok'}\n".encode())
        if path == "/":
            return Answer(200, "text/html", self._page().encode("utf-8", "replace"))
        return Answer(404, "text/plain", b"not found; available: /, /metrics, /healthz, /readyz\n")

    def _page(self) -> str:
        """The page of the last pass, with what has happened since."""
        overview, health = self.overview(), self.health()
        lines = [health.problem] if health.problem else []
        if health.unready and health.unready not in lines:
            lines.append(health.unready)
        since = "".join(f'<p class="alert">{html.escape(line)}</p>' for line in lines)
        mode = self.mode()
        told = "" if mode == "repair" else f"Mode: {mode}."
        rules = f"{count(overview.watched, 'policy rule')} watched." if overview.watched is not None else ""
        age = f"The last full pass was {duration(overview.age_s)} ago." if overview.age_s is not None else ""
        since += f'<p class="dim">{html.escape(" ".join(line for line in (age, told, rules) if line))}</p>'
        action_records = actions_table(self.action_records())
        if overview.looked is None:
            title = "No pass has finished yet" if overview.leases else "This daemon does not check leases"
            return _EMPTY.format(title, since, action_records)
        return overview.looked.page.replace(NOW, since, 1).replace(ACTIONS, action_records, 1)
