"""/etc/janitor/janitor.toml. Unknown keys and wrong types are errors: a typo must not weaken a safety rule."""

import errno
import re
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from janitor.core.model.text import nearest
from janitor.host.files import read_bounded

DEFAULT: Final = Path("/etc/janitor/janitor.toml")
_LIMIT: Final = 1 << 20
# Types as msgspec names them, in the words of whoever writes the file.
_TYPES: Final = {
    "array": "a list in brackets", "bool": "true or false", "float": "a number", "int": "a whole number",
    "object": "a table", "str": "text in quotes",
}  # fmt: skip

Mode = Literal["observe", "repair"]


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What concerns the policy rules."""

    profiles: tuple[str, ...] | None = None  # those to be enabled, by name; by default each profile says it itself
    protocol: dict[str, Literal["keep", "kernel"]] = {}  # by profile: keep, or pin so that no later wipe touches it


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as evidence."""

    ignore_namespaces: tuple[str, ...] = ()  # pods (namespace/name) whose network namespaces speak for no address


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings, with their defaults. Flags override them."""

    cri_endpoints: tuple[str, ...] = ()  # CRI sockets that must all answer, unix:///…
    data_dirs: tuple[str, ...] = ()  # host-local data directories to judge though no CNI configuration names them
    data_dirs_are_ours: bool = (
        False  # no other node of the machine uses them: for nodes in containers (core/model/node_mark.py)
    )
    grace: int = 600  # seconds a lease must be watched before it may be called dead; never less than 60
    deadline: float = 5.0  # seconds a single call to a runtime may take
    keep_days: float = 30  # days that quarantine and journal are kept
    program_dirs: tuple[str, ...] = ()  # directories of programs and CNI plugins that are run although a pod has them
    rules: Rules = Rules()
    scope: Scope = Scope()
    # The rest is the daemon's.
    mode: Mode = "repair"  # observe: look and report, change nothing
    checks: dict[str, Mode] = {}  # by family (leases, rules) or ID (LEASE009), where it is to differ from `mode`
    interval: float = 60  # seconds between two passes over the leases
    durable: bool = True  # bring new leases and cache entries onto the disk at once, so that a power cut spares them
    listen: str = "127.0.0.1:9742"  # where /metrics, /healthz, /readyz and the page are; "" for nowhere
    hosts: tuple[str, ...] = ()  # names under which they may be asked for, besides addresses and localhost
    textfile: str = ""  # a file for node_exporter's textfile collector, /var/lib/node_exporter/janitor.prom


class ConfigError(Exception):
    """The file cannot be used; the sentence says why and where."""


def load(path: Path | None) -> Config:
    """The configuration in `path`; of the default file, its absence is no error. ConfigError otherwise."""
    file = path or DEFAULT
    try:
        document = msgspec.toml.decode(_read(file))
        _only_settings(document)
        config = msgspec.convert(document, Config)
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(f"reading the configuration {file}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"reading the configuration {file}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"reading the configuration {file}: it is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"reading the configuration {file}: {_sentence(str(error))}") from None
    problem = _problem(config)
    if problem:
        raise ConfigError(f"reading the configuration {file}: {problem}")
    return config


def _read(file: Path) -> bytes:
    """OSError; also for what is no regular file, and for what is longer than any configuration."""
    data = read_bounded(str(file), _LIMIT + 1)
    if len(data) > _LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {_LIMIT >> 10} KiB")
    return data


def _only_settings(document: dict[str, Any]) -> None:
    """ValueError for a key that is no setting, with what was probably meant."""
    top = Config.__struct_fields__
    tables = (("rules", Rules.__struct_fields__), ("scope", Scope.__struct_fields__))
    for table, given, there in (
        ("", document, top),
        (" in [rules]", document.get("rules"), Rules.__struct_fields__),
        (" in [scope]", document.get("scope"), Scope.__struct_fields__),
        (" in [checks]", document.get("checks"), None),  # whatever checks there are is not known here
    ):
        for name in given if isinstance(given, dict) else ():
            # All that follows a table's name belongs to the table.
            if table and name in top and name not in ("rules", "scope"):
                raise ValueError(f"'{name}' is not a setting{table}: move it above the first table")
            if not table and (below := [t for t, keys in tables if name in keys]):
                raise ValueError(f"'{name}' is a setting of [{below[0]}]: move it below that line")
            if there is not None and name not in there:
                near = nearest(name, there) or f"; the settings are {', '.join(there)}"
                raise ValueError(f"unknown setting '{name}'{table}{near}")


def _sentence(error: str) -> str:
    """What msgspec says of a value, with the name of its setting and what that takes."""
    if error.startswith("Invalid value"):
        return f"{error}; put text in quotes"
    if error.startswith("'utf-8' codec"):
        return "it is not UTF-8 text"
    twice = re.fullmatch(r"Cannot (?:overwrite a value|(?:declare|mutate) .*)( \(at line .*\))", error)
    if twice is not None:
        return f"a setting or table is defined twice{twice[1]}"
    found = re.fullmatch(
        r"(?:Expected `(\w+)[^`]*`, got `(\w+)`|Invalid enum value (.*)) - at `\$\.([\w.]+)(.*)`", error
    )
    if found is None:
        return error
    wanted, given, word, setting, item = found.groups()
    if word is not None:
        takes = "keep or kernel" if setting == "rules.protocol" else "repair or observe"
        return f"{setting}: {word} is not valid; use {takes}"
    where = f"each item of {setting}" if item.startswith("[") and item.endswith("]") else setting
    return f"{where} must be {_TYPES[wanted]}, not {_TYPES.get(given, given)}"


def _problem(config: Config) -> str:
    """What is wrong with values of the right type; "" where nothing is."""
    for path in config.data_dirs:
        if not path.startswith("/"):
            return f"data_dirs has '{path}'; a data directory must be an absolute path"
    for path in config.program_dirs:
        if not path.startswith("/") or "*" in path or ".." in path.split("/"):
            return f"program_dirs has '{path}'; a program directory must be an absolute path without * and .."
    for socket in config.cri_endpoints:
        if not is_socket(socket):
            return f"cri_endpoints has '{socket}', which is not a Unix socket; use the form unix:///run/x.sock"
    for pod in config.scope.ignore_namespaces:
        if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", pod):
            return f"scope.ignore_namespaces has '{pod}'; name a pod as NAMESPACE/NAME, such as default/web-1"
    if config.grace < 60:
        return f"grace is {config.grace}; it must be at least 60 seconds"
    if not 0.1 <= config.deadline <= 300:
        return f"deadline is {config.deadline:g}; it must be 0.1 to 300 seconds"
    if config.keep_days < 0:
        return f"keep_days is {config.keep_days:g}; it must be 0 or more days"
    if not 1 <= config.interval <= 3600:
        return f"interval is {config.interval:g}; it must be 1 to 3600 seconds"
    if config.listen and address(config.listen) is None:
        return f"listen is '{config.listen}'; it must be ADDRESS:PORT, such as 127.0.0.1:9742 or [::1]:9742"
    for host in config.hosts:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", host):
            return f"hosts has '{host}'; use host names in lower case, without a port"
    if config.textfile and not (config.textfile.startswith("/") and config.textfile.endswith(".prom")):
        return f"textfile is '{config.textfile}'; it must be an absolute path that ends in .prom"
    return ""


def is_socket(endpoint: str) -> bool:
    """Whether a runtime's endpoint is a Unix socket by an absolute path."""
    return endpoint.startswith(("unix:///", "/")) or bool(re.match("unix:/(?!/)", endpoint))


def address(listen: str) -> tuple[str, int] | None:
    """ADDRESS:PORT in two, an IPv6 address without its brackets; None for what is no such thing."""
    from ipaddress import ip_address

    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        version = ip_address(bare).version
    except ValueError:
        return None
    right = colon and port.isdecimal() and 0 < int(port) < 65536 and (version == 6) == (bare != host)
    return (bare, int(port)) if right else None
