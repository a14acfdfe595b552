"""The log's events: each is declared once, is used, and is logged with the fields that it declares."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import janitor
from janitor.core.leases.judgement import Verdict
from janitor.report.event_table import document
from janitor.report.events import LogEvent
from janitor.report.logline import line
from janitor.report.pass_lines import LogLine, decode, encode

PACKAGE = Path(janitor.__file__).parent
DOCUMENT = Path(__file__).parents[2] / "docs/log-events.md"
FORWARDERS = {
    ("daemon/reporter.py", "log"), ("daemon/clock_watch.py", "_log_seldom"), ("daemon/rule_log.py", "log_rule"),
    ("daemon/lease_worker.py", "_heard"),
}  # fmt: skip
"""Functions that pass on an event and fields of somebody else, who is checked himself."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "events.py" and "_pb2" not in path.name:
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


def events_in(node: ast.AST) -> list[LogEvent]:
    return [
        LogEvent[one.attr]
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == "LogEvent"
    ]


def calls() -> Iterator[tuple[str, ast.Call, list[LogEvent]]]:
    """Every call in the package that is given an event."""
    for name, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                events = [event for argument in node.args for event in events_in(argument)]
                if events and not any(
                    isinstance(one, ast.Call) for argument in node.args for one in ast.walk(argument)
                ):
                    yield name, node, events


def test_each_call_has_fields_that_its_event_declares() -> None:
    found = list(calls())
    assert len(found) >= 60
    strange = [
        f"{name}:{call.lineno}: {event.value} has no field {keyword.arg}"
        for name, call, events in found
        for event in events
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in event.fields
    ]
    assert strange == []


def test_fields_that_no_call_spells_out_come_from_few_places() -> None:
    """`**fields` cannot be read in the source; the numbers by verdict are the only such fields of an event."""
    assert {verdict.value for verdict in Verdict} <= set(LogEvent.PASS.fields)
    spread = [(name, events) for name, call, events in calls() if any(one.arg is None for one in call.keywords)]
    assert spread == [("daemon/pass_record.py", [LogEvent.PASS])]
    forwarders = {
        (name, function.name)
        for name, module in modules()
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute)
        if (call.func.id if isinstance(call.func, ast.Name) else call.func.attr).lstrip("_") in ("log", "sink")
        if not events_in(call)
    }
    assert forwarders - {("commands/run.py", "run")} == FORWARDERS  # `run` makes the log


def test_every_event_is_used() -> None:
    used = {event for _, module in modules() for event in events_in(module)}
    assert [event.name for event in LogEvent if event not in used] == []


def test_every_field_is_used() -> None:
    given: set[tuple[LogEvent, str]] = set()
    for _, call, events in calls():
        given |= {(event, keyword.arg) for event in events for keyword in call.keywords if keyword.arg}
    shared = {"rule"}  # what rule_keeper's forwarder adds
    from_a_pass = {event for event in LogEvent if "pass" in event.fields} | {LogEvent.PASS}
    idle = [
        f"{event.value}: {field}"
        for event in LogEvent
        if event not in from_a_pass
        for field in event.fields
        if (event, field) not in given and field not in shared
    ]
    assert idle == []


def test_names_are_unique_and_plain() -> None:
    names = Counter(event.value for event in LogEvent)
    assert max(names.values()) == 1
    assert len(LogEvent.__members__) == len(names)
    assert all(name.replace(" ", "").isalpha() and name == name.lower() for name in names)
    for event in LogEvent:
        assert len(set(event.fields)) == len(event.fields), event
        assert not {"event", "level"} & set(event.fields), "the line has these already"
        assert event.meaning.endswith("."), event


def test_an_action_is_listed_and_counted_by_fields_that_it_has() -> None:
    actions = [event.action for event in LogEvent if event.action is not None]
    assert len({action.metric for action in actions}) == len(actions) > 3
    for event in LogEvent:
        if event.action is not None:
            used = {
                name for text in (event.action.subject, event.action.proof) for _, name, *_ in Formatter().parse(text)
            }
            used |= {event.action.metric_label} - {""}
            assert used <= set(event.fields), event
            assert event.level == "notice", event


@pytest.mark.parametrize(
    "event", [LogEvent.RULE_RESTORE_SUSPENDED, LogEvent.RULE_MISSING, LogEvent.JOURNAL_NOT_READ, LogEvent.PASS_FAILED]
)
def test_what_needs_attention_is_a_warning(event: LogEvent) -> None:
    assert line(event, {}, priority=True).startswith("<4>")


def test_a_pass_hands_over_only_what_is_declared() -> None:
    said = LogLine(LogEvent.LEASE_FREED, {"address": "10.0.0.1"}, "a key")
    assert decode(encode(said)) == said
    assert decode(encode(said)).event is LogEvent.LEASE_FREED  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="lease lost"):
        decode(encode(said).replace(b"lease freed", b"lease lost"))
    with pytest.raises(ValueError, match="has no field colour"):
        decode(encode(said).replace(b"address", b"colour"))


def test_the_documented_events_are_those_that_are_declared() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run 'make docs'"
