"""Metrics as values, and as text in Prometheus' format, for /metrics and node_exporter's textfile collector."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from janitor.report.events import LogEvent


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `samples` has a number for each set of label values."""

    name: str  # without _total for a counter
    help: str
    kind: Literal["counter", "gauge"]
    samples: tuple[tuple[tuple[str, ...], float], ...]
    labels: tuple[str, ...] = ()


def counter(name: str, about: str, value: float) -> Family:
    """A counter without labels."""
    return Family(name, about, "counter", (((), value),))


def gauge(name: str, about: str, value: float) -> Family:
    """A gauge without labels."""
    return Family(name, about, "gauge", (((), value),))


def actions(event: LogEvent, numbers: Mapping[str, float]) -> Family:
    """How often an action was carried out, by the value of its metric's label; by "" if it has none."""
    action = event.action
    if action is None:
        raise ValueError(f"{event.value} is no action")
    labels = (action.metric_label,) if action.metric_label else ()
    samples = tuple(((value,) if labels else (), number) for value, number in sorted(numbers.items()))
    return Family(action.metric, action.metric_help, "counter", samples, labels)


def text(families: Iterable[Family], *, process: bool) -> bytes:
    """The exposition text. `process` adds the figures of this process; node_exporter has its own."""
    registry = CollectorRegistry()
    registry.register(_Once(tuple(families)))
    if process:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps its collectors by identity
class _Once(Collector):
    families: tuple[Family, ...]

    def collect(self) -> Iterator[Metric]:
        for family in self.families:
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=family.labels)
            for values, number in family.samples:
                metric.add_metric(values, number)
            yield metric
