"""Files written by a newer janitor: after a downgrade, janitor does not act on what it cannot understand.

Standard library only.
"""

import errno
from typing import Any

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.report.words import text


def version_of(document: Any) -> int:
    """The version of a document or record; 1 if it has none."""
    version = document.get("version", 1) if isinstance(document, dict) else 1
    return version if isinstance(version, int) else 1


def newer_note(path: str, found: int, reads: int) -> Reason:
    """Why the file at `path` is not used."""
    return because(Code.NEWER_NOTE, path=path, found=found, reads=reads)


def newer(path: str, found: int, reads: int) -> OSError:
    """The same, as an exception."""
    return OSError(errno.ENOTSUP, text(newer_note(path, found, reads)), path)
