"""Reads profiles: those shipped with janitor, and the operator's in /etc/janitor/profiles.d."""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from janitor.core.model.routing import Profile
from janitor.core.model.text import nearest
from janitor.host.files import read_bounded

_LIMIT = 1 << 20
OWN: Final = Path("/etc/janitor/profiles.d")


class ProfileError(Exception):
    """A profile cannot be used. The sentence says which one, and why."""


def load(
    enabled: tuple[str, ...] | None = None, protocol: Mapping[str, Literal["keep", "kernel"]] | None = None
) -> tuple[Profile, ...]:
    """All profiles, the most specific first. `enabled` and `protocol` come from the configuration.

    A profile of the operator's replaces a shipped one of the same name. ProfileError.
    """
    found: dict[str, Profile] = {}
    ours = [f for f in resources.files("janitor.core.rules").joinpath("shipped").iterdir() if f.name.endswith(".toml")]
    own = sorted(OWN.glob("*.toml")) if OWN.is_dir() else []
    for file in [*sorted(ours, key=lambda f: f.name), *own]:
        try:
            profile = _parse(read_bounded(str(file), _LIMIT))
        except OSError as error:
            raise ProfileError(f"reading the profile {file}: {error.strerror}") from None
        except RecursionError:
            raise ProfileError(f"reading the profile {file}: it is nested too deeply") from None
        except (msgspec.DecodeError, ValueError, re.error) as error:
            raise ProfileError(f"reading the profile {file}: {error}") from None
        found[profile.name] = profile
    for name in (*(enabled or ()), *(protocol or {})):
        if name not in found:
            there = ", ".join(sorted(found))
            raise ProfileError(f"unknown profile '{name}'{nearest(name, found)}; the profiles are {there}")
    if enabled is not None:
        found = {name: replace(p, enabled=name in enabled) for name, p in found.items()}
    for name, value in (protocol or {}).items():
        found[name] = replace(found[name], protocol=value)
    # A profile that matches everything comes last; otherwise no other would ever match.
    return tuple(sorted(found.values(), key=lambda p: any(match == type(match)() for match in p.rules)))


def _parse(data: bytes) -> Profile:
    """One profile. ValueError if it is none, or has an unknown key, which is probably a typo."""
    document = msgspec.toml.decode(data)
    profile = msgspec.convert(document, Profile)
    unread = _unread(document, msgspec.to_builtins(profile))
    if unread:
        raise ValueError(f"unknown setting {unread}")
    re.compile(profile.alive.link)
    return profile


def _unread(given: Any, understood: Any) -> str:
    """The first key in `given` that is not in `understood`, with a suggestion; "" if there is none."""
    if isinstance(given, dict):
        return next((f"'{k}'{nearest(k, understood)}" for k in given if k not in understood), "") or next(
            (u for k in given if (u := _unread(given[k], understood[k]))), ""
        )
    if isinstance(given, list):
        return next((u for one, other in zip(given, understood, strict=True) if (u := _unread(one, other))), "")
    return ""
