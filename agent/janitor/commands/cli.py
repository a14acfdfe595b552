"""The console script: registers the commands, and turns every ending into a sentence and an exit code.

0 nothing to report or all done, 1 findings or something left, 2 something could not be checked, 64 wrong usage, 70 a
bug in janitor.
"""

import signal
import sys

if "run" in sys.argv:  # SIGHUP (reload) would kill a starting daemon: blocked until the loop handles it
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))

import os
import traceback
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from janitor import __version__
from janitor.commands import cidr, clean, look, run
from janitor.commands.common import EXIT_USAGE, Root, Stop

EXIT_BUG: Final = 70  # EX_SOFTWARE of sysexits.h

app = typer.Typer(
    name="janitor",
    help="Finds pod addresses that leaked on a Kubernetes node, proves that no pod uses them, and frees them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (look.scan, look.explain, clean.clean, clean.undo, run.run, look.collect, cidr.cidr):
    app.command()(command)


@app.command()
def boot(
    ledger_only: Annotated[
        bool, typer.Option("--ledger-only", help="Record which leases exist, but free nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if not everything was done.")] = False,
    root: Root = "/",
) -> None:
    """Free leases of earlier boots before any container runtime starts.

    For a service that runs once at boot; see systemd/ and cloud-init/. If a container runtime already runs, it changes
    nothing. 'janitor undo' reverts it.

    Exits with 0 even if it fails, so that it never stops a boot, unless --strict is given.
    """
    from janitor.boot.stage import run

    raise typer.Exit(run(root, ledger_only=ledger_only, strict=strict))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"janitor {__version__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Print a traceback if janitor itself fails.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del debug, show_version  # main() looks up --debug itself, because it needs it even if parsing fails


def main() -> None:
    """The console script. No traceback unless --debug asks for it."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Stop as stop:
        print(f"janitor: {stop}", file=sys.stderr)
        sys.exit(stop.code)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if "\n" in error.format_message():  # called without a command: the message is the help itself
            print(error.format_message(), file=sys.stderr)
        else:
            where = f" (see '{context.command_path} --help')" if context is not None else ""
            print(f"janitor: {error.format_message()}{where}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        print("\njanitor: interrupted", file=sys.stderr)  # on its own line, after ^C or the question
        sys.exit(130)
    except BrokenPipeError:
        # The reader has closed the pipe; keep the interpreter from reporting that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 (the last resort: a bug must not end in a traceback on a pager)
        changed = "Nothing was changed."
        if {"clean", "undo", "boot", "run"} & set(sys.argv):
            changed = "The journal has what was changed: see 'janitor undo --list'."
        print(
            f"janitor: a bug in janitor {__version__}: {type(error).__name__}: {error}. {changed} Please "
            "report it with the output of 'janitor --debug …' and, if possible, 'janitor collect'.",
            file=sys.stderr,
        )
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(EXIT_BUG)
