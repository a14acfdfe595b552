"""CNI configuration that cannot be parsed here, and configuration that only libcni's cache still has.

Go's JSON parser is more lenient than ours, so a runtime may have loaded what we cannot read. A power cut may also have
left half a file. Either may have contained `firewall` or `disableGC`: the boot stage does not touch networks that such
a text names. Standard library only.
"""

import base64
import os
import re
from typing import Final

from janitor.core.model.evidence import Unknown, known
from janitor.host.cni.cache import raw_entries
from janitor.host.cni.directories import CACHES
from janitor.host.cni.reader import PLAIN_LIMIT, ConfigFile, Configuration
from janitor.host.files import read_bounded
from janitor.host.node import Node

ANY_NAME: Final = "\\u"
"""As a text: any network may be meant."""

_OBSCURED = re.compile(r"firewall|disablegc|\\u", re.IGNORECASE)
_CONFIG = re.compile(rb'.*"config": *"([^"]*)"')  # encoding/json writes it on one line


def any_configuration(configuration: Configuration) -> bool:
    """Whether there is or may be any file with a configuration's name."""
    return any(isinstance(place.files, Unknown) or place.files for place in configuration.directories)


def obscure_files(node: Node, configuration: Configuration) -> tuple[str, ...]:
    """The texts, byte for byte, of the files that may be about `firewall` or `disableGC`.

    A configuration that cannot be understood may be, whatever is left of it. Other files (old configurations that
    somebody has put aside) are included if they mention either.
    """
    found: list[str] = []
    for place in configuration.directories:
        found += (text for file in known(place.files) if (text := _obscure(node, file)))
        found += (text for path in place.others if _OBSCURED.search(text := _put_aside(node, path)))
    return tuple(found)


def _obscure(node: Node, file: ConfigFile) -> str:
    if isinstance(file.content, Unknown):
        return ANY_NAME if os.path.isfile(node.path(file.path)) else ""
    return _whole(file.content) if file.damage or file.ambiguity else ""


def _put_aside(node: Node, path: str) -> str:
    try:
        return _whole(read_bounded(node.path(path), PLAIN_LIMIT + 1))
    except OSError:
        return ""


def remembered(node: Node) -> tuple[str, ...]:
    """The configurations in libcni's cache that are about `firewall` or `disableGC`.

    An entry without a configuration may have been about them, unless it is blank as after a power cut: its name is
    included instead.
    """
    found: set[str] = set()
    configs: set[bytes] = set()
    for cache in CACHES:
        for entry in raw_entries(node, cache):
            there = _CONFIG.findall(entry.content)
            configs.update(there)
            if not there and (entry.content.strip(b"\0") or not entry.regular):
                found.add(entry.name)
    for config in configs:
        try:
            text = _text(base64.b64decode(config, validate=True))
        except ValueError:
            text = ANY_NAME
        if _OBSCURED.search(text):
            found.add(text + (ANY_NAME if "multus" in text else ""))  # its delegates may be in files of their own
    return tuple(sorted(found))


def _whole(content: bytes) -> str:
    return _text(content) + ANY_NAME * (len(content) > PLAIN_LIMIT)  # the rest may contain anything


def _text(content: bytes) -> str:
    return content.replace(b"\0", b"").decode("latin-1")
