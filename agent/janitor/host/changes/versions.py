"""Files that a newer janitor has written: after a rollback nothing is done by what cannot be understood.

Standard library only.
"""

import errno
from typing import Any

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.report.words import text


def version_of(document: Any) -> int:
    """Of a document or record; 1 where it does not say."""
    version = document.get("version", 1) if isinstance(document, dict) else 1
    return version if isinstance(version, int) else 1


def newer_note(path: str, found: int, reads: int) -> Reason:
    """Why what lies at `path` is not used."""
    return because(Code.NEWER_NOTE, path=path, found=found, reads=reads)


def newer(path: str, found: int, reads: int) -> OSError:
    """The same, to be raised."""
    return OSError(errno.ENOTSUP, text(newer_note(path, found, reads)), path)
