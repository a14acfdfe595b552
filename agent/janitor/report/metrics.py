"""The daemon's figures in Prometheus' text format, for /metrics and for node_exporter's textfile collector."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import janitor
from janitor.core.judgement import Verdict
from janitor.report.events import LogEvent
from janitor.report.pass_lines import Looked


@dataclass(frozen=True, slots=True)
class Figures:
    """All there is to be told at one moment."""

    looked: Looked | None  # the last pass that came to its end
    results: Counter[str]  # of passes: complete, incomplete, failed
    complete_at: float  # since the epoch; 0 for never
    done: Counter[LogEvent]  # the actions on leases and cache entries
    forecasts: dict[tuple[str, str], float]
    rules: Counter[str]  # "restored PROFILE", "deleted by WHO"
    watching: bool | None  # the policy rules; None where that is not wanted
    kept: int  # rules that are watched
    synced: int
    sync_seconds: float
    missing: tuple[str, ...] = ()  # rights and parts of the node that it was not given
    dropped: int = 0  # lines of the log
    age_s: float | None = None  # since a pass last looked at all, whatever the wall clock has done since
    interval_s: float | None = None  # between two passes; None where the leases are not looked after


def text(figures: Figures, *, process: bool) -> bytes:
    """The whole exposition. `process` adds the figures of this process, which node_exporter has of its own."""
    registry = CollectorRegistry()
    registry.register(_Once(figures))
    if process:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps its collectors by identity
class _Once(Collector):
    figures: Figures

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("janitor_build_info", "Which janitor this is.", labels=["version"])
        build.add_metric([janitor.__version__], 1)
        yield build
        missing = GaugeMetricFamily(
            "janitor_missing", "1 for each right, mount or namespace that janitor needs and has not.", labels=["what"]
        )
        for what in self.figures.missing:
            missing.add_metric([what], 1)
        yield missing
        yield from _passes(self.figures)
        if self.figures.looked is not None:
            yield from _node(self.figures.looked, self.figures.forecasts)
        yield from _deeds(self.figures)


def _passes(figures: Figures) -> Iterator[Metric]:
    results = CounterMetricFamily("janitor_passes", "Passes over the leases, by how they ended.", labels=["result"])
    for result in ("complete", "incomplete", "unchanged", "failed"):
        results.add_metric([result], figures.results[result])
    yield results
    if figures.interval_s is not None:
        yield GaugeMetricFamily(
            "janitor_last_complete_pass_timestamp_seconds",
            "When a pass last saw everything there is to be seen; 0 for never.",
            value=figures.complete_at,
        )
        yield GaugeMetricFamily(
            "janitor_pass_interval_seconds", "Between two passes, as configured.", value=figures.interval_s
        )
    if figures.looked is not None:
        at, took = figures.looked.at, figures.looked.took_s
        yield GaugeMetricFamily("janitor_last_pass_timestamp_seconds", "When a pass last looked at all.", value=at)
        yield GaugeMetricFamily("janitor_pass_duration_seconds", "How long that took.", value=took)
        unseen = len(figures.looked.unseen)
        yield GaugeMetricFamily("janitor_unseen_parts", "What the last pass could not look at.", value=unseen)


def _node(looked: Looked, forecasts: dict[tuple[str, str], float]) -> Iterator[Metric]:
    names = ("network", "data_dir")
    capacity = GaugeMetricFamily("janitor_pod_addresses_capacity", "Pods a network has room for.", labels=names)
    free = GaugeMetricFamily("janitor_pod_addresses_free", "Pods that could still get an address.", labels=names)
    leases = GaugeMetricFamily("janitor_leases", "Leases by what they are.", labels=(*names, "verdict"))
    ends = GaugeMetricFamily(
        "janitor_exhaustion_forecast_seconds",
        "When nothing will be free any more, by the trend of the last hour; +Inf where it does not tend there.",
        labels=names,
    )
    for network in looked.networks:
        key = (network.name, network.data_dir)
        for verdict in Verdict:
            leases.add_metric([*key, verdict.value], network.verdicts.get(verdict, 0))
        if network.capacity is not None and network.free is not None:
            capacity.add_metric(key, network.capacity)
            free.add_metric(key, network.free)
        if key in forecasts:
            ends.add_metric(key, forecasts[key])
    yield from (capacity, free, leases, ends)
    yield GaugeMetricFamily(
        "janitor_oldest_orphan_age_seconds",
        "Age of the oldest lease that is proven dead and still there; 0 where there is none.",
        value=looked.oldest_orphan_s or 0,
    )
    found = GaugeMetricFamily("janitor_findings", "Findings of the last pass.", labels=("id", "severity"))
    for finding in looked.findings:
        found.add_metric([finding.id, finding.severity.value], finding.number)
    yield found


def _deeds(figures: Figures) -> Iterator[Metric]:
    restored = {
        name.removeprefix("restored "): number
        for name, number in sorted(figures.rules.items())
        if name.startswith("restored ")
    }
    for event in LogEvent:
        if event.action is None:
            continue
        name, about, label = event.action.metric, event.action.metric_help, event.action.metric_label
        if not label:
            yield CounterMetricFamily(name, about, value=figures.done[event])
            continue
        by_label = CounterMetricFamily(name, about, labels=[label])
        for value, number in restored.items():
            by_label.add_metric([value], number)
        yield by_label
    deleted = CounterMetricFamily("janitor_rule_deletions", "Policy rules that somebody deleted.", labels=["by"])
    for by in ("systemd-networkd", "others", "unknown"):
        deleted.add_metric([by], figures.rules[f"deleted by {by}"])
    yield deleted
    if figures.watching is not None:
        yield GaugeMetricFamily("janitor_rules_watched", "Policy rules that are watched.", value=figures.kept)
        on = float(figures.watching)
        yield GaugeMetricFamily("janitor_rules_watching", "1 while the policy rules can be watched.", value=on)
    yield CounterMetricFamily("janitor_files_synced", "Files of CNI brought onto the disk.", value=figures.synced)
    yield CounterMetricFamily(
        "janitor_log_lines_dropped", "Lines that nobody took off our hands in time.", value=figures.dropped
    )
    seconds = figures.sync_seconds
    yield CounterMetricFamily("janitor_sync_seconds", "Time that bringing them onto the disk took.", value=seconds)
