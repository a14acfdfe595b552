"""What of CNI configuration cannot be understood here, and what libcni remembers of one that is not there any more.

Go's JSON is more lenient than ours, so that a runtime may well have loaded what we cannot read; and a power cut leaves
half of what an installer has just written. Either may have said `firewall` or `disableGC`: the boot stage leaves alone
what such a text names. Standard library only.
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
"""In a text: any network may be meant."""

_OBSCURED = re.compile(r"firewall|disablegc|\\u", re.IGNORECASE)
_CONFIG = re.compile(rb'.*"config": *"([^"]*)"')  # as encoding/json writes it: one line


def any_configuration(configuration: Configuration) -> bool:
    """Whether there is, or may be, anything that has a configuration's name."""
    return any(isinstance(place.files, Unknown) or place.files for place in configuration.directories)


def obscure_files(node: Node, configuration: Configuration) -> tuple[str, ...]:
    """The texts of the files that may be about `firewall` or `disableGC`, byte for byte.

    A configuration that cannot be understood may be, whatever is left of it; of other files (an old configuration that
    somebody has put aside) those that say so.
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

    Of an entry without a configuration, but not blank as power cuts leave them, its name: it may have been about them.
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
    return _text(content) + ANY_NAME * (len(content) > PLAIN_LIMIT)  # anything may be in the rest of it


def _text(content: bytes) -> str:
    return content.replace(b"\0", b"").decode("latin-1")
