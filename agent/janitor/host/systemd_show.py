"""What the running systemd says of a service: `systemctl show`. Only for the node's own root."""

import subprocess

_PROPERTIES = "LoadState,FragmentPath,DropInPaths,NeedDaemonReload,MainPID,ExecMainStartTimestampMonotonic"
_TIMEOUT_S = 3


def show(name: str) -> dict[str, str]:
    """The properties of a loaded service; nothing where systemd is not there, does not answer, or knows none."""
    argv = ["systemctl", "show", name, f"--property={_PROPERTIES}", "--no-pager"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return found if done.returncode == 0 and found.get("LoadState") == "loaded" else {}
