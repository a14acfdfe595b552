"""Hetzner's metadata service: what the cloud thinks this server is. Asked only where the machine looks like theirs."""

import http.client
from typing import Any, Final

import yaml

from janitor.core.evidence import Unknown
from janitor.core.evidence_node import Machine, PrivateNetwork, Route
from janitor.host import yaml_files
from janitor.host.files import inside, printable, read_bounded

ADDRESS: Final = "169.254.169.254"
_BASE: Final = "/hetzner/v1/metadata"
_TIMEOUT_S = 1.0
_LIMIT = 1 << 20


def vendor(root: str) -> str:
    """Who made the machine, as DMI says; "" where it says nothing."""
    try:
        text = read_bounded(inside(root, "/sys/class/dmi/id/sys_vendor"), 256)
    except OSError:
        return ""
    return printable(text.decode("utf-8", "replace").strip())


def machine(made_by: str, routes: tuple[Route, ...] | Unknown, wanted: bool) -> tuple[Machine, ...] | Unknown:
    """What the service says. Unknown, with the reason, where it was not asked or did not answer."""
    known = () if isinstance(routes, Unknown) else routes
    if not wanted:
        return Unknown("the metadata service was not asked (--no-metadata)")
    if made_by != "Hetzner" and not any(route.destination == f"{ADDRESS}/32" for route in known):
        return Unknown("this is not a server of Hetzner Cloud, as far as DMI and the routes say")
    try:
        facts = {name: _get(name) for name in ("instance-id", "hostname", "region")}
        networks = _networks(_get("private-networks"))
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unknown(f"asking the metadata service at {ADDRESS}: {what}", "ip route get 169.254.169.254")
    return (Machine(facts["instance-id"], facts["hostname"], facts["region"], networks),)


def _get(name: str) -> str:
    connection = http.client.HTTPConnection(ADDRESS, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"{_BASE}/{name}")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{name}: {answer.status} {answer.reason}")
        return answer.read(_LIMIT).decode("utf-8", "replace").strip()
    finally:
        connection.close()


def _networks(text: str) -> tuple[PrivateNetwork, ...] | Unknown:
    """`private-networks` is a YAML list; "" or `[]` where the server is attached to none."""
    try:
        listed = yaml.safe_load(text) or []
        return tuple(_network(entry) for entry in listed)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return Unknown("the metadata service's list of private networks cannot be understood")


def _network(entry: dict[str, Any]) -> PrivateNetwork:
    def text(name: str) -> str:
        return yaml_files.scalar(entry.get(name))

    aliases = tuple(str(ip) for ip in entry.get("alias_ips") or ())
    return PrivateNetwork(
        text("network_id"), text("network_name"), text("ip"), aliases, text("network"), text("subnet"), text("gateway")
    )
