"""What of CNI configuration cannot be understood here, and what libcni remembers of one that is not there any more.

Go's JSON is more lenient than ours, so that a runtime may well have loaded what we cannot read; and a power cut leaves
half of what an installer has just written. Either may have said `firewall` or `disableGC`: the boot stage leaves alone
what such a text names. Standard library only.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from janitor.host.cni import EXTENSIONS, LIMIT, WELL_KNOWN, understand
from janitor.host.cni_cache import CACHES
from janitor.host.files import inside, names, read_bounded

ANY_NAME: Final = "\\u"
"""In a text: any network may be meant."""

_LIMIT = 1 << 20
_OBSCURED = re.compile(r"firewall|disablegc|\\u", re.IGNORECASE)
_CONFIG = re.compile(rb'.*"config": *"([^"]*)"')  # as encoding/json writes it: one line


def any_configuration(root: str) -> bool:
    """Whether there is anything in the usual places that has a configuration's name."""
    return any(name.endswith(EXTENSIONS) for _, name in _files(root))


def obscure_files(root: str) -> tuple[str, ...]:
    """The texts of the files in the usual places that may be about `firewall` or `disableGC`, byte for byte.

    A configuration that cannot be understood may be, whatever is left of it; of other files (an old configuration that
    somebody has put aside) those that say so.
    """
    found = []
    for directory, name in _files(root):
        try:
            content = read_bounded(inside(root, f"{directory}/{name}"), LIMIT + 1)
        except OSError:
            continue
        text = _text(content) + (ANY_NAME if len(content) > LIMIT else "")  # anything may be in the rest of it
        if _damaged(name, content) if name.endswith(EXTENSIONS) else _OBSCURED.search(text):
            found.append(text)
    return tuple(found)


def remembered(root: str) -> tuple[str, ...]:
    """The configurations in libcni's cache that are about `firewall` or `disableGC`.

    Of an entry without a configuration, but not blank as power cuts leave them, its name: it may have been about them.
    """
    found: set[str] = set()
    configs: set[bytes] = set()
    for cache in CACHES:
        here = inside(root, cache)
        for name in names(here):
            path = Path(here, name)
            regular = path.is_file() and not path.is_symlink()
            content = read_bounded(str(path), _LIMIT, follow=False) if regular else b"?"
            there = _CONFIG.findall(content)
            configs.update(there)
            if not there and content.strip(b"\0"):
                found.add(name)
    for config in configs:
        try:
            text = _text(base64.b64decode(config, validate=True))
        except ValueError:
            text = ANY_NAME
        if _OBSCURED.search(text):
            found.add(text + (ANY_NAME if "multus" in text else ""))  # its delegates may be in files of their own
    return tuple(sorted(found))


def _files(root: str) -> Iterator[tuple[str, str]]:
    for directory in WELL_KNOWN:
        try:
            there = names(inside(root, directory))
        except OSError:
            continue
        yield from ((directory, name) for name in there)


def _damaged(name: str, content: bytes) -> bool:
    try:
        understand(name, content)
    except ValueError:
        return True
    return False


def _text(content: bytes) -> str:
    return content.replace(b"\0", b"").decode("latin-1")
