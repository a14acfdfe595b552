"""The programs that clusters run today, built from the Go module registry.

`tests/real/` pins each in a module of its own. `make real` (`python -m tests.lab.programs`) builds all of them: a
quarter of an hour on two cores the first time, seconds where Go's build cache has them. They lie in the lab's cache,
each module by a digest of what it is built from.

What no package registry has (the cloud controller, CRI-O, multus, ...) is taken from the directory that JANITOR_REAL
names, and never built here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab import tree
from tests.lab.cache import REPOSITORY, MissingError, cache

REAL = REPOSITORY / "tests/real"
ELSEWHERE = "JANITOR_REAL"
# How long to retry a registry that does not answer, and the pause before each try.
PATIENCE_S = 300.0
PAUSE_S = 20.0
# The time that a slow registry gets for one module's sources.
SLOWEST_S = 600.0
# Part of the digest: a program that is built differently is a different program.
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
# Go's messages if nobody answers, or not as a registry does; any other error is not the registry's fault.
_NO_ANSWER = re.compile(
    r"dial tcp|connection re(fused|set)|no such host|i/o timeout|TLS handshake|deadline exceeded|unexpected EOF|server"
    r" misbehaving|\b(429|5\d\d) |proxyconnect|network is unreachable|no route to host", re.IGNORECASE
)  # fmt: skip


class RegistryError(MissingError):
    """The Go module registry did not answer."""


@dataclass(frozen=True)
class Module:
    """One directory of tests/real/: the programs that its go.mod names as tools."""

    name: str
    # The module of the programs, as required in its go.mod.
    path: str
    # Variables that are set to its version when the programs are linked, because they do not know it otherwise.
    variables: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        return REAL / self.name

    @property
    def go(self) -> tuple[int, ...]:
        """The oldest Go that its dependencies allow."""
        return _numbers(self._stated("go"))

    @property
    def version(self) -> str:
        """The pinned version, without the v."""
        return self._stated(f"(?:require )?\t?{re.escape(self.path)}").removeprefix("v")

    @property
    def link(self) -> str:
        """The linker's flags."""
        major, minor, *_ = self.version.split(".")
        values = {"version": self.version, "major": major, "minor": minor}
        return " ".join(["-s -w", *(f"-X {variable.format(**values)}" for variable in self.variables)])

    @property
    def directory(self) -> Path:
        """The directory of its built programs."""
        told = hashlib.sha256(repr((_FLAGS, self.link, platform.machine())).encode())
        for name in ("go.mod", "go.sum"):
            told.update((self.source / name).read_bytes())
        return cache() / f"real-{self.name}-{told.hexdigest()[:16]}"

    def _stated(self, what: str) -> str:
        stated = re.search(rf"^{what} (\S+)", (self.source / "go.mod").read_text(), flags=re.MULTILINE)
        assert stated is not None, f"{self.source}/go.mod has no line '{what}'"
        return stated[1]


_KUBERNETES = "k8s.io/component-base/version"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"
_KUBE_ROUTER = "github.com/cloudnativelabs/kube-router/v2"
_CRICTL = "sigs.k8s.io/cri-tools"
KUBERNETES = Module(
    "kubernetes",
    "k8s.io/kubernetes",
    (
        f"{_KUBERNETES}.gitVersion=v{{version}}",
        f"{_KUBERNETES}.gitMajor={{major}}",
        f"{_KUBERNETES}.gitMinor={{minor}}",
    ),
)
CONTAINERD = Module("containerd", _CONTAINERD, (f"{_CONTAINERD}/version.Version={{version}}",))
PLUGINS = Module("plugins", _PLUGINS, (f"{_PLUGINS}/pkg/utils/buildversion.BuildVersion=v{{version}}",))
KUBE_ROUTER = Module("kube-router", _KUBE_ROUTER, (f"{_KUBE_ROUTER}/pkg/version.Version=v{{version}}",))
CRICTL = Module("crictl", _CRICTL, (f"{_CRICTL}/pkg/version.Version={{version}}",))
ALL = (PLUGINS, CONTAINERD, CRICTL, KUBE_ROUTER, KUBERNETES)


def missing(*modules: Module) -> str | None:
    """Which of these are not built, and how to build them; None if all are built."""
    absent = [module.name for module in modules if not module.directory.is_dir()]
    if not absent:
        return None
    how = go_missing() or "run 'make real', a quarter of an hour"
    return f"not built: {', '.join(absent)} of tests/real ({how})"


def go_missing() -> str | None:
    """Why nothing can be built on this machine, or None."""
    wanted = max(module.go for module in ALL)
    text = ".".join(map(str, wanted))
    if shutil.which("go") is None:
        return f"Go {text} or newer is needed and is not in PATH; install it as go.dev/doc/install says"
    environment = _environment()
    try:
        found = subprocess.run(["go", "env", "GOVERSION"], env=environment, cwd="/", capture_output=True, text=True,
                               check=False).stdout.strip()  # fmt: skip
    except OSError:
        found = ""
    if _numbers(found) < wanted:
        there = found or "one that does not start"
        return f"Go {text} or newer is needed, and PATH has {there}; install it as go.dev/doc/install says"
    return None


def program(module: Module, name: str) -> Path:
    """A built program; MissingError if its module is not built."""
    if reason := missing(module):
        raise MissingError(reason)
    return module.directory / name


def elsewhere(*names: str) -> list[Path]:
    """Programs that no package registry has, from the directory that JANITOR_REAL names; MissingError."""
    directory = os.environ.get(ELSEWHERE, "")
    if not directory:
        raise MissingError(
            f"{', '.join(names)}: in no package registry; {ELSEWHERE} must name a directory with it (CONTRIBUTING.md)"
        )
    if not Path(directory).is_dir():
        raise MissingError(f"{ELSEWHERE} names {directory}, which is no directory")
    found = [Path(directory).absolute() / name for name in names]
    if absent := [path.name for path in found if not path.exists()]:
        raise MissingError(f"{ELSEWHERE} names {directory}, which lacks {', '.join(absent)}")
    return found


class Elsewhere(Protocol):
    """The type of the fixture `elsewhere`: finds such programs, or skips the test."""

    def __call__(self, *names: str) -> list[Path]: ...


def build(module: Module, patience: float = PATIENCE_S) -> bool:
    """Build a module's programs; False if they are already built. MissingError, RegistryError."""
    with tree.to_be_made(module.directory) as made:
        if made is None:
            return False
        if reason := go_missing():
            raise MissingError(reason)
        _fetch(module, patience)
        made.mkdir()
        words = ["build", *_FLAGS, "-ldflags", module.link, "-o", f"{made}/", "tool"]
        done = _go(module, *words)
        if done.returncode != 0:
            raise MissingError(f"building {module.name}: {_words(done)}")
    return True


def _fetch(module: Module, patience: float) -> None:
    """Download all sources of a build into Go's module cache."""
    deadline = time.monotonic() + patience
    while True:
        try:
            # This loads every package, and compiles none.
            done = _go(module, "list", *_FLAGS, "-deps", "-f", "{{.Dir}}", "tool", timeout=max(patience, SLOWEST_S))
            if done.returncode == 0:
                return
            why = _words(done)
            if not _NO_ANSWER.search(done.stderr):
                raise MissingError(f"fetching the sources of {module.name}: {why}")
        except subprocess.TimeoutExpired as expired:
            why = f"no end of it after {expired.timeout:.0f} s"
        if time.monotonic() + PAUSE_S > deadline:
            raise RegistryError(f"the Go module registry did not give the sources of {module.name} within"
                                f" {patience / 60:.0f} minutes: {why}")  # fmt: skip
        print(f"{module.name}: the Go module registry does not answer, asked again: {why}", file=sys.stderr)
        time.sleep(PAUSE_S)


def _go(module: Module, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["go", *words], cwd=module.source, env=_environment(), capture_output=True, text=True,
                          timeout=timeout, check=False)  # fmt: skip


def _environment() -> dict[str, str]:
    # Static programs for this machine, with the installed Go: otherwise Go would download another one. GOFLAGS is not
    # empty, because an empty value lets that of `go env -w` through.
    here = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GOEXPERIMENT")}
    own = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    return {**here, **own, "GOTMPDIR": str(cache())}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """Go's message in one line: from the first line that is not about a download."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and "go: downloading " not in line]
    return " ".join(lines)[:400] or f"go ended with {done.returncode} and said nothing"


def main(words: list[str] | None = None) -> int:
    """The entry point for make. Exit code 0, or 2 with a last line that says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.programs", description=__doc__.partition("\n")[0])
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="SECONDS",
                        help="how long a registry that does not answer is asked again")  # fmt: skip
    told = parser.parse_args(words)
    try:
        for module in ALL:
            began = time.monotonic()
            built = build(module, told.patience)
            print(f"{module.name}: {f'built in {time.monotonic() - began:.0f} s' if built else 'is there'}", flush=True)
    except (MissingError, OSError) as error:
        print(f"the programs of tests/real: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
