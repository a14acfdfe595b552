"""Where distributions keep CNI configuration, CNI plugins, and the files that plugins and libcni write.

A running runtime names its directories itself. These are for a node whose runtime does not answer or has not started
yet, and for plugins that janitor runs. Standard library only.
"""

from dataclasses import dataclass
from typing import Final

CNI_STATE_DIR: Final = "/var/lib/cni"
"""libcni's CacheDir (libcni/api.go), and the parent of what host-local, multus and flannel's plugin write."""

DATA_DIR: Final = f"{CNI_STATE_DIR}/networks"
"""host-local's data directory if the configuration has no `dataDir` (plugins/ipam/host-local/backend/disk)."""

CACHES: Final = (
    f"{CNI_STATE_DIR}/results",
    f"{CNI_STATE_DIR}/cache/results",  # dockershim, cri-dockerd
    f"{CNI_STATE_DIR}/multus/results",
)
"""libcni's result caches."""

SHARED: Final = "/etc/cni/net.d"
"""The configuration directory that podman and nerdctl also use."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories of one distribution, and the files that configure its runtime.

    In `plugins`, `*` stands for one directory of any name.
    """

    distribution: str
    configuration: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    runtime_files: tuple[str, ...] = ()
    runtime_drop_ins: tuple[str, ...] = ()


LAYOUTS: Final = (
    # containerd's defaults (containerd, internal/cri/config/config_unix.go); kubeadm, RKE2 and k0s keep them.
    Layout("containerd", (SHARED,), ("/opt/cni/bin",), ("/etc/containerd/config.toml",), ("/etc/containerd/conf.d",)),
    # The package containernetworking-plugins: Debian and Ubuntu, then Fedora and its relatives.
    Layout("Debian", plugins=("/usr/lib/cni",)),
    Layout("Fedora", plugins=("/usr/libexec/cni",)),
    # k3s pkg/agent/config/config.go: beside its own host-local; newer versions have them in data/cni.
    Layout(
        "k3s",
        ("/var/lib/rancher/k3s/agent/etc/cni/net.d",),
        ("/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/data/cni"),
        ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml",),
    ),
    # RKE2 is k3s' agent. Its own charts use containerd's default directories; other CNIs may use these.
    Layout(
        "rke2",
        ("/var/lib/rancher/rke2/agent/etc/cni/net.d",),
        ("/var/lib/rancher/rke2/data/*/bin",),
        ("/var/lib/rancher/rke2/agent/etc/containerd/config.toml",),
    ),
    # docs.k0sproject.io, runtime: both files are containerd's configuration.
    Layout("k0s", (SHARED,), ("/var/lib/k0s/bin/cni",), ("/etc/k0s/containerd.toml", "/run/k0s/containerd-cri.toml")),
    # microk8s-resources/default-args/containerd-template.toml
    Layout(
        "microk8s",
        ("/var/snap/microk8s/current/args/cni-network",),
        ("/var/snap/microk8s/current/opt/cni/bin",),
        ("/var/snap/microk8s/current/args/containerd.toml",),
    ),
    # crio.conf(5): network_dir, plugin_dirs
    Layout(
        "cri-o",
        (SHARED,),
        ("/opt/cni/bin",),
        ("/etc/crio/crio.conf",),
        ("/etc/crio/crio.conf.d", "/usr/lib/crio/crio.conf.d"),
    ),
)

CONFIGURATION: Final = tuple(dict.fromkeys(path for layout in LAYOUTS for path in layout.configuration))
PLUGINS: Final = tuple(dict.fromkeys(path for layout in LAYOUTS for path in layout.plugins))
RUNTIME_FILES: Final = tuple(dict.fromkeys(path for layout in LAYOUTS for path in layout.runtime_files))
RUNTIME_DROP_INS: Final = tuple(dict.fromkeys(path for layout in LAYOUTS for path in layout.runtime_drop_ins))
