"""The part of the Hetzner Cloud API that a cloud controller needs for routes, on the loopback.

`cloud_api.py PORT LIMIT` serves it. Like the real one it has pages, actions that end later, `locked` while one runs, a
limit of routes, and refused destinations and gateways. Unlike it, it wants no token, makes a server of {name,
private_ip} alone, and forgets everything at its end.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

NETWORK_ID = 4711
RANGE = "10.0.0.0/8"
SUBNET = "10.0.0.0/16"
ACTION_S = 0.3
DATE = "2026-01-01T00:00:00Z"
_LOCATION: Json = {
    "id": 1, "name": "fsn1", "description": "", "country": "DE", "city": "", "latitude": 0, "longitude": 0,
    "network_zone": "eu-central",
}  # fmt: skip


class RefusedError(Exception):
    """An error response of the API."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"code": code, "message": message, "details": None}}


class Cloud:
    """One project: a network, its servers and its routes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock = threading.RLock()
        self.servers: dict[int, Json] = {}
        self.actions: dict[int, Json] = {}
        self.ends: dict[int, float] = {}
        self.numbers = itertools.count(1000)
        gateway = str(ipaddress.ip_network(RANGE)[1])
        subnet = {"type": "cloud", "ip_range": SUBNET, "network_zone": "eu-central", "gateway": gateway,
                  "vswitch_id": None}  # fmt: skip
        self.network: Json = {
            "id": NETWORK_ID, "name": "k8s", "ip_range": RANGE, "subnets": [subnet], "routes": [], "servers": [],
            "load_balancers": [], "labels": {}, "protection": {"delete": False}, "created": DATE,
            "expose_routes_to_vswitch": False,
        }  # fmt: skip

    def route(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, Json]:
        """Status and body of the response. RefusedError."""
        name = query.get("name", [None])[0]
        if path == "/locations":
            return 200, _page("locations", [_LOCATION], query)
        if path in ("/load_balancers", "/load_balancer_types"):
            return 200, _page(path[1:], [], query)
        if path == "/servers" and method == "POST":
            return 201, {"server": self.make_server(body["name"], body["private_ip"])}
        if path == "/servers":
            return 200, _page("servers", [s for s in self.servers.values() if name in (None, s["name"])], query)
        if path == "/networks":
            return 200, _page("networks", [self.network] if name in (None, self.network["name"]) else [], query)
        if path == "/actions":
            wanted = {int(number) for number in query.get("id", [])}
            chosen = [self.action(number) for number in self.actions if not wanted or number in wanted]
            return 200, _page("actions", chosen, query)
        if found := re.fullmatch(r"/(servers|networks|actions)/(\d+)", path):
            return self.one(method, found[1], int(found[2]))
        if found := re.fullmatch(r"/networks/(\d+)/actions/(add_route|delete_route)", path):
            if time.monotonic() < max(self.ends.values(), default=0):
                raise RefusedError(423, "locked", "network is locked")
            return 201, self.add_route(body) if found[2] == "add_route" else self.delete_route(body)
        raise RefusedError(404, "not_found", "not found")

    def one(self, method: str, kind: str, number: int) -> tuple[int, Json]:
        if kind == "actions" and number in self.actions:
            return 200, {"action": self.action(number)}
        found = {"servers": self.servers, "networks": {NETWORK_ID: self.network}}.get(kind, {}).get(number)
        if found is None:
            raise RefusedError(404, "not_found", f"{kind[:-1]} with ID '{number}' not found")
        if method == "DELETE" and kind == "servers":
            del self.servers[number]
            self.network["servers"].remove(number)
            return 200, self.begin("delete_server", number, "server")
        return 200, {kind[:-1]: found}

    def make_server(self, name: str, private_ip: str) -> Json:
        number = next(self.numbers)
        private = {"network": NETWORK_ID, "ip": private_ip, "alias_ips": [],
                   "mac_address": f"86:00:00:00:{number >> 8 & 255:02x}:{number & 255:02x}"}  # fmt: skip
        public = {
            "ipv4": {"id": number, "ip": f"198.51.100.{number % 250 + 1}", "blocked": False, "dns_ptr": ""},
            "ipv6": {"id": number, "ip": f"2001:db8:{number:x}::/64", "blocked": False, "dns_ptr": []},
            "floating_ips": [], "firewalls": [],
        }  # fmt: skip
        available: Json = {"available": [], "available_for_migration": [], "supported": []}
        made: Json = {
            "id": number, "name": name, "status": "running", "created": DATE, "labels": {}, "volumes": [],
            "rescue_enabled": False, "locked": False, "backup_window": None, "outgoing_traffic": 0,
            "ingoing_traffic": 0, "included_traffic": 1, "protection": {"delete": False, "rebuild": False},
            "primary_disk_size": 40, "load_balancers": [], "image": None, "iso": None, "placement_group": None,
            "location": _LOCATION,
            "datacenter": {"id": 1, "name": "fsn1-dc14", "description": "", "location": _LOCATION,
                           "server_types": available},
            "server_type": {"id": 1, "name": "cx22", "description": "", "cores": 2, "memory": 4, "disk": 40,
                            "deprecated": False, "prices": [], "storage_type": "local", "cpu_type": "shared",
                            "architecture": "x86"},
            "public_net": public, "private_net": [private],
        }  # fmt: skip
        self.servers[number] = made
        self.network["servers"].append(number)
        return made

    def add_route(self, body: Json) -> Json:
        wanted = ipaddress.ip_network(body["destination"])
        taken = [route["destination"] for route in self.network["routes"]]
        taken += [SUBNET] if body["destination"] != "0.0.0.0/0" else []
        if any(wanted.overlaps(ipaddress.ip_network(other)) for other in taken):
            text = "network route destination overlaps with another subnetwork or network route"
            raise RefusedError(422, "invalid_input", text)
        gateway = ipaddress.ip_address(body["gateway"])
        if gateway == ipaddress.ip_network(RANGE)[1] or gateway not in ipaddress.ip_network(SUBNET):
            raise RefusedError(422, "invalid_input", "invalid gateway")
        if len(self.network["routes"]) >= self.limit:
            raise RefusedError(403, "resource_limit_exceeded", "route limit exceeded")
        self.network["routes"].append({"destination": body["destination"], "gateway": body["gateway"]})
        return self.begin("add_route", NETWORK_ID, "network")

    def delete_route(self, body: Json) -> Json:
        entry = {"destination": body["destination"], "gateway": body["gateway"]}
        if entry not in self.network["routes"]:
            raise RefusedError(404, "not_found", "route not found")
        self.network["routes"].remove(entry)
        return self.begin("delete_route", NETWORK_ID, "network")

    def begin(self, command: str, resource: int, kind: str) -> Json:
        number = next(self.numbers)
        self.ends[number] = time.monotonic() + ACTION_S
        self.actions[number] = {
            "id": number, "command": command, "status": "running", "progress": 0, "started": DATE, "finished": None,
            "resources": [{"id": resource, "type": kind}], "error": None,
        }  # fmt: skip
        return {"action": self.action(number)}

    def action(self, number: int) -> Json:
        found = self.actions[number]
        if self.ends[number] <= time.monotonic():
            found.update(status="success", progress=100, finished=DATE)
        return found


def _page(key: str, entries: list[Json], query: dict[str, list[str]]) -> Json:
    page, size = int(query.get("page", ["1"])[0]), min(int(query.get("per_page", ["25"])[0]), 50)
    last = max(1, -(-len(entries) // size))
    about = {
        "page": page, "per_page": size, "previous_page": page - 1 or None,
        "next_page": page + 1 if page < last else None, "last_page": last, "total_entries": len(entries),
    }  # fmt: skip
    return {key: entries[(page - 1) * size : page * size], "meta": {"pagination": about}}


class Api(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def answer(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        try:
            with self.cloud.lock:
                path = parts.path.removeprefix("/v1")
                status, reply = self.cloud.route(self.command, path, parse_qs(parts.query), body)
                data = json.dumps(reply).encode()
        except RefusedError as refused:
            status, data = refused.status, json.dumps(refused.body).encode()
        self.send_response(status)
        limits = {"RateLimit-Limit": "3600", "RateLimit-Remaining": "3500", "RateLimit-Reset": "1"}
        about = {"Content-Type": "application/json", "Content-Length": str(len(data)), **limits}
        for name, value in about.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PUT = answer  # noqa: N815 - http.server looks for these


if __name__ == "__main__":
    Api.cloud = Cloud(int(sys.argv[2]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
