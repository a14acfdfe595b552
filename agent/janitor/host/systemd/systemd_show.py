"""The state of a service in the running systemd: `systemctl show`. Only for the node's own root."""

from janitor.core.model.evidence import Unknown
from janitor.host.kernel.programs import SYSTEM_DIRS, NotRun, programs_of

_PROPERTIES = "LoadState,FragmentPath,DropInPaths,NeedDaemonReload,MainPID,ExecMainStartTimestampMonotonic"
_TIMEOUT_S = 3
_LIMIT = 1 << 20


def show(name: str) -> dict[str, str]:
    """The properties of a loaded service; empty if systemd is missing, does not answer or does not know it."""
    programs = programs_of("/")
    if isinstance(programs, Unknown):
        return {}
    try:
        path = programs.locate("systemctl", SYSTEM_DIRS)
        done = programs.run(
            [path, "show", name, f"--property={_PROPERTIES}", "--no-pager"], timeout_s=_TIMEOUT_S, limit=_LIMIT
        )
    except NotRun:
        return {}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return found if done.returncode == 0 and found.get("LoadState") == "loaded" else {}
