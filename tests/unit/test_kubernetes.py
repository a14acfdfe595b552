"""kubernetes/: the alerts fire when they should and only then, and node-problem-detector gets what it understands."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from janitor.core.leases.forecast import exhaustion_s
from janitor.passes.scan import diagnose
from janitor.report.document import make_report
from janitor.report.npd import to_line
from tests import situations
from tests.lab.cache import REPOSITORY
from tests.reasons import not_seen

RULES = REPOSITORY / "kubernetes/components/monitoring/prometheusrule.yaml"
LABELS = 'instance="node-1"'
NETWORK = f'{LABELS}, network="net", data_dir="/d"'


def falling(free: list[int]) -> dict[str, str]:
    """What janitor measures of a network with so many free addresses, each minute, and what it makes of it."""
    samples = [(60.0 * minute, left) for minute, left in enumerate(free)]
    forecasts = [exhaustion_s(samples[: end + 1]) for end in range(len(samples))]
    return {
        f"janitor_exhaustion_forecast_seconds{{{NETWORK}}}": " ".join(
            "+Inf" if math.isinf(seconds) else f"{seconds:.0f}" for seconds in forecasts
        ),
        f"janitor_pod_addresses_free{{{NETWORK}}}": " ".join(map(str, free)),
    }


def passes(complete: str, interval: str) -> dict[str, str]:
    return {
        f"janitor_last_complete_pass_timestamp_seconds{{{LABELS}}}": complete,
        f"janitor_pass_interval_seconds{{{LABELS}}}": interval,
    }


# Alert -> series that make it fire, series that do not, and the minute at which it is asked for.
SERIES: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "NodeOutOfPodAddresses": (
        {f"janitor_pod_addresses_free{{{NETWORK}}}": "0x60"},
        {f"janitor_pod_addresses_free{{{NETWORK}}}": "0x3 1x57"},
        10,
    ),
    "NodeRunsOutOfPodAddresses": (
        falling([200 - minute for minute in range(80)]),  # a leak
        falling([max(143, 253 - 22 * minute) for minute in range(80)]),  # 110 pods in 5 minutes, and no more
        40,
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
        passes("60x60", "60x60"),
        passes("0+60x60", "60x60"),
        40,
    ),
    "JanitorGone": (
        {f'up{{{LABELS}, job="j"}}': "1x20 0x60", f'janitor_build_info{{{LABELS}, job="j"}}': "1x20 _x60"},
        {
            f'up{{{LABELS}, job="j"}}': "1x80",
            'up{instance="other", job="k"}': "0x80",
            f'janitor_build_info{{{LABELS}, job="j"}}': "1x80",
        },
        60,
    ),
    "JanitorAbsent": ({f"up{{{LABELS}}}": "1x60"}, {f"janitor_build_info{{{LABELS}}}": "1x60"}, 30),
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


def pod_labels(name: str, port: str) -> dict[str, str]:
    """What Prometheus finds out of a port of a pod on node-1."""
    meta = "__meta_kubernetes_pod_"
    return {
        f"{meta}label_app_kubernetes_io_name": name,
        f"{meta}container_port_name": port,
        f"{meta}node_name": "node-1",
    }


@pytest.mark.system
@needs_promtool
def test_prometheus_finds_janitor_without_the_operator(tmp_path: Path) -> None:
    """Debian's Prometheus is built without Kubernetes, so the pods that it would be told of are given to it."""
    there = REPOSITORY / "kubernetes/components/prometheus"
    (job,) = yaml.safe_load((there / "scrape-config.yaml").read_text())
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["janitor"]}}]
    found = {
        "10.0.0.5:9742": ("janitor", "metrics"),
        "10.0.0.5:80": ("janitor", "x"),
        "10.0.0.5:81": ("web", "metrics"),
    }
    job["static_configs"] = [{"targets": [at], "labels": pod_labels(*who)} for at, who in found.items()]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job], "rule_files": [str(there / "alerts.yaml")]}))
    done = promtool("check", "config", str(file))
    assert (done.returncode, f"{len(SERIES)} rules found" in done.stdout) == (0, True), done.stdout + done.stderr
    done = promtool("check", "service-discovery", "--timeout=1s", str(file), "janitor")
    kept = {one["labels"]["__address__"]: one["labels"]["instance"] for one in json.loads(done.stdout) if one["labels"]}
    assert kept == {"10.0.0.5:9742": "node-1"}


def test_the_alerts_are_the_same_with_the_operator_and_without() -> None:
    alerts = REPOSITORY / "kubernetes/components/prometheus/alerts.yaml"
    assert yaml.safe_load(alerts.read_text()) == spec()


def test_every_alert_says_where_to_read_on() -> None:
    """There is no host of ours that a runbook_url could lead to; the annotation names a row of the README."""
    readme = (REPOSITORY / "kubernetes/README.md").read_text()
    for group in spec()["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["runbook"] == f"kubernetes/README.md, Alerts: {rule['alert']}"
            assert f"| `{rule['alert']}` |" in readme.partition("\n## Alerts\n")[2].partition("\n## ")[0]


def test_every_alert_has_its_series() -> None:
    assert {rule["alert"] for group in spec()["groups"] for rule in group["rules"]} == SERIES.keys()


@pytest.mark.system
@needs_promtool
@pytest.mark.parametrize("alert", SERIES)
def test_alert(tmp_path: Path, alert: str) -> None:
    firing, quiet, minute = SERIES[alert]
    assert fired(tmp_path, alert, firing, minute)
    assert not fired(tmp_path, alert, quiet, minute)
    assert fired(tmp_path, alert, {}, minute) is (alert == "JanitorAbsent")


@pytest.mark.system
@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "minute", "fires"),
    [
        *(("NodeRunsOutOfPodAddresses", falling([max(143, 253 - 22 * m) for m in range(80)]), at, False)
          for at in (10, 20, 25, 30, 79)),
        ("NodeRunsOutOfPodAddresses", falling([max(173, 253 - 8 * m) for m in range(80)]), 30, False),  # in ten minutes
        ("JanitorPassStale", passes("0x59 3600x59 7200x30", "3600x150"), 50, False),  # a legal interval
        ("JanitorPassStale", passes("0x4 300x4 600x4 900x60", "60x75"), 14, False),  # four checks between two
        ("JanitorPassStale", passes("60x300", "3600x300"), 250, True),
        ("JanitorPassStale", {f'janitor_passes_total{{{LABELS}, result="complete"}}': "0x90"}, 60, False),  # only rules
        ("JanitorGone", {'node_textfile_mtime_seconds{file="/var/lib/ne/janitor.prom"}': "60x80"}, 60, True),
        ("JanitorGone", {'node_textfile_mtime_seconds{file="/var/lib/ne/janitor.prom"}': "0+60x80"}, 60, False),
        ("JanitorGone", {'node_textfile_mtime_seconds{file="/var/lib/ne/apt.prom"}': "60x80"}, 60, False),
        ("JanitorGone", {'kube_daemonset_status_number_unavailable{daemonset="janitor"}': "1x80"}, 60, True),
        ("JanitorGone", {'kube_daemonset_status_number_unavailable{daemonset="janitor"}': "1x5 0x80"}, 60, False),
        # A node that is no more is none that janitor is gone from.
        ("JanitorGone", {f'up{{{LABELS}, job="j"}}': "1x20 _x60",
                         f'janitor_build_info{{{LABELS}, job="j"}}': "1x20 _x60"}, 60, False),
    ],
)  # fmt: skip
def test_alert_at_times_that_are_easily_got_wrong(
    tmp_path: Path, alert: str, series: dict[str, str], minute: int, fires: bool
) -> None:
    assert fired(tmp_path, alert, series, minute) is fires


def test_one_line_for_node_problem_detector() -> None:
    found = situations.evidence(situations.lease())
    in_ledger = situations.in_ledger(found, situations.lease())
    unseen = replace(found, namespaces=not_seen("the namespaces could not be read, " + "ß" * 200))
    for evidence, begins in ((in_ledger, "LEASE001 "), (unseen, "SCAN001 "), (situations.evidence(), "ok: ")):
        line = to_line(make_report(evidence, diagnose(evidence)))
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
