"""LEASE010: the leases are stored where they survive a reboot, although no lease can be alive after one."""

from collections.abc import Iterator
from textwrap import wrap

from janitor.core.leases.judgement import Judgement
from janitor.core.leases.usage import usage
from janitor.core.model.evidence import Evidence, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, File, Fix

_RUNTIMES = (
    "containerd", "crio", "docker", "cri-docker", "kubelet", "k3s", "k3s-agent", "rke2-server", "rke2-agent",
    "k0scontroller", "k0sworker", "snap.microk8s.daemon-containerd",
)  # fmt: skip
_MEMORY = frozenset({"tmpfs", "ramfs"})


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for each data directory on a disk."""
    in_scope = {n.directory for n in usage(evidence, judgement) if n.in_scope}
    filesystems = {
        d.path.rpartition("/")[0]: d.filesystem
        for d in known(evidence.lease_directories)
        if d.path in in_scope and d.filesystem and d.filesystem not in _MEMORY
    }
    for data_dir, filesystem in filesystems.items():
        yield Finding.of(
            id=FindingId.LEASE010,
            subject=data_dir,
            summary=f"leases survive a reboot but pods do not: {data_dir} is on {filesystem}",
            evidence=(f"{data_dir} is on {filesystem}",),
            explanation=(
                "No network namespace survives a reboot, so afterwards every lease is either released by the kubelet "
                "or leaked. On a tmpfs all leases are gone after a reboot. Mount it on a drained node and before any "
                "runtime starts, because it hides the leases of running pods. Or let janitor's boot stage "
                "(janitor-boot.service) free them before any runtime starts, which keeps the order of addresses."
            ),
            fix=_unit(data_dir),
        )


def _unit(data_dir: str) -> Fix:
    """A mount unit. systemd wants its file named after the path, with `-` for `/` (systemd.unit(5))."""
    name = data_dir.strip("/").replace("-", r"\x2d").replace("/", "-")
    shipped = " (it is in janitor's systemd/)" if name == "var-lib-cni-networks" else ""
    runtimes = wrap(" ".join(f"{name}.service" for name in _RUNTIMES), 70, break_on_hyphens=False)
    before = "\n".join(f"Before={names}" for names in runtimes)  # split, so that a terminal does not wrap it
    path = f"/etc/systemd/system/{name}.mount"
    text = f"""[Unit]
Description=CNI leases in memory: none can be alive after a boot
{before}
ConditionPathExists=!/run/netns
[Mount]
What=tmpfs
Where={data_dir}
Type=tmpfs
Options=mode=0755,size=64M,nosuid,nodev,noexec
[Install]
WantedBy=local-fs.target"""
    enabling = Command.of("systemctl", "enable", f"{name}.mount").and_then(Command("reboot"))
    return Fix.of(f"Save this as {path}{shipped}, drain the node, and then: ", enabling, File(path, text))
