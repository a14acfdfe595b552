"""The programs of tests/real say that they are what its modules pin: a flag that the linker ignores would not show."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.lab import programs
from tests.lab.programs import CONTAINERD, CRICTL, KUBE_ROUTER, KUBERNETES, PLUGINS, Module

pytestmark = pytest.mark.system

WORDS = [
    *((KUBERNETES, name, "--version") for name in ("kubelet", "kube-apiserver", "kube-controller-manager")),
    (KUBERNETES, "kube-scheduler", "--version"),
    (KUBERNETES, "kubectl", "version --client"),
    (KUBERNETES, "kubeadm", "version"),
    *((CONTAINERD, name, "--version") for name in ("containerd", "ctr", "containerd-shim-runc-v2")),
    *((PLUGINS, name, "--version") for name in ("host-local", "bridge", "ptp", "portmap", "loopback")),
    (CRICTL, "crictl", "--version"),
    (KUBE_ROUTER, "kube-router", "--version"),
]


@pytest.mark.parametrize(("module", "name", "words"), WORDS, ids=lambda value: value if isinstance(value, str) else "")
def test_version(module: Module, name: str, words: str) -> None:
    if reason := programs.missing(module):
        pytest.skip(reason)
    argv = [str(programs.program(module, name)), *words.split()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    said = done.stdout + done.stderr
    assert re.search(rf"(?<![\d.])v?{re.escape(module.version)}(?![\d.])", said), said
