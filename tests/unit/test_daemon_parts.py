"""What the daemon says and shows, without a node: forecast, log lines, figures, page, settings."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from janitor.commands.run import _settings
from janitor.config import ConfigError, address, load
from janitor.core.leases.forecast import exhaustion_s
from janitor.core.leases.judgement import Verdict
from janitor.core.model.findings import Severity
from janitor.core.rules.rule_memory import RuleCounts
from janitor.daemon.component import Health
from janitor.daemon.endpoints import Overview, Seen
from janitor.daemon.pass_record import PassRecord
from janitor.daemon.status import mode
from janitor.passes.scan import diagnose
from janitor.report.document import make_report
from janitor.report.events import LogEvent
from janitor.report.logline import bounded, line
from janitor.report.metrics import text
from janitor.report.page import ActionRecord, action_record, page
from janitor.report.pass_lines import Failed, FindingFigures, Looked, NetworkFigures, decode, encode
from janitor.report.pass_metrics import synced
from janitor.report.rule_metrics import rule_metrics
from tests import situations

LOOKED = Looked(
    at=1.7e9, took_s=0.5, unseen=("x",), soonest_s=60, oldest_orphan_s=12.5, page="<p>page</p><!--now--><!--actions-->",
    networks=(NetworkFigures('o"dd\\', "/var/lib/cni/networks", 253, 10, 2, {Verdict.LIVE: 241, Verdict.ORPHANED: 2}),
              NetworkFigures("unbounded", "/x", None, None, 0, {})),
    findings=(FindingFigures("LEASE001", Severity.WARNING, 1),),
)  # fmt: skip
RECORD = PassRecord(
    LOOKED, complete_at=1.7e9, results=Counter({"complete": 3}), done=Counter({LogEvent.LEASE_FREED: 7})
)
METRICS = (
    *RECORD.metrics(60),
    *rule_metrics(RuleCounts(Counter({"kube-router": 2}), Counter({"systemd-networkd": 2})), 2),
    *synced(5, 0.25),
)
OVERVIEW = Overview(LOOKED, leases=True, watched=2)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], math.inf),
        ([(0, 0)], 0),
        ([(0, 100), (60, 90)], math.inf),  # a minute makes no trend
        ([(60 * i, 100 - i) for i in range(11)], 90 * 60),
        ([(60 * i, 50) for i in range(11)], math.inf),
        ([(60 * i, 50 + i) for i in range(11)], math.inf),
        # 110 pods in five minutes, and then no more: while they come, and a quarter of an hour later.
        ([(60 * i, max(143, 253 - 22 * i)) for i in range(6)], 143 * 60 / 22),
        ([(60 * i, max(143, 253 - 22 * i)) for i in range(21)], math.inf),
        # What was freed more than an hour ago does not count any more.
        ([(0, 5), (10, 200)] + [(4000 + 60 * i, 200 - i) for i in range(11)], 190 * 60),
    ],
)
def test_forecast(samples: list[tuple[float, int]], expected: float) -> None:
    assert exhaustion_s(samples) == pytest.approx(expected)


def test_lines_of_the_log() -> None:
    fields: dict[str, object] = {"rule": "from 10.0.0.0/8", "name": "a\nb", "empty": "", "none": None, "number": 3}
    restored = line(LogEvent.RULE_RESTORED, fields)
    assert restored == 'event="rule restored" rule="from 10.0.0.0/8" name="a\\\\nb" number=3'
    assert line(LogEvent.PASS_FAILED, {}, priority=True) == '<4>event="pass failed"'
    assert line(LogEvent.RULE_RESTORED, {}, priority=True).startswith("<5>")
    assert json.loads(line(LogEvent.PASS, fields, "json")) == {
        "event": "pass", "level": "info", "rule": "from 10.0.0.0/8", "name": "a\nb", "number": 3,
    }  # fmt: skip
    assert "\n" not in line(LogEvent.PASS, fields, "json")


@pytest.mark.parametrize("form", ["keyvalue", "json"])
@pytest.mark.parametrize("value", ["x" * 9000, "ß\n" * 9000, '"' * 9000])
def test_no_line_is_longer_than_a_pipe_takes_at_once(form: Literal["keyvalue", "json"], value: str) -> None:
    data = bounded(LogEvent.LEASE_FREED, {"address": "10.0.0.1", "proof": value, "pod": value}, form, priority=True)
    assert 1000 < len(data) <= 4096
    assert data.endswith(b"\n")
    assert b"10.0.0.1" in data
    assert b"\n" not in data[:-1]
    if form == "json":
        assert json.loads(data[3:])["proof"].endswith("…")
    many: dict[str, object] = {f"name{number}": "value" for number in range(9000)}
    assert len(bounded(LogEvent.PASS, many, form)) <= 4096


def test_a_log_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    """The real log on a pipe that is nearly full: what does not fit is dropped, and counted."""
    program = (
        "from collections import Counter; from janitor.commands.run import _log, LogFormat\n"
        "from janitor.report.events import LogEvent\n"
        "dropped = Counter(); log = _log(LogFormat.KEYVALUE, dropped)\n"
        "for _ in range(99): log(LogEvent.PASS_FAILED, why='x' * 9000)\n"
        "print(dropped['lines'])"
    )
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        os.write(writer, b"x" * (65536 - 5000))
        os.set_blocking(writer, True)
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, timeout=20, check=True
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert int(done.stdout) >= 98


def test_what_a_pass_says_arrives_as_it_was_said() -> None:
    for said in (LOOKED, Failed("why")):
        assert decode(encode(said)) == said
    with pytest.raises(ValueError, match=r"."):
        decode(encode(LOOKED)[:-9])


@pytest.mark.parametrize("process", [True, False])
def test_figures(process: bool) -> None:
    shown = text(METRICS, process=process).decode()
    assert 'janitor_leases{data_dir="/var/lib/cni/networks",network="o\\"dd\\\\",verdict="orphaned"} 2.0' in shown
    assert "janitor_leases_freed_total 7.0" in shown
    assert 'janitor_rule_deletions_total{by="systemd-networkd"} 2.0' in shown
    assert 'janitor_rules_restored_total{profile="kube-router"} 2.0' in shown
    assert 'janitor_passes_total{result="complete"} 3.0' in shown
    assert 'janitor_findings{id="LEASE001",severity="warning"} 1.0' in shown
    assert "janitor_rules_watching 1.0" in shown
    assert "janitor_pod_addresses_free" in shown
    assert ("process_" in shown) is process
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=shown, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_page_shows_a_sick_node_and_forges_nothing() -> None:
    evidence = situations.evidence(situations.lease())
    report = make_report(evidence, diagnose(evidence))
    assert report.node
    looked = msgspec.structs.replace(LOOKED, page=page(report, 0))
    action_records = (ActionRecord(0, "lease freed: <b>x</b>\x1b[2J", "it's & dead"),)
    seen = Seen(
        lambda: replace(OVERVIEW, looked=looked), lambda: METRICS, Health, lambda: "observe", lambda: action_records
    )
    shown = seen.answer("/").body.decode()
    assert "&lt;b&gt;x&lt;/b&gt;\\x1b[2J" in shown  # on a terminal, too
    assert "<script" not in shown
    assert "http" not in shown.partition("<main>")[0]
    assert "Mode: observe." in shown
    [dead] = [lease for lease in report.leases if lease.verdict is Verdict.ORPHANED]
    assert f"<td>{escape('; '.join(reason.text for reason in dead.reasons))}</td>" in shown


def test_actions_are_what_was_done() -> None:
    assert action_record(1, LogEvent.PASS, {}) is None
    done = action_record(1, LogEvent.LEASE_FREED, {"address": "10.0.0.1", "network": "pods", "proof": "p {x}"})
    assert done == ActionRecord(1, "lease freed: 10.0.0.1 of pods", "p {x}")
    done = action_record(1, LogEvent.CACHE_ENTRY_DISCARDED, {"path": "/x", "proof": "p"})
    assert done == ActionRecord(1, "cache entry discarded: /x", "p")


def test_what_is_shown() -> None:
    action_records: list[ActionRecord] = []

    def seen(health: Health, overview: Overview = OVERVIEW, mode: str = "repair") -> Seen:
        return Seen(lambda: overview, lambda: METRICS, lambda: health, lambda: mode, lambda: tuple(action_records))

    well = seen(Health("", "", ""))
    assert [well.answer(path).status for path in ("/", "/metrics", "/healthz", "/readyz", "/etc")] == [
        200,
        200,
        200,
        200,
        404,
    ]
    page = well.answer("/").body
    assert b"2 policy rules watched" in page
    assert b"Nothing since" in page
    action_records.append(ActionRecord(0, "rule restored: r", "p"))  # no pass has ended since
    assert b"rule restored: r" in well.answer("/").body
    ill = seen(Health("", "not <yet>", "failed"))
    assert [ill.answer(path).status for path in ("/healthz", "/readyz")] == [200, 503]
    assert b"not &lt;yet&gt;" in ill.answer("/").body
    assert seen(Health("ill", "", "")).answer("/healthz").status == 503
    # Without leases to look after, no pass is ever awaited; and what is done for the rules shows all the same.
    bare = (
        seen(Health("", "", ""), replace(OVERVIEW, looked=None, leases=False), "repair rules, observe the rest")
        .answer("/")
        .body
    )
    for words in (b"This daemon does not check leases", b"rule restored: r", b"Mode: repair rules, observe the"):
        assert words in bare
    waiting = seen(Health("", "", ""), replace(OVERVIEW, looked=None)).answer("/").body
    assert b"No pass has finished yet" in waiting
    # By a clock that nobody sets.
    later = seen(Health("", "", ""), replace(OVERVIEW, age_s=3 * 3600 + 5)).answer("/").body
    assert b"The last full pass was 3 h ago" in later


@pytest.mark.parametrize(
    ("text", "parts", "expected"),
    [
        ("", "leases,rules", "repair"),
        ('mode = "observe"', "leases,rules", "observe"),
        ('mode = "observe"\n[checks]\nrules = "repair"', "leases,rules", "repair rules, observe the rest"),
        ('mode = "observe"\n[checks]\nrules = "repair"', "rules", "repair"),
        ('[checks]\nleases = "observe"\nLEASE009 = "repair"', "leases,rules",
         "repair LEASE009, rules, observe the rest"),
        ('[checks]\nLEASES = "observe"\nlease009 = "repair"', "leases,rules",
         "repair LEASE009, rules, observe the rest"),
        ('[checks]\nlease009 = "repair"\nLEASE = "observe"', "leases", "repair LEASE009, observe the rest"),
        ('mode = "observe"\n[checks]\nlease001 = "observe"\nLeases = "repair"\nLEASE003 = "observe"', "leases",
         "repair LEASE002, LEASE004, LEASE005, LEASE006, LEASE007, LEASE008, LEASE009, LEASE010, observe the rest"),
        ('[checks]\nLEASE001 = "observe"\nlease001 = "repair"\nleases = "observe"\nrules = "observe"', "leases,rules",
         "observe"),
    ],
)  # fmt: skip
def test_a_family_first_then_its_checks_whatever_the_case(tmp_path: Path, text: str, parts: str, expected: str) -> None:
    file = tmp_path / "janitor.toml"
    file.write_text(text)
    assert mode(_settings(load(file), frozenset(parts.split(",")), observe=False)) == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("interval = 0.5", "it must be 1 to 3600 seconds"),
        ('listen = "9742"', "it must be ADDRESS:PORT"),
        ('listen = "::1:9742"', "it must be ADDRESS:PORT"),
        ('listen = "localhost:9742"', "it must be ADDRESS:PORT"),
        ('listen = "127.0.0.1:70000"', "it must be ADDRESS:PORT"),
        ('mode = "dry"', "mode: 'dry' is not valid; use repair or observe"),
        ('textfile = "janitor.txt"', "ends in .prom"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "janitor.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        load(file)


def test_addresses_to_listen_on() -> None:
    assert address("[::1]:1") == ("::1", 1)
    assert address("0.0.0.0:9742") == ("0.0.0.0", 9742)
