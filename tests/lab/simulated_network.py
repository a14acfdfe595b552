"""host-local and libcni of a simulated node: the same files, written and matched by the same rules."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

from tests.lab.networks import Network


class NetworkError(Exception):
    """The error message of libcni or the plugin."""


class SimulatedNetwork:
    """One network with one IPv4 range, below the node's /var/lib/cni."""

    def __init__(self, network: Network, cni_dir: Path) -> None:
        self.network = network
        self.leases = cni_dir / "networks" / network.name
        self.results = cni_dir / "results"
        ipam = network.config["plugins"][0]["ipam"]
        self.subnet = ip_network(ipam["ranges"][0][0]["subnet"])

    def add(self, container: str, pod_namespace: str, pod_name: str, pod_uid: str) -> str:
        """CNI ADD: reserve an address and cache the result, without syncing either."""
        with self._lock():
            address = self._reserve(f"{container}\r\neth0")
        arguments = [["K8S_POD_NAMESPACE", pod_namespace], ["K8S_POD_NAME", pod_name], ["K8S_POD_UID", pod_uid]]
        ip = {"address": f"{address}/{self.subnet.prefixlen}", "gateway": str(self.subnet[1]), "version": "4"}
        self._cache("cni-loopback", container, "lo", {"name": "cni-loopback", "cniVersion": "0.3.1"}, arguments, [])
        self._cache(self.network.name, container, "eth0", self.network.config, arguments, [ip])
        return address

    def delete(self, container: str) -> None:
        """CNI DEL. libcni < 1.2 refuses it if the cache entry is unreadable, from cniVersion 0.4.0 on."""
        entry = self.results / f"{self.network.name}-{container}-eth0"
        if self.network.config["cniVersion"] != "0.3.1" and entry.exists():
            try:
                json.loads(entry.read_bytes())
            except ValueError:
                raise NetworkError(
                    f'failed to destroy network for sandbox "{container}": failed to get network '
                    f'"{self.network.name}" cached result: decoding version from network config: '
                    "unexpected end of JSON input"
                ) from None
        with self._lock():
            for lease in self.leases.iterdir():
                if lease.read_bytes().strip() == f"{container}\r\neth0".encode():
                    lease.unlink()
        entry.unlink(missing_ok=True)
        (self.results / f"cni-loopback-{container}-lo").unlink(missing_ok=True)

    def _reserve(self, content: str) -> str:
        last = self.leases / "last_reserved_ip.0"
        first, end = int(self.subnet[2]), int(self.subnet[-1])  # the gateway is not allocated
        start = int(IPv4Address(last.read_text())) + 1 if last.exists() else first
        for number in (*range(start, end), *range(first, start)):
            address = str(IPv4Address(number))
            try:
                file = os.open(self.leases / address, os.O_RDWR | os.O_EXCL | os.O_CREAT, 0o600)
            except FileExistsError:
                continue
            os.write(file, content.encode())
            os.close(file)
            last.write_text(address)
            return address
        whole = f"{self.subnet[1]}-{self.subnet[-2]}"
        raise NetworkError(f"failed to allocate for range 0: no IP addresses available in range set: {whole}")

    def _cache(
        self,
        name: str,
        container: str,
        interface: str,
        config: dict[str, Any],
        arguments: list[list[str]],
        ips: list[Any],
    ) -> None:
        self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = {
            "kind": "cniCacheV1",
            "containerId": container,
            "config": base64.b64encode(json.dumps(config).encode()).decode(),
            "ifName": interface,
            "networkName": name,
            "cniArgs": arguments,
            "result": {"cniVersion": config["cniVersion"], "dns": {}, "ips": ips},
        }
        path = self.results / f"{name}-{container}-{interface}"
        path.write_text(json.dumps(entry))
        path.chmod(0o600)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.leases.mkdir(parents=True, exist_ok=True)
        file = os.open(self.leases / "lock", os.O_RDONLY | os.O_CREAT, 0o750)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)
