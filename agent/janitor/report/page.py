"""The page that shows a node to people: plain HTML that loads nothing and runs nothing."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_network
from itertools import islice
from typing import Any, Final

import jinja2

from janitor.core.leases.judgement import Verdict
from janitor.core.model.text import safe
from janitor.report.document import LeaseRow, NetworkRow, Report
from janitor.report.events import LogEvent

NOW: Final = "<!--now-->"
"""Placeholder for what has happened since the page was made."""
ACTIONS: Final = "<!--actions-->"
"""Placeholder for the actions, which continue while no pass runs."""
_MOST_CELLS: Final = 1024
_MOST_ROWS: Final = 200
_LETTERS: Final = {
    Verdict.LIVE: "L", Verdict.HELD: "H", Verdict.PENDING: "P", Verdict.ORPHANED: "O", Verdict.CORRUPT: "C",
    Verdict.FOREIGN: "F", Verdict.MISSING: "M",
}  # fmt: skip


def _template(name: str) -> jinja2.Template:
    text = files("janitor.report").joinpath(name).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    return environment.from_string(text)


def _plain(value: Any) -> Any:
    """Text without control characters except newlines: people also read the page with curl."""
    return "\n".join(safe(line) for line in value.split("\n")) if type(value) is str else value


# Compiled once, in the daemon rather than in each pass.
_PAGE: Final = _template("page.html")
_ACTIONS: Final = _template("actions.html")


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """An action of janitor, its time (seconds since the epoch), and its proof."""

    at: float
    what: str
    proof: str


def action_record(at: float, event: LogEvent, fields: Mapping[str, object]) -> ActionRecord | None:
    """The action that a log line reports; None if the event is not an action."""
    if event.action is None:
        return None
    known = {**dict.fromkeys(event.fields, ""), **fields}
    subject, proof = event.action.subject.format_map(known), event.action.proof.format_map(known)
    return ActionRecord(at, f"{event.value}: {subject}", proof)


@dataclass(frozen=True, slots=True)
class Cell:
    """One address of the map: a letter and `kind` for its state, and the sentence behind it."""

    address: str
    letter: str
    kind: str
    title: str


def page(report: Report, at: float) -> str:
    """The page of one pass, without what changes between passes."""
    by_directory: dict[str, list[LeaseRow]] = {}
    for lease in report.leases:
        by_directory.setdefault(lease.directory, []).append(lease)
    networks = [
        (network, _cells(network, by_directory.get(f"{network.data_dir}/{network.name}", [])))
        for network in report.networks
    ]
    dead = [lease for lease in report.leases if lease.verdict is not Verdict.LIVE]
    return _PAGE.render(
        report=report, at=_moment(at), networks=networks, actions=ACTIONS,
        leases=dead[:_MOST_ROWS], more=max(0, len(dead) - _MOST_ROWS), now=NOW,
        letters=[(letter, verdict.value) for verdict, letter in _LETTERS.items()],
    )  # fmt: skip


def actions_table(action_records: tuple[ActionRecord, ...]) -> str:
    """The actions of janitor, the latest first. Rendered for each request, because it is small."""
    return _ACTIONS.render(actions=[(_moment(d.at), d) for d in action_records[:_MOST_ROWS]])


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _cells(network: NetworkRow, leases: list[LeaseRow]) -> list[Cell]:
    """The map of one network: every address that a pod can get; of a range too large for that, only the leased ones."""
    taken = {lease.address: lease for lease in leases}
    subnets = [subnet for row in network.ranges for subnet in row.subnets]
    reserved = {address: why for row in network.ranges for address, why in row.reserved.items()}
    if sum(ip_network(subnet).num_addresses for subnet in subnets) > _MOST_CELLS:
        addresses = list(taken)[:_MOST_CELLS]
    else:
        addresses = [address for subnet in subnets for address in _hosts(subnet)]
        within = set(addresses)
        addresses += [address for address in taken if address not in within]
    return [_cell(address, taken.get(address), reserved.get(address)) for address in islice(addresses, _MOST_CELLS)]


def _hosts(subnet: str) -> Iterator[str]:
    return (str(address) for address in ip_network(subnet).hosts())


def _cell(address: str, lease: LeaseRow | None, reserved: str | None) -> Cell:
    if lease is not None:
        whose = f" {lease.pod}" if lease.pod else ""
        return Cell(address, _LETTERS[lease.verdict], lease.verdict.value, f"{address} {lease.verdict}{whose}")
    if reserved is not None:
        return Cell(address, "–", "reserved", f"{address}: {reserved}")
    return Cell(address, "·", "free", f"{address} free")
