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
        typer.Argument(metavar="[FILE]...", help="kube.tf, config.yaml of k3s or RKE2, or what kubeadm or k0s got."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="CIDR", help="The private network of the nodes, at Hetzner.")
    ] = None,
    pods: Annotated[
        str | None, typer.Option("--pods", metavar="CIDR", help="The range of the pods; two with a comma: dual-stack.")
    ] = None,
    services: Annotated[
        str | None, typer.Option("--services", metavar="CIDR", help="The range of the Services; likewise.")
    ] = None,
    dns: Annotated[str | None, typer.Option("--dns", metavar="IP", help="The address of the cluster DNS.")] = None,
    node_subnet: Annotated[
        list[str] | None,
        typer.Option("--node-subnet", metavar="[NAME=]CIDR", help="A subnet that nodes are in; repeatable."),
    ] = None,
    node_ip: Annotated[
        list[str] | None,
        typer.Option("--node-ip", metavar="IP[=CIDR]", help="A node, and its pod range if it has one; repeatable."),
    ] = None,
    node_mask: Annotated[
        str | None, typer.Option("--node-mask", metavar="BITS", help="Of a node's pod range [24; 24,64].")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", metavar="N", help="How many nodes there will be at most.")
    ] = None,
    max_pods: Annotated[
        int | None, typer.Option("--max-pods", metavar="N", help="How many pods a node runs at most [110].")
    ] = None,
    scheme: Annotated[Scheme | None, typer.Option("--scheme", help="Node subnets follow from the network.")] = None,
    control_planes: Annotated[
        int | None, typer.Option("--control-plane-pools", metavar="N", help="Pools of the scheme [3].")
    ] = None,
    agents: Annotated[int | None, typer.Option("--agent-pools", metavar="N", help="Pools of the scheme [3].")] = None,
    routes: Annotated[
        bool | None, typer.Option("--routes/--no-routes", help="Each node has a route in the network, or an overlay.")
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="Form of the report.")] = Output.TABLE,
    fail_on: Annotated[Severity, typer.Option("--fail-on", help="Exit 1 from this severity on.")] = Severity.WARNING,
) -> None:
    """Judge an address plan before a cluster exists, and propose the nearest one without a fault.

    Flags win over files. Exit 0: nothing to report. 1: findings. 2: a file could not be read. 64: wrong usage.
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
            raise Stop(f"{name} is empty: leave it out, or give it a value", EXIT_USAGE)
    flags = _from_flags(given, node_subnet or [], node_ip or [])
    settings = [setting for file in files or () for setting in _read(file, frozenset(f.key for f in flags))] + flags
    if not any(s.key in ("cluster-cidr", "service-cidr", "network") for s in settings):
        raise Stop(
            "there is no plan to judge: name a file, or give --pods and --services, such as 'janitor cidr --pods "
            "10.42.0.0/16 --services 10.43.0.0/16'",
            EXIT_USAGE,
        )
    if scheme and not any(s.key == "network" for s in settings):
        raise Stop(f"--scheme {scheme} cuts node subnets out of the network: give --network as well", EXIT_USAGE)
    plan = plan_from(tuple(settings))
    if node_mask and plan.node_mask_v6 != 64 and not any(":" in part.value for part in plan.pods):
        raise Stop(f"--node-mask {node_mask}: no IPv4 range has so long a mask, and the pods have no other", EXIT_USAGE)
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
        raise Stop(f"reading the plan in {file}: {error.strerror}") from None
    except ValueError as error:
        raise Stop(f"reading the plan in {file}: {error}") from None


def _positive(flag: str, number: int | None) -> str | None:
    if number is not None and number < 1:
        raise Stop(f"{flag} {number}: it takes 1 or more", EXIT_USAGE)
    return None if number is None else str(number)


def _ones(flag: str, number: int | None) -> str | None:
    """`number` pools of one node each."""
    if number is not None and not 1 <= number <= 200:
        raise Stop(f"{flag} {number}: it takes 1 to 200", EXIT_USAGE)
    return None if number is None else ",".join(["1"] * number)


def _masks(text: str | None) -> dict[str, str | None]:
    """`24`, `/24` or `24,64`."""
    if text is None:
        return {}
    parts = [part.strip().removeprefix("/") for part in text.split(",")]
    if len(parts) > 2 or not all(part.isdecimal() and 1 <= int(part) <= 128 for part in parts):
        raise Stop(
            f"--node-mask {text}: it takes a number of bits, like 24, or two with a comma, like 24,64", EXIT_USAGE
        )
    masks = {"node-cidr-mask-size-ipv4": parts[0], "node-cidr-mask-size-ipv6": parts[1] if len(parts) > 1 else None}
    if len(parts) == 1 and int(parts[0]) > 32:
        masks = {"node-cidr-mask-size-ipv4": None, "node-cidr-mask-size-ipv6": parts[0]}
    return dict(masks)
