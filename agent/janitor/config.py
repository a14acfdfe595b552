"""/etc/janitor/janitor.toml. Unknown keys and wrong types are errors: a typo must not weaken a safety rule."""

from pathlib import Path
from typing import Final, Literal

import msgspec

DEFAULT: Final = Path("/etc/janitor/janitor.toml")


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What concerns the policy rules."""

    profiles: tuple[str, ...] | None = None  # those to be enabled, by name; by default each profile says it itself
    protocol: dict[str, Literal["keep", "kernel"]] = {}  # by profile: keep, or pin so that no later wipe touches it


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings, with their defaults. Flags override them."""

    cri_endpoints: tuple[str, ...] = ()  # CRI sockets that must all answer, unix:///…
    data_dirs: tuple[str, ...] = ()  # host-local data directories to judge though no CNI configuration names them
    grace: int = 600  # seconds a lease must be watched before it may be called dead; never less than 60
    deadline: float = 5.0  # seconds a single call to a runtime may take
    keep_days: float = 30  # days that quarantine and journal are kept
    rules: Rules = Rules()


class ConfigError(Exception):
    """The file cannot be used; the sentence says why and where."""


def load(path: Path | None) -> Config:
    """The configuration in `path`; of the default file, its absence is no error. ConfigError otherwise."""
    file = path or DEFAULT
    try:
        config = msgspec.toml.decode(file.read_bytes(), type=Config)
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(f"reading the configuration {file}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"reading the configuration {file}: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"reading the configuration {file}: {error}") from None
    if config.grace < 60:
        raise ConfigError(
            f"reading the configuration {file}: grace is {config.grace}, and less than 60 s proves nothing"
        )
    if not 0.1 <= config.deadline <= 300:
        raise ConfigError(
            f"reading the configuration {file}: deadline is {config.deadline:g}; it takes 0.1 to 300 seconds"
        )
    if config.keep_days < 0:
        raise ConfigError(f"reading the configuration {file}: keep_days is {config.keep_days:g}, which makes no sense")
    return config
