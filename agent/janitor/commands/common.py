"""What the commands share: options, ending with a sentence, and writing to the terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from janitor.core.model.reason import Reason
from janitor.report.words import hint, text

if TYPE_CHECKING:
    from janitor.config import Config
    from janitor.core.model.routing import Profile
    from janitor.host.changes.journal import Journal
    from janitor.host.kubernetes.node_config import Wanted
    from janitor.passes.scan import Options

EXIT_LEFT: Final = 1
EXIT_UNKNOWN: Final = 2
EXIT_USAGE: Final = 64  # EX_USAGE of sysexits.h
CANNOT_ASK: Final = "cannot ask for confirmation, standard input is not a terminal"
_DAEMON_PASS_S: Final = 60
"""How long to wait for a pass of the daemon, in seconds."""


class Stop(Exception):  # noqa: N818 (it is no error of ours)
    """End now, with one sentence on standard error."""

    def __init__(self, sentence: str, code: int = EXIT_UNKNOWN) -> None:
        super().__init__(sentence)
        self.code = code


Root = Annotated[str, typer.Option("--root", metavar="DIR", help="Where the node's / is mounted.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--cri-endpoint",
        metavar="SOCKET",
        help="CRI socket, unix:///PATH; repeatable.  [default: detected]",
    ),
]
DataDirs = Annotated[
    list[str] | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Also check this host-local data directory; repeatable.",
    ),
]
EvidenceFile = Annotated[
    Path | None,
    typer.Option("--evidence", metavar="FILE", help="Read a file from 'collect'; - for stdin."),
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="SECONDS", help="Timeout of one runtime call.  [default: 5]"),
]
NodesFile = Annotated[
    Path | None,
    typer.Option("--nodes", metavar="FILE", help="Read Nodes (and other objects) from 'kubectl get nodes -o json'."),
]
KubeConfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Read these from the API server; 'in-cluster' in a pod."),
]
NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Do not query Hetzner's metadata service.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration.  [default: /etc/janitor/janitor.toml]"),
]


def options(
    root: str,
    cri_endpoint: list[str] | None,
    data_dir: list[str] | None,
    deadline: float | None,
    config: Path | None,
) -> "Options":
    """What to look at, from the command line and the configuration. Stop for invalid values."""
    from janitor.config import is_socket
    from janitor.core.model.finding_ids import matching_ids
    from janitor.passes.scan import Options

    settings = load(config)
    for name in settings.checks:
        try:
            matching_ids(name)
        except ValueError as error:
            raise Stop(f"[checks] in the configuration: {error}", EXIT_USAGE) from None
    if not Path(root).is_dir():
        raise Stop(f"--root {root} is not a directory", EXIT_USAGE)
    for address in cri_endpoint or ():
        if not is_socket(address):
            raise Stop(f"--cri-endpoint {address}: not a Unix socket; use the form unix:///run/x.sock", EXIT_USAGE)
    for path in data_dir or ():
        if not path.startswith("/") or not Path(f"{root}/{path}").is_dir():
            raise Stop(
                f"--data-dir {path}: not the absolute path of a directory{f' in {root}' * (root != '/')}", EXIT_USAGE
            )
    if deadline is not None and not 0.1 <= deadline <= 300:
        raise Stop(f"--deadline {deadline:g}: must be 0.1 to 300 seconds", EXIT_USAGE)
    return Options(
        root=os.path.abspath(root),  # noqa: PTH100 (not resolved: /proc/<pid>/root would turn into /)
        cri_endpoints=tuple(cri_endpoint or ()),
        configured_endpoints=settings.cri_endpoints,
        data_dirs=tuple(_plain(path) for path in (*settings.data_dirs, *(data_dir or ()))),
        program_dirs=settings.program_dirs,
        ignore_namespaces=settings.scope.ignore_namespaces,
        deadline_s=deadline or settings.deadline,
        profiles=rule_profiles(settings),
        said_ours=settings.data_dirs_are_ours,
    )


def _plain(path: str) -> str:
    """The normalized absolute path. A directory that is read under two names would seem to lease everything twice."""
    return os.path.normpath(f"/{path.lstrip('/')}")


def rule_profiles(settings: "Config") -> "tuple[Profile, ...]":
    """The rule profiles of the configuration. Stop if one is invalid."""
    from janitor.host import profiles

    try:
        return profiles.load(settings.rules.profiles, settings.rules.protocol)
    except profiles.ProfileError as error:
        raise Stop(str(error), EXIT_USAGE) from None


def wanted(nodes: Path | None, kubeconfig: str | None, no_metadata: bool) -> "Wanted":
    """What to ask in addition to the node itself. Stop for a file that cannot be used."""
    from janitor.core.model.unknown import Unknown
    from janitor.host.kubernetes import kube_api, kube_objects
    from janitor.host.kubernetes.node_config import Wanted

    if nodes is not None and kubeconfig:
        raise Stop("--nodes and --kubeconfig cannot be used together", EXIT_USAGE)
    if nodes is not None:
        try:
            return Wanted(not no_metadata, (kube_objects.from_file(str(nodes)),))
        except OSError as error:
            raise Stop(f"reading Nodes from {nodes}: {error.strerror}") from None
        except ValueError as error:
            raise Stop(f"reading Nodes from {nodes}: {error}") from None
    if kubeconfig:
        found = kube_api.objects(kubeconfig)
        if isinstance(found, Unknown):  # the checks that need it are skipped; the node itself is looked at
            why = "; ".join(part for part in (text(found.reason), hint(found.reason)) if part)
            print(f"janitor: {why}; continuing without it", file=sys.stderr)
        return Wanted(not no_metadata, found)
    return Wanted(not no_metadata)


def load(path: Path | None) -> "Config":
    """The configuration. Stop if it is invalid."""
    from janitor import config

    try:
        return config.load(path)
    except config.ConfigError as error:
        raise Stop(str(error), EXIT_USAGE) from None


def terminal() -> tuple[int, bool]:
    """Columns, and whether to use colour: only on a terminal, and not if NO_COLOR is set (no-color.org).

    Output into a pipe (`| less`) is as wide as the terminal of standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.isatty():
            columns = os.get_terminal_size(stream.fileno()).columns or 80
            return columns, stream is sys.stdout and not os.environ.get("NO_COLOR")
    return 120, False


def write(data: bytes) -> None:
    """Write all of `data` to standard output. Stop if that fails."""
    if sys.stdout is None:  # closed by the parent process
        raise Stop("writing to standard output: it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Otherwise the interpreter would flush again at exit, and report the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Stop(f"writing to standard output: {error.strerror}") from None


@contextmanager
def alone(root: str, what: str) -> "Iterator[Callable[[], Reason | None]]":
    """Hold the lock that lets only one janitor change a node. Stop if another one has it, or without permission.

    Yields a function that returns why the lock is lost, or None (host/cni/locks.py).
    """
    from janitor.host.cni.locks import Busy, only_janitor
    from janitor.host.files import describe_os_error

    try:
        with only_janitor(root, what, _DAEMON_PASS_S) as still:
            yield still
    except Busy as busy:
        raise Stop(text(busy.reason)) from None
    except PermissionError as error:
        raise Stop(f"changing this node needs root ({describe_os_error(error)})") from None
    except OSError as error:
        raise Stop(f"{what}: {describe_os_error(error)}") from None


def read_journal(root: str) -> "Journal":
    """The journal as it is, only for display: does not wait, and leaves interrupted actions as they are."""
    from janitor.host.changes.journal import Journal
    from janitor.host.files import describe_os_error

    journal = Journal(root)
    try:
        journal.load()
    except PermissionError as error:
        raise Stop(f"reading the journal needs root ({describe_os_error(error)})") from None
    except OSError as error:
        raise Stop(f"reading the journal: {describe_os_error(error)}") from None
    return journal


def open_journal(root: str) -> "Journal":
    """The journal, after completing what a crash interrupted."""
    from janitor.host.changes.journal import Journal
    from janitor.host.changes.undo import recover
    from janitor.host.files import describe_os_error
    from janitor.host.node import find_node

    journal = Journal(root)
    try:
        journal.load()
        for entry in recover(find_node(root), journal):
            became = entry.state if entry.detail is None else f"{entry.state}, {text(entry.detail)}"
            print(f"janitor: an earlier pass was interrupted: {entry.action.path}: {became}", file=sys.stderr)
    except OSError as error:
        raise Stop(f"the journal cannot be used ({describe_os_error(error)}); nothing was changed") from None
    return journal
