"""`janitor-boot`: before any container runtime has started, write down which leases there already are.

No lease that exists at that moment can be alive: network namespaces do not outlive a boot. The ledger it writes to
/run/janitor is the strongest proof of age there is, and later passes rest on it. Nothing else is changed, and
nothing at all when it is late or anything is doubtful. It never fails a boot: exit 0 unless `--strict`.

Standard library only, for the moment when little else works yet.
"""

import argparse
import os
import socket
import sys

from janitor import __version__
from janitor.core.age import RUNTIMES, identity
from janitor.core.evidence import FileIdentity, Unknown, known
from janitor.core.lease import parse_lease
from janitor.core.prose import count
from janitor.host import cni, leases, mounts, netns, procfs, state
from janitor.host.files import inside

_SOCKETS = (
    "/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock",
    "/run/docker/containerd/containerd.sock",
)  # fmt: skip
_PROCESSES = RUNTIMES | {"kubelet", "conmon", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s"}
_NOTICE, _WARNING = "<5>", "<4>"  # sd-daemon(3): the journal takes these as priorities


class Late(Exception):  # noqa: N818 (being late is normal)
    """It is not provably early, so nothing may be written."""


def main() -> None:
    """The console script: one line on standard error, exit 0."""
    parser = argparse.ArgumentParser(prog="janitor-boot", description=__doc__.split("\n")[0].partition(": ")[2])
    parser.add_argument("--root", default="/", metavar="DIR", help="the node's root, mounted there")
    parser.add_argument("--strict", action="store_true", help="exit 1 where nothing was recorded")
    parser.add_argument("--version", action="version", version=f"janitor-boot {__version__}")
    options = parser.parse_args()
    try:
        files = record(options.root)
    except Late as late:
        _say(_WARNING, f"nothing recorded: {late}")
        sys.exit(1 if options.strict else 0)
    except Exception as error:  # noqa: BLE001 (whatever it is, it must not hold up a boot)
        _say(_WARNING, f"nothing recorded: {type(error).__name__}: {error}")
        sys.exit(1 if options.strict else 0)
    _say(_NOTICE, f"recorded {count(len(files), 'lease')} that were there before any container runtime of this boot")


def record(root: str) -> tuple[FileIdentity, ...]:
    """Prove that it is early, read every lease, prove it again, write the ledger. Late where it is not."""
    boot = procfs.boot_id(procfs.find_proc(root))
    if isinstance(boot, Unknown):
        raise Late(boot.reason)
    if os.path.lexists(inside(root, state.LEDGER)):
        raise Late(f"{state.LEDGER} is there already, so this is not the first time in this boot")
    _prove_early(root)
    networks = cni.read_networks(root, ())
    paths = tuple(network.directory for network in known(networks))
    directories = leases.lease_directories(root, paths, (), mounts.own_mounts())
    if isinstance(directories, Unknown):
        raise Late(directories.reason)
    found = [
        identity(f"{directory.path}/{file.name}", file)
        for directory in directories
        for file in known(directory.entries)
        if file.kind == "file" and parse_lease(file).shape != "bookkeeping"
    ]
    files = tuple(file for file in found if file is not None)
    # A runtime that started while the leases were being read may have made one of them.
    _prove_early(root)
    state.write_ledger(root, boot, files)
    return files


def _prove_early(root: str) -> None:
    """No runtime or shim, no socket that answers, no pinned network namespace. Late otherwise."""
    proc = procfs.find_proc(root)
    if isinstance(proc, Unknown):
        raise Late(proc.reason)
    for pid in proc.pids():
        name = proc.name(pid)
        if name in _PROCESSES or name.startswith("containerd-shim"):
            raise Late(f"{name} (process {pid}) is running already")
    for path in _SOCKETS:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(inside(root, path))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except OSError as error:
                raise Late(f"{path}: {error}") from None
            raise Late(f"a container runtime answers at {path} already")
    pinned = netns.pinned(proc)
    if pinned:
        raise Late(f"the network namespace {pinned[0]} exists already")


def _say(priority: str, sentence: str) -> None:
    print(f"{priority if 'JOURNAL_STREAM' in os.environ else ''}janitor-boot: {sentence}", file=sys.stderr)
