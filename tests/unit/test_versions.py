"""What other versions of janitor have written: earlier ones are read, of later ones nothing is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.leases.judgement import Verdict, judge
from janitor.core.model.action import DiscardEntry, FreeLease, ReserveLease, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.reason import because
from janitor.core.model.routing import Routing, RuleOwner
from janitor.host.changes import quarantine, state
from janitor.host.changes.journal import JOURNAL, VERSION, Journal
from janitor.passes.scan import diagnose
from janitor.report.document import make_report, to_json
from janitor.report.evidence_json import decode, encode
from janitor.report.words import hint
from tests.lab.cache import REPOSITORY
from tests.nodes import booted
from tests.reasons import words
from tests.situations import evidence, lease

DATA = REPOSITORY / "tests/data/version-1"


def sentences(value: Any) -> Any:
    """A report with the text of each reason in its place, as version 1 had it."""
    if isinstance(value, dict):
        if "text" in value and ("code" in value or "commands" in value):
            return value["text"]
        return {name: sentences(part) for name, part in value.items()}
    return [sentences(part) for part in value] if isinstance(value, list) else value


def test_evidence_of_version_1_gives_the_same_report() -> None:
    found = decode((DATA / "evidence.json").read_bytes())
    now = sentences(json.loads(to_json(make_report(found, diagnose(found)))))
    before = json.loads((DATA / "report.json").read_bytes())
    for one in now["leases"]:
        assert one.pop("reason") == next(iter(one["reasons"]), None)
    for one in now["networks"]:
        one["note"] = one["note"] or ""
    assert now.pop("schema_version") == before.pop("schema_version") + 1
    assert sorted(now.pop("skipped"), key=str) == sorted(before.pop("skipped"), key=str)
    assert now == before


def test_evidence_of_the_first_builds_with_version_2_is_read() -> None:
    found = replace(evidence(), routing=Routing((), (), (), (RuleOwner("kube-router", 9, 1, (), ""),), ()))
    written = encode(found)
    assert decode(written) == decode(written.replace(b'"owners"', b'"makers"')) == found


def test_what_version_1_advised_is_advised_still() -> None:
    found = decode((DATA / "evidence.json").read_bytes())
    machine = found.node_config.machine
    assert isinstance(machine, Unknown)
    assert (words(machine.reason), hint(machine.reason)) == (
        "asking the metadata service at 169.254.169.254: timed out", "ip route get 169.254.169.254",
    )  # fmt: skip


def with_journal(root: Path, change: Callable[[dict[str, Any]], None] = lambda record: None) -> Journal:
    path = root / JOURNAL.lstrip("/")
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        for line in (DATA / "journal").read_text().splitlines():
            record = json.loads(line)
            change(record)
            file.write(json.dumps(record) + "\n")
    return Journal(str(root))


def test_a_journal_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    journal = with_journal(tmp_path)
    journal.load()
    entries = list(journal.entries.values())
    kinds = (FreeLease, DiscardEntry, ReserveLease, RestoreRule, WriteSetting)
    assert [type(entry.action) for entry in entries] == list(kinds)
    assert [entry.state for entry in entries] == ["done", "skipped", "failed", "done", "undone"]
    assert words(entries[1].detail) == "it is gone: its owner has released it"
    assert "the boot ledger lists this very file" in words(entries[0].action.proof)
    journal.outcome([(entries[0], "undone", because(Code.ADDRESS_IN_USE))])
    journal.forget({(entries[1].pass_id, entries[1].number)})
    again = Journal(str(tmp_path))
    again.load()
    assert [entry.action for entry in again.entries.values()] == [e.action for e in entries if e is not entries[1]]
    assert again.entries[entries[0].pass_id, 0].detail == because(Code.ADDRESS_IN_USE)
    record = json.loads((tmp_path / JOURNAL.lstrip("/")).read_text().splitlines()[0])
    assert (record["version"], record["action"]["proof"][0]["code"]) == (VERSION, "Recorded")


def test_a_journal_of_a_later_version_is_not_used(tmp_path: Path) -> None:
    """After a rollback: what was intended there may mean something else."""
    journal = with_journal(tmp_path, lambda record: record.update(version=VERSION + 1))
    with pytest.raises(OSError, match=f"has version {VERSION + 1}.*reads only up to version {VERSION}"):
        journal.load()


def test_a_note_of_a_later_version_frees_nothing_and_is_named(tmp_path: Path) -> None:
    """The ledger would be a proof of death, if only it could be understood."""
    node = booted(tmp_path, "this")
    state.write_ledger(node, ())
    path = tmp_path / state.LEDGER.lstrip("/")
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"version": state.VERSION + 1}))
    found = state.read_ledger(node)
    assert isinstance(found, Unknown)
    assert found.reason.code is Code.NEWER_NOTE
    judged = judge(evidence(lease("10.52.0.9", b""), ledger=found))
    verdicts = {one.address: one.verdict for one in judged.leases}
    assert (verdicts["10.52.0.9"], judged.unseen) == (Verdict.PENDING, (found,))
    assert judge(evidence(lease(), observations=found)).unseen == (found,)


def test_a_quarantine_of_a_later_version_gets_nothing_more(tmp_path: Path) -> None:
    place = tmp_path / "quarantine/pass"
    quarantine.make_place(str(place))
    (tmp_path / "quarantine/version").write_text(f"{quarantine.VERSION + 1}\n")
    shutil.rmtree(place)
    with pytest.raises(OSError, match="a newer janitor wrote it"):
        quarantine.make_place(str(place))
    assert not os.path.exists(place)


def test_a_code_of_a_later_version_is_read_as_its_text(tmp_path: Path) -> None:
    def later(record: dict[str, Any]) -> None:
        if record["event"] == "skipped":
            record["detail"] = {"code": "NeverHeardOf", "text": "it sleeps", "facts": {}}

    journal = with_journal(tmp_path, later)
    journal.load()
    assert [words(entry.detail) for entry in journal.entries.values() if entry.state == "skipped"] == ["it sleeps"]


def test_the_log_cursor_of_a_version_before_is_read_once(tmp_path: Path) -> None:
    """It was called telling.json."""
    node = booted(tmp_path, "this")
    state.write_log_cursor(node, "pass", 3)
    path = tmp_path / state.LOG_CURSOR.lstrip("/")
    path.rename(path.with_name("telling.json"))
    assert state.read_log_cursor(node) == ("pass", 3)
    state.drop_log_cursor(node)
    assert (state.read_log_cursor(node), list(path.parent.glob("*.json"))) == (("", 0), [])
