"""The metrics of the lease passes, and of the node as the last pass saw it."""

from collections import Counter

from janitor.core.leases.judgement import Verdict
from janitor.report.metrics import Family, counter, gauge
from janitor.report.pass_lines import Looked

_NETWORK = ("network", "data_dir")


def passes(results: Counter[str], complete_at: float, interval_s: float) -> tuple[Family, ...]:
    """The number of passes by result. `complete_at`: the last complete pass, since the epoch."""
    ends = ("complete", "incomplete", "unchanged", "failed")
    return (
        Family(
            "janitor_passes", "Passes over the leases, by result.", "counter",
            tuple(((result,), results[result]) for result in ends), ("result",),
        ),
        gauge(
            "janitor_last_complete_pass_timestamp_seconds",
            "Unix time of the last complete pass; 0 if there was none.",
            complete_at,
        ),
        gauge("janitor_pass_interval_seconds", "Configured time between two passes.", interval_s),
    )  # fmt: skip


def node(looked: Looked, forecasts: dict[tuple[str, str], float]) -> tuple[Family, ...]:
    """What the last pass saw; the forecasts are by network and data directory."""
    verdicts = [
        ((n.name, n.data_dir, verdict.value), n.verdicts.get(verdict, 0))
        for n in looked.networks
        for verdict in Verdict
    ]
    sized = [
        ((n.name, n.data_dir), n.capacity, n.free)
        for n in looked.networks
        if n.capacity is not None and n.free is not None
    ]
    ends = [(key, forecasts[key]) for n in looked.networks if (key := (n.name, n.data_dir)) in forecasts]
    return (
        gauge(
            "janitor_last_pass_timestamp_seconds", "Unix time of the last full pass, complete or incomplete.", looked.at
        ),
        gauge("janitor_pass_duration_seconds", "Duration of the last full pass.", looked.took_s),
        gauge("janitor_unseen_parts", "Number of things the last full pass could not check.", len(looked.unseen)),
        Family(
            "janitor_pod_addresses_capacity", "Number of pods that the network has addresses for.", "gauge",
            tuple((key, capacity) for key, capacity, _ in sized), _NETWORK,
        ),
        Family(
            "janitor_pod_addresses_free", "Number of pods that can still get an address.", "gauge",
            tuple((key, free) for key, _, free in sized), _NETWORK,
        ),
        Family("janitor_leases", "Leases by verdict.", "gauge", tuple(verdicts), (*_NETWORK, "verdict")),
        Family(
            "janitor_exhaustion_forecast_seconds",
            "Seconds until no address is free, by the trend of the last hour; +Inf if the number does not fall.",
            "gauge", tuple(ends), _NETWORK,
        ),
        gauge(
            "janitor_oldest_orphan_age_seconds",
            "Age of the oldest lease that is proven dead and not freed yet; 0 if there is none.",
            looked.oldest_orphan_s or 0,
        ),
        Family(
            "janitor_findings", "Findings of the last full pass.", "gauge",
            tuple(((finding.id, finding.severity.value), finding.number) for finding in looked.findings),
            ("id", "severity"),
        ),
    )  # fmt: skip


def synced(files: int, seconds: float) -> tuple[Family, ...]:
    """What `durable` has synced to disk."""
    return (
        counter("janitor_files_synced", "CNI state files synced to disk.", files),
        counter("janitor_sync_seconds", "Time spent syncing CNI state files to disk.", seconds),
    )
