"""A real control plane on a machine of the lab: etcd, the API server and, if wanted, its controllers and scheduler.

It serves one machine, or several that reach its address. Everything is in the machine's namespaces. etcd's data and
/etc/kubernetes are on its disk, so the cluster survives a power cut.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import pki, programs
from tests.lab.cache import MissingError
from tests.lab.machine import Machine

PKI = "/etc/kubernetes/pki"
SERVICES = "10.96.0.0/16"
Object = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """The programs of one Kubernetes release, in a directory."""

    directory: Path
    minor: int

    def program(self, name: str) -> str:
        return str(self.directory / name)


def current() -> Release:
    """The release that tests/real pins. MissingError."""
    if reason := programs.missing(programs.KUBERNETES):
        raise MissingError(reason)
    return Release(programs.KUBERNETES.directory, int(programs.KUBERNETES.version.split(".")[1]))


def oldest() -> Release:
    """Kubernetes 1.20, the oldest supported: kubernetes-1.20 in the directory JANITOR_REAL. MissingError."""
    (directory,) = programs.elsewhere("kubernetes-1.20")
    return Release(directory, 20)


def missing() -> str | None:
    """What a control plane needs and this machine lacks, or None."""
    if not shutil.which("etcd"):
        return "not installed: etcd (apt-get install etcd-server)"
    return pki.missing()


class ControlPlane:
    """The processes, and kubectl. Each process can be killed and started by its name."""

    def __init__(self, machine: Machine, release: Release, address: str) -> None:
        """`address`: one that the machine has, or will have, on a link."""
        self.machine = machine
        self.release = release
        self.address = address
        self.etc = machine.disk / "etc-kubernetes"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        directory = self.etc / "pki"
        pki.make_ca(directory)
        names = ["IP:127.0.0.1", f"IP:{address}", "IP:10.96.0.1", "DNS:localhost", "DNS:kubernetes.default.svc"]
        pki.sign(directory, "apiserver", "/CN=kube-apiserver", *names)
        self.identity("admin", "/O=system:masters/CN=admin")

    def identity(self, name: str, subject: str, *alternatives: str) -> None:
        """A certificate, and /etc/kubernetes/NAME.conf with it."""
        pki.sign(self.etc / "pki", name, subject, *alternatives)
        pki.write_kubeconfig(self.etc / f"{name}.conf", f"https://{self.address}:6443", PKI, name)

    # Its processes.

    def start(self, name: str, *argv: str, env: Mapping[str, str] | None = None) -> None:
        """Start a program under this name; its log is appended to one in the machine's directory."""
        with self.log(name).open("a") as log:
            self.processes[name] = self.machine.popen(argv, stdout=log, stderr=subprocess.STDOUT, env=env)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> Path:
        return self.machine.directory / f"{name}.log"

    def start_api_server(self, *more: str, services: str = SERVICES) -> None:
        """Start etcd and the API server; `wait` returns when they are up."""
        client = "http://127.0.0.1:2379"
        self.start(
            "etcd",
            str(shutil.which("etcd")),
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
            "--logger=zap",
        )
        self.start(
            "kube-apiserver",
            self.release.program("kube-apiserver"),
            f"--etcd-servers={client}",
            "--secure-port=6443",
            f"--advertise-address={self.address}",
            f"--tls-cert-file={PKI}/apiserver.crt",
            f"--tls-private-key-file={PKI}/apiserver.key",
            f"--client-ca-file={PKI}/ca.crt",
            f"--service-cluster-ip-range={services}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI}/sa.pub",
            f"--service-account-signing-key-file={PKI}/sa.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={PKI}/admin.crt",
            f"--kubelet-client-key={PKI}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            *more,
        )

    def wait(self, timeout: float = 180) -> None:
        """Wait until the API server is ready."""
        deadline = time.monotonic() + timeout
        while self.kubectl("get", "--raw", "/readyz", check=False).stdout.strip() != "ok":
            names = ("etcd", "kube-apiserver")
            if any(self.processes[name].poll() is not None for name in names) or time.monotonic() > deadline:
                said = "\n".join(line for name in names for line in self.log(name).read_text().splitlines()[-10:])
                raise RuntimeError(f"the API server did not come up within {timeout:g} s:\n{said}")
            time.sleep(0.2)

    def start_controllers(self, pods: str, mask: int) -> None:
        """Start the scheduler, and the controller-manager, which gives each Node a range of this size from `pods`."""
        if not (self.etc / "controller-manager.conf").exists():
            self.identity("controller-manager", "/CN=system:kube-controller-manager")
            self.identity("scheduler", "/CN=system:kube-scheduler")
        self.start(
            "kube-controller-manager",
            self.release.program("kube-controller-manager"),
            "--kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={pods}",
            f"--node-cidr-mask-size={mask}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--service-account-private-key-file={PKI}/sa.key",
            f"--root-ca-file={PKI}/ca.crt",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
        )
        scheduler = ["--kubeconfig=/etc/kubernetes/scheduler.conf", "--leader-elect=false"]
        self.start("kube-scheduler", self.release.program("kube-scheduler"), *scheduler)

    # Asking it.

    def kubectl(
        self, *words: str, check: bool = True, objects: Object | list[Object] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the current kubectl on the machine, as an administrator; `objects` are its standard input."""
        argv = [current().program("kubectl"), "--kubeconfig=/etc/kubernetes/admin.conf", *words]
        if isinstance(objects, list):
            objects = {"apiVersion": "v1", "kind": "List", "items": objects}
        told = json.dumps(objects) if objects is not None else None
        return self.machine.run(argv, check=check, input=told, timeout=timeout, env={"HOME": "/run"})

    def get(self, *words: str) -> list[Object]:
        """The objects that `kubectl get WORDS` lists."""
        items: list[Object] = json.loads(self.kubectl("get", *words, "-o", "json").stdout)["items"]
        return items

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", objects=list(objects))
