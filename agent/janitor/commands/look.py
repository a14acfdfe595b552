"""scan, explain and collect: the commands that only look. Nothing here writes anything on the node."""

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from janitor.commands.common import (
    EXIT_UNKNOWN,
    EXIT_USAGE,
    ConfigFile,
    DataDirs,
    Deadline,
    Endpoints,
    EvidenceFile,
    KubeConfig,
    NodesFile,
    NoMetadata,
    Root,
    Stop,
    load,
    options,
    terminal,
    wanted,
    write,
)
from janitor.core.model.findings import Severity

if TYPE_CHECKING:
    from janitor.core.leases.judgement import Judgement
    from janitor.core.model.evidence import Evidence
    from janitor.host.kubernetes.node_config import Wanted
    from janitor.report.document import Report


class Output(StrEnum):
    """Forms of the report."""

    TABLE = "table"
    JSON = "json"
    NPD = "npd"


def scan(
    output: Annotated[Output, typer.Option("-o", "--output", help="Output format.")] = Output.TABLE,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="IDS", help="Report only these findings: IDs or families (leases,KUB001)."),
    ] = None,
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="Exit with 1 for findings of this severity or higher.")
    ] = Severity.WARNING,
    everything: Annotated[bool, typer.Option("--all", help="Show all leases and details in the table.")] = False,
    evidence: EvidenceFile = None,
    root: Root = "/",
    cri_endpoint: Endpoints = None,
    data_dir: DataDirs = None,
    nodes: NodesFile = None,
    kubeconfig: KubeConfig = None,
    no_metadata: NoMetadata = False,
    deadline: Deadline = None,
    config: ConfigFile = None,
) -> None:
    """Report leaked leases and configuration faults. Changes nothing.

    Exit codes: 0 nothing to report, 1 findings, 2 something could not be checked, 64 wrong usage, 70 bug in janitor.
    """
    from janitor.core.model.unknown import Unknown
    from janitor.passes.scan import about_leases
    from janitor.report import document, npd, table

    if evidence is not None and (nodes or kubeconfig):
        raise Stop("--evidence cannot be used with --nodes or --kubeconfig", EXIT_USAGE)
    ask = wanted(nodes, kubeconfig, no_metadata)
    report, _ = _report(evidence, root, cri_endpoint, data_dir, deadline, config, only, fail_on, ask)
    if output is Output.JSON:
        write(document.to_json(report))
    elif output is Output.NPD:
        write(f"{npd.to_line(report)}\n".encode("utf-8", "backslashreplace"))
    else:
        width, colour = terminal()
        details = everything or only is not None
        text = table.to_table(
            report, width=width, colour=colour, details=details, every_lease=everything, leases=about_leases(only)
        )
        write(text.encode("utf-8", "backslashreplace"))
    if kubeconfig and isinstance(ask.objects, Unknown):  # the API server was asked for, and did not answer
        raise typer.Exit(EXIT_UNKNOWN)
    raise typer.Exit({"ok": 0, "findings": 1, "unknown": EXIT_UNKNOWN}[report.status])


def explain(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Pod address, IPv4 or IPv6.")],
    evidence: EvidenceFile = None,
    root: Root = "/",
    cri_endpoint: Endpoints = None,
    data_dir: DataDirs = None,
    deadline: Deadline = None,
    config: ConfigFile = None,
) -> None:
    """Explain why an address is taken, by whom, and what would free it. Changes nothing.

    Exit codes: 0 explained, 2 something could not be checked, 64 wrong usage, 70 bug in janitor.
    """
    from ipaddress import ip_address

    from janitor.report.explain import explain as explained
    from janitor.report.explain import not_seen

    try:
        canonical = str(ip_address(address.strip()))
    except ValueError:
        raise Stop(f"'{address}' is not an IP address; example: janitor explain 10.42.0.7", EXIT_USAGE) from None
    report, judgement = _report(
        evidence, root, cri_endpoint, data_dir, deadline, config, None, Severity.WARNING, explained_address=canonical
    )
    write(explained(report, judgement.sightings, canonical, terminal()[0]).encode("utf-8", "backslashreplace"))
    raise typer.Exit(EXIT_UNKNOWN if any(not_seen(report, judgement.sightings, canonical)) else 0)


def collect(
    root: Root = "/",
    cri_endpoint: Endpoints = None,
    data_dir: DataDirs = None,
    nodes: NodesFile = None,
    kubeconfig: KubeConfig = None,
    no_metadata: NoMetadata = False,
    deadline: Deadline = None,
    config: ConfigFile = None,
) -> None:
    """Print what 'scan' reads from the node, as JSON. Changes nothing.

    'janitor scan --evidence FILE' reports the same findings from the file on any machine.

    The output contains pod names, addresses, routes and container IDs. From command lines and environments it keeps
    only container IDs, CNI's variables and the options of Kubernetes and network components. It contains no tokens and
    no passwords.
    """
    from janitor.passes.scan import observe
    from janitor.report.evidence_json import encode

    ask = wanted(nodes, kubeconfig, no_metadata)
    write(encode(observe(replace(options(root, cri_endpoint, data_dir, deadline, config), node=ask))))


def _report(
    evidence_file: Path | None,
    root: str,
    cri_endpoint: list[str] | None,
    data_dir: list[str] | None,
    deadline: float | None,
    config: Path | None,
    only: str | None,
    fail_on: Severity,
    ask: "Wanted | None" = None,
    explained_address: str = "",
) -> "tuple[Report, Judgement]":
    from janitor.passes.scan import diagnose, observe, select
    from janitor.report.document import make_report

    if evidence_file is not None:
        if root != "/" or cri_endpoint or data_dir or deadline:
            others = "--root, --cri-endpoint, --data-dir or --deadline"
            raise Stop(f"--evidence cannot be used with {others}", EXIT_USAGE)
        evidence = _read_evidence(evidence_file)
    else:
        where = options(root, cri_endpoint, data_dir, deadline, config)
        where = replace(where, explained=(explained_address,) if explained_address else ())
        evidence = observe(replace(where, node=ask) if ask else where)
    try:
        diagnosis = select(diagnose(evidence, load(config).grace), only)
    except ValueError as error:
        raise Stop(f"--only {error}", EXIT_USAGE) from None
    return make_report(evidence, diagnosis, fail_on), diagnosis.judgement


def _read_evidence(file: Path) -> "Evidence":
    from janitor.report.evidence_json import decode

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return decode(data)
    except OSError as error:
        raise Stop(f"reading the evidence {file}: {error.strerror}") from None
    except ValueError as error:
        raise Stop(f"reading the evidence {file}: {error}") from None
