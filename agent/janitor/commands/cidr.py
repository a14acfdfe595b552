"""cidr: check an address plan before a cluster exists, and propose a better one. Reads only files."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from janitor.commands.common import EXIT_USAGE, Stop, terminal, write
from janitor.core.model.findings import Severity

if TYPE_CHECKING:
    from janitor.core.model.evidence_node import Setting


class Output(StrEnum):
    """Forms of the report."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"


class Scheme(StrEnum):
    """Ways in which node subnets follow from a network."""

    KUBE_HETZNER = "kube-hetzner"


def cidr(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="kube.tf, or the configuration of k3s, RKE2, kubeadm or k0s."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="CIDR", help="Private network of the nodes at Hetzner.")
    ] = None,
    pods: Annotated[
        str | None, typer.Option("--pods", metavar="CIDR", help="Pod range; IPv4,IPv6 for dual-stack.")
    ] = None,
    services: Annotated[
        str | None, typer.Option("--services", metavar="CIDR", help="Service range; IPv4,IPv6 for dual-stack.")
    ] = None,
    dns: Annotated[str | None, typer.Option("--dns", metavar="IP", help="Address of the cluster DNS.")] = None,
    node_subnet: Annotated[
        list[str] | None,
        typer.Option("--node-subnet", metavar="[NAME=]CIDR", help="Subnet that contains nodes; repeatable."),
    ] = None,
    node_ip: Annotated[
        list[str] | None,
        typer.Option(
            "--node-ip", metavar="IP[=CIDR]", help="Node address, with its pod range if assigned; repeatable."
        ),
    ] = None,
    node_mask: Annotated[
        str | None,
        typer.Option(
            "--node-mask",
            metavar="BITS",
            help="Prefix length of a node's pod range.  [default: 24,64]",
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", metavar="N", help="Maximum number of nodes.")] = None,
    max_pods: Annotated[
        int | None, typer.Option("--max-pods", metavar="N", help="Maximum number of pods on a node.  [default: 110]")
    ] = None,
    scheme: Annotated[Scheme | None, typer.Option("--scheme", help="Derive node subnets from --network.")] = None,
    control_planes: Annotated[
        int | None,
        typer.Option("--control-plane-pools", metavar="N", help="Control-plane pools of --scheme.  [default: 3]"),
    ] = None,
    agents: Annotated[
        int | None, typer.Option("--agent-pools", metavar="N", help="Agent pools of --scheme.  [default: 3]")
    ] = None,
    routes: Annotated[
        bool | None,
        typer.Option("--routes/--no-routes", help="Whether nodes have routes in the network, or an overlay."),
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="Output format.")] = Output.TABLE,
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="Exit with 1 for findings of this severity or higher.")
    ] = Severity.WARNING,
) -> None:
    """Check the address plan of a cluster before it exists.

    Proposes the nearest plan without a finding. Options override values in the files.

    Exit codes: 0 nothing to report, 1 findings, 2 unreadable file, 64 wrong usage, 70 bug in janitor.
    """
    from janitor.core.address_plan.settings import plan_from
    from janitor.report import cidr_document, cidr_html, cidr_table

    given = {
        "network": network, "cluster-cidr": pods, "service-cidr": services, "cluster-dns": dns,
        "nodes": _positive("--nodes", nodes), "max-pods": _positive("--max-pods", max_pods),
        "scheme": str(scheme) if scheme else None, "routes": None if routes is None else str(routes).lower(),
        "control-plane-pools": _ones("--control-plane-pools", control_planes),
        "agent-pools": _ones("--agent-pools", agents), **_masks(node_mask),
    }  # fmt: skip
    for name, value in (("--network", network), ("--pods", pods), ("--services", services), ("--dns", dns)):
        if value is not None and not value.strip(" ,"):
            raise Stop(f"{name} is empty: give a value or omit the option", EXIT_USAGE)
    flags = _from_flags(given, node_subnet or [], node_ip or [])
    settings = [setting for file in files or () for setting in _read(file, frozenset(f.key for f in flags))] + flags
    if not any(s.key in ("cluster-cidr", "service-cidr", "network") for s in settings):
        raise Stop(
            "no address plan given: name a file, or use --pods and --services, for example 'janitor cidr --pods "
            "10.42.0.0/16 --services 10.43.0.0/16'",
            EXIT_USAGE,
        )
    if scheme and not any(s.key == "network" for s in settings):
        raise Stop(f"--scheme {scheme} derives node subnets from the network: add --network", EXIT_USAGE)
    plan = plan_from(tuple(settings))
    if node_mask and plan.node_mask_v6 != 64 and not any(":" in part.value for part in plan.pods):
        raise Stop(
            f"--node-mask {node_mask}: the IPv6 prefix length is {plan.node_mask_v6}, but no pod range is IPv6",
            EXIT_USAGE,
        )
    report = cidr_document.make_report(plan, fail_on)
    if output is Output.JSON:
        write(cidr_document.to_json(report))
    elif output is Output.HTML:
        write(cidr_html.to_html(report).encode("utf-8", "backslashreplace"))
    else:
        width, colour = terminal()
        write(cidr_table.to_table(report, width=width, colour=colour).encode("utf-8", "backslashreplace"))
    raise typer.Exit(1 if report.status == "findings" else 0)


def _from_flags(given: dict[str, str | None], subnets: list[str], addresses: list[str]) -> "list[Setting]":
    from janitor.core.model.evidence_node import Setting

    names = {"cluster-cidr": "--pods", "service-cidr": "--services", "cluster-dns": "--dns"}
    found = [
        Setting("flags", key, value, names.get(key, f"--{key}")) for key, value in given.items() if value is not None
    ]
    found += [Setting("flags", "node-subnet", value, "--node-subnet") for value in subnets]
    return found + [Setting("flags", "node-ip", value, "--node-ip") for value in addresses]


def _read(file: Path, given: frozenset[str]) -> "tuple[Setting, ...]":
    from janitor.host.kubernetes import plan_files

    try:
        return plan_files.settings(str(file), given)
    except OSError as error:
        raise Stop(f"reading the address plan {file}: {error.strerror}") from None
    except ValueError as error:
        raise Stop(f"reading the address plan {file}: {error}") from None


def _positive(flag: str, number: int | None) -> str | None:
    if number is not None and number < 1:
        raise Stop(f"{flag} {number}: must be 1 or more", EXIT_USAGE)
    return None if number is None else str(number)


def _ones(flag: str, number: int | None) -> str | None:
    """`number` pools of one node each."""
    if number is not None and not 1 <= number <= 200:
        raise Stop(f"{flag} {number}: must be 1 to 200", EXIT_USAGE)
    return None if number is None else ",".join(["1"] * number)


def _masks(text: str | None) -> dict[str, str | None]:
    """`24`, `/24` or `24,64`."""
    if text is None:
        return {}
    parts = [part.strip().removeprefix("/") for part in text.split(",")]
    if len(parts) > 2 or not all(part.isdecimal() and 1 <= int(part) <= 128 for part in parts):
        raise Stop(f"--node-mask {text}: must be a prefix length such as 24, or two such as 24,64", EXIT_USAGE)
    masks = {"node-cidr-mask-size-ipv4": parts[0], "node-cidr-mask-size-ipv6": parts[1] if len(parts) > 1 else None}
    if len(parts) == 1 and int(parts[0]) > 32:
        masks = {"node-cidr-mask-size-ipv4": None, "node-cidr-mask-size-ipv6": parts[0]}
    return dict(masks)
