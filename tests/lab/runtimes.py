"""Which containerd a node runs: the installed one, or another one that is in the cache and not installed.

Three matter. 1.6 (Debian 12's 1.6.20) runs CNI DEL for every sandbox it stops. Releases 1.7.23 to 1.7.30 (Debian 13 has
1.7.24) skip it for a sandbox whose creation was interrupted, which leaks its lease. 2.4 is the current one; its libcni
(1.2 or newer) continues where older ones refuse a DEL because of a damaged cache entry.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab import image, programs
from tests.lab.cache import MissingError, cache

SUITE = "trixie"


@dataclass(frozen=True)
class Containerd:
    """A directory with containerd, its shim and ctr; and its version."""

    directory: Path
    version: str
    # CNI plugins of its time; None for the installed ones.
    plugins: Path | None = None

    @property
    def series(self) -> str:
        return ".".join(self.version.split(".")[:2])

    @property
    def refuses_damaged_results(self) -> bool:
        """Whether a damaged entry of libcni's cache keeps it from stopping a sandbox: libcni below 1.2."""
        return self.series < "2"

    def config(self, snapshotter: str = "native") -> str:
        """config.toml: everything persistent is below /var/lib/containerd, the rest in /run."""
        # native: an image of one small file needs no overlayfs, which not every disk can carry.
        if self.series >= "2":
            return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{image.NAME}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
"""
        return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.NAME}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


def missing() -> str | None:
    """Which programs of a container runtime are not installed, or None."""
    absent = [name for name in ("containerd", "runc", "iptables", "nsenter", "ip") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (apt-get install containerd runc iptables iproute2)" if absent else None


def installed() -> Containerd:
    """The containerd in PATH."""
    path = shutil.which("containerd")
    if path is None:
        raise MissingError("containerd is not installed (apt-get install containerd)")
    return containerd_in(Path(path).parent)


def of_series(series: str) -> Containerd:
    """A containerd of the series "1.6", "1.7" or "2.4": the installed one, Debian 13's, or the built one."""
    if series == "2.4":
        return built()
    found = installed()
    if found.series != series:
        found = debian_13()
    if found.series != series:
        raise MissingError(f"no containerd {series}: installed is {installed().version}, {SUITE} has {found.version}")
    return found


def built() -> Containerd:
    """The current containerd, with CNI plugins of its time (programs.py)."""
    if reason := programs.missing(programs.CONTAINERD, programs.PLUGINS):
        raise MissingError(reason)
    return containerd_in(programs.CONTAINERD.directory, programs.PLUGINS.directory)


def debian_13() -> Containerd:
    """Debian 13's containerd, downloaded once with apt into the lab's cache."""
    return containerd_in(debian_13_tree("containerd") / "usr/bin")


def debian_13_tree(package: str, *, with_dependencies: bool = False) -> Path:
    """Debian 13's package, unpacked once into the lab's cache, to be run in place or as a root directory."""
    destination = cache() / f"{package}-{SUITE}"
    if not destination.is_dir():
        with tempfile.TemporaryDirectory(dir=cache(), prefix="download-") as directory:
            unpacked = _download(package, Path(directory), with_dependencies)
            try:
                unpacked.rename(destination)
            except OSError:
                # Another test process was faster: renaming onto a non-empty directory is refused.
                if not destination.is_dir():
                    raise
    return destination


def containerd_in(directory: Path, plugins: Path | None = None) -> Containerd:
    """The containerd in a directory, and its CNI plugins if not the installed ones."""
    answer = _output([str(directory / "containerd"), "--version"])
    version = re.search(r"\bv?(\d+\.\d+\.\d+)", answer)
    if version is None:
        raise MissingError(f"{directory}/containerd does not say its version: {answer.strip()!r}")
    return Containerd(directory, version[1], plugins)


def _download(package: str, directory: Path, with_dependencies: bool) -> Path:
    """Fetch and unpack a package of the other suite, with an apt that knows nothing about this system's packages."""
    for name in ("state/lists/partial", "archives/partial", "unpacked"):
        (directory / name).mkdir(parents=True)
    sources = directory / "lab.sources"
    sources.write_text(_source_of_this_machine())
    status = directory / "status"
    status.touch()
    config = directory / "apt.conf"
    # The machine's own apt.conf.d still applies: it may have a proxy or a mirror's credentials.
    config.write_text(
        f'Dir::State "{directory}/state"; Dir::State::status "{status}"; Dir::Cache "{directory}";\n'
        f'Dir::Etc::sourcelist "{sources}"; Dir::Etc::sourceparts "-"; Acquire::Languages "none";\n'
        'APT::Sandbox::User "root"; Acquire::Retries "2";\n'
    )
    env = dict(os.environ, APT_CONFIG=str(config))
    _output(["apt-get", "-qq", "update"], env=env, cwd=directory)
    if with_dependencies:
        # For this apt nothing is installed, so it fetches everything.
        simple = ["--no-install-recommends", "--download-only", "-y"]
        _output(["apt-get", "-qq", "install", *simple, package], env=env, cwd=directory)
        archives = [*directory.glob("archives/*.deb")]
    else:
        _output(["apt-get", "-qq", "download", package], env=env, cwd=directory)
        archives = [*directory.glob(f"{package}_*.deb")]
    unpacked = directory / "unpacked"
    # In Debian 13, /bin and the like are links. Make them first, or a package's own directory would take their place.
    for name in ("bin", "sbin", "lib", "lib64") if with_dependencies else ():
        (unpacked / "usr" / name).mkdir(parents=True, exist_ok=True)
        (unpacked / name).symlink_to(f"usr/{name}")
    for archive in archives:
        _output(["dpkg", "-x", str(archive), str(unpacked)])
    return unpacked


def _source_of_this_machine() -> str:
    """The machine's own Debian archive with the suite replaced, so that no file here names a host."""
    for stanza in _stanzas():
        suites = stanza.get("suites", "").split()
        components = stanza.get("components", "").split()
        own = [suite for suite in suites if re.fullmatch(r"[a-z]+", suite)]  # not -security, not a path
        is_debian = "debian" in stanza.get("uris", "").split()[0].rstrip("/").rsplit("/", 1)[-1]
        if "deb" in stanza.get("types", "").split() and own and "main" in components and is_debian:
            signed = stanza.get("signed-by", "/usr/share/keyrings/debian-archive-keyring.gpg")
            return f"Types: deb\nURIs: {stanza['uris']}\nSuites: {SUITE}\nComponents: main\nSigned-By: {signed}\n"
    raise MissingError("no Debian archive among this machine's apt sources to take Debian 13's containerd from")


def _stanzas() -> list[dict[str, str]]:
    """The apt sources of this machine, with lower-case keys of the deb822 format."""
    etc = Path("/etc/apt")
    stanzas: list[dict[str, str]] = []
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        for block in re.split(r"\n\s*\n", text):
            lines = re.findall(r"^([\w-]+):[ \t]*(\S.*)$", block, flags=re.MULTILINE)
            stanzas.append({key.lower(): value.strip() for key, value in lines})
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            fields = re.match(r"(deb)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)", line)
            if fields:
                options = dict(item.split("=", 1) for item in (fields[2] or "").split() if "=" in item)
                stanza = dict(zip(("types", "uris", "suites", "components"), fields.group(1, 3, 4, 5), strict=True))
                stanzas.append(stanza | {key.lower(): value for key, value in options.items()})
    return [stanza for stanza in stanzas if stanza.get("uris")]


def _output(argv: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=True)
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())[-400:]
        raise MissingError(f"{' '.join(argv)}: exit {error.returncode}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{' '.join(argv)}: {error}") from error
    return done.stdout
