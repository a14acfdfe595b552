"""YAML of Kubernetes and its distributions, read so that whatever a file holds is a value or one sentence."""

from typing import Any

import yaml

from janitor.host.files import inside, read_bounded

_LIMIT = 4 << 20
_MOST_ALIASES = 20


def documents(data: bytes) -> list[dict[str, Any]]:
    """The mappings among the documents of a file. ValueError says what is wrong with it."""
    try:
        # A dozen lines of references to references stand for more values than there is memory.
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data)) > _MOST_ALIASES:
            raise ValueError(f"it holds more than {_MOST_ALIASES} aliases")
        return [document for document in yaml.safe_load_all(data) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(
            f"{where}it is not YAML ({getattr(error, 'problem', None) or 'it cannot be decoded'})"
        ) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not YAML ({error})") from None


def read(root: str, path: str) -> list[dict[str, Any]]:
    """The mappings in the file at `path` of the node under `root`. OSError, or ValueError, which names the file."""
    data = read_bounded(inside(root, path), _LIMIT)
    try:
        return documents(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def scalar(value: Any) -> str:
    """A value as a flag would carry it: lists with commas, booleans in lower case."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(scalar(part) for part in value)
    return "" if value is None else str(value)
