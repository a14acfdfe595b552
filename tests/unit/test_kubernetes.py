"""kubernetes/: the alerts fire when they should and only then, and node-problem-detector gets what it understands."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from janitor.core.evidence import Unknown
from janitor.pipeline import diagnose
from janitor.report.document import make_report
from janitor.report.npd import to_line
from tests import situations
from tests.lab.runtimes import REPOSITORY

RULES = REPOSITORY / "kubernetes/components/monitoring/prometheusrule.yaml"
LABELS = 'instance="node-1"'
NETWORK = f'{LABELS}, network="net", data_dir="/d"'

# Alert -> series that make it fire, series that do not, and the minute at which it is asked for.
SERIES: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "NodeOutOfPodAddresses": (
        {f"janitor_pod_addresses_free{{{NETWORK}}}": "0x60"},
        {f"janitor_pod_addresses_free{{{NETWORK}}}": "0x3 1x57"},
        10,
    ),
    "NodeRunsOutOfPodAddresses": (
        {
            f"janitor_exhaustion_forecast_seconds{{{NETWORK}}}": "7200x60",
            f"janitor_pod_addresses_free{{{NETWORK}}}": "20x60",
        },
        {
            f"janitor_exhaustion_forecast_seconds{{{NETWORK}}}": "+Inf+0x60",
            f"janitor_pod_addresses_free{{{NETWORK}}}": "20x60",
        },
        30,
    ),
    "OrphanedLeasesNotFreed": (
        {
            f"janitor_oldest_orphan_age_seconds{{{LABELS}}}": "9000x120",
            f'janitor_leases{{{NETWORK}, verdict="orphaned"}}': "3x120",
        },
        {
            f"janitor_oldest_orphan_age_seconds{{{LABELS}}}": "9000x30 0x90",
            f'janitor_leases{{{NETWORK}, verdict="orphaned"}}': "3x30 0x90",
        },
        90,
    ),
    "PolicyRulesWiped": (
        {f'janitor_rule_deletions_total{{{LABELS}, by="systemd-networkd"}}': "0x5 2x60"},
        {f'janitor_rule_deletions_total{{{LABELS}, by="others"}}': "0x5 2x60"},
        20,
    ),
    "PolicyRulesNotWatched": (
        {f"janitor_rules_watching{{{LABELS}}}": "0x60"},
        {f"janitor_rules_watching{{{LABELS}}}": "1x60"},
        20,
    ),
    "JanitorLacksRights": (
        {f'janitor_missing{{{LABELS}, what="CAP_SYS_PTRACE"}}': "1x60"},
        {f'janitor_missing{{{LABELS}, what="CAP_SYS_PTRACE"}}': "1x5 _x55"},
        20,
    ),
    "JanitorPassStale": (
        {f"janitor_last_complete_pass_timestamp_seconds{{{LABELS}}}": "60x60"},
        {f"janitor_last_complete_pass_timestamp_seconds{{{LABELS}}}": "0+60x60"},
        40,
    ),
}


def spec() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())["spec"]
    return found


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)


def fired(tmp_path: Path, alert: str, series: dict[str, str], minute: int) -> bool:
    """Whether it fires then, as Prometheus itself sees it."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0 or f"alertname: {alert}" in done.stdout + done.stderr, done.stdout + done.stderr
    return done.returncode != 0


needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="there is no promtool: apt-get install prometheus"
)


@pytest.mark.system
@needs_promtool
def test_the_rules_are_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    done = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert (done.returncode, f"{len(SERIES)} rules found" in done.stdout) == (0, True), done.stdout + done.stderr


def test_every_alert_has_its_series() -> None:
    assert {rule["alert"] for group in spec()["groups"] for rule in group["rules"]} == SERIES.keys()


@pytest.mark.system
@needs_promtool
@pytest.mark.parametrize("alert", SERIES)
def test_alert(tmp_path: Path, alert: str) -> None:
    firing, quiet, minute = SERIES[alert]
    assert fired(tmp_path, alert, firing, minute)
    assert not fired(tmp_path, alert, quiet, minute)
    assert not fired(tmp_path, alert, {}, minute)


def test_one_line_for_node_problem_detector() -> None:
    found = situations.evidence(situations.lease())
    in_ledger = situations.in_ledger(found, situations.lease())
    unseen = replace(found, namespaces=Unknown("the namespaces could not be read, " + "ß" * 200))
    for evidence, begins in ((in_ledger, "LEASE001 "), (unseen, "SCAN001 "), (situations.evidence(), "ok: ")):
        line = to_line(make_report(evidence, *diagnose(evidence)))
        assert line.startswith(begins), line
        assert line.isascii()
        assert len(line) < 80
        assert "\n" not in line


def test_its_configuration_calls_what_there_is() -> None:
    config = json.loads((REPOSITORY / "kubernetes/node-problem-detector/janitor.json").read_text())
    assert config["plugin"] == "custom"
    (rule,), (condition,) = config["rules"], config["conditions"]
    assert rule["condition"] == condition["type"]
    done = subprocess.run(
        [str(REPOSITORY / ".venv/bin/janitor"), *rule["args"], "--root", "/nonexistent"],
        capture_output=True, text=True, check=False, timeout=5,
    )  # fmt: skip
    assert (done.returncode, "is not a directory" in done.stderr) == (64, True), done.stderr
