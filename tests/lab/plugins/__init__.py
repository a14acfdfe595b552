"""The lab's own CNI plugins, programs that the runtime in a node runs. `install` puts them beside the real ones."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

REAL = Path("/usr/lib/cni")
REQUIRED = ("host-local", "ptp", "bridge", "portmap", "loopback")


def missing() -> str | None:
    """Which real plugins are not installed, or None."""
    absent = [name for name in REQUIRED if not (REAL / name).exists()]
    return f"no {', '.join(absent)} in {REAL}: apt-get install containernetworking-plugins" if absent else None


def install(directory: Path, newer: Path | None = None) -> None:
    """Fill a node's plugin directory: links to the installed plugins, copies of those in `newer`, and the lab's own."""
    directory.mkdir(parents=True, exist_ok=True)
    for plugin in REAL.iterdir():
        (directory / plugin.name).symlink_to(plugin)
    for plugin in newer.iterdir() if newer else ():
        (directory / plugin.name).unlink(missing_ok=True)
        shutil.copy(plugin, directory / plugin.name)
    for source in sorted(Path(__file__).parent.glob("[!_]*.py")):
        path = directory / source.stem
        path.unlink(missing_ok=True)  # never write through a link to a real plugin
        # exec, so that the process with CNI_CONTAINERID in its environment is the plugin, without a parent shell.
        path.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-IS', str(source)])}\n")
        path.chmod(0o755)
