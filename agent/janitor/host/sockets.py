"""Where container runtimes answer: the CRI sockets that everybody knows. Standard library only."""

from typing import Final

CRI: Final = (
    "/run/containerd/containerd.sock",  # kubeadm
    "/run/k3s/containerd/containerd.sock",  # k3s, RKE2
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)

DOCKER: Final = "/run/docker/containerd/containerd.sock"
"""docker's own containerd: no CRI, but pods of cri-dockerd's run behind it."""
