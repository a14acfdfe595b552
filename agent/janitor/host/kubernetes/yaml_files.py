"""YAML of Kubernetes and its distributions. Whatever a file contains, reading it gives a value or one sentence."""

from typing import Any, Final

import yaml

from janitor.host.files import inside, read_bounded

# libyaml is fifty times as fast. The wheels and Debian's package include it.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LIMIT = 1 << 20
_MOST_ALIASES = 20
_MOST_VALUES = 50_000  # one second of work; the files of a whole control plane have a few hundred
_DEEPEST = 100
_LONGEST_LIST = 1000


def documents(data: bytes) -> list[dict[str, Any]]:
    """The documents of a file that are mappings. ValueError with what is wrong with it."""
    return [document for document in _loaded(data) if isinstance(document, dict)]


def value(data: bytes) -> Any:
    """The first document, of any type; None if there is none. ValueError as above."""
    return next(iter(_loaded(data)), None)


def _loaded(data: bytes) -> list[Any]:
    try:
        _bounded(data)
        return list(yaml.load_all(data, _LOADER))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        last = len(data.splitlines()) or 1  # libyaml's position may be past the end
        where = f"line {min(mark.line + 1, last)}: " if mark is not None else ""
        raise ValueError(
            f"{where}it is not YAML ({getattr(error, 'problem', None) or 'it cannot be decoded'})"
        ) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:
        text = str(error)
        raise ValueError(text if text.startswith("it ") else f"it is not YAML ({text})") from None


def _bounded(data: bytes) -> None:
    """Refuse a file that would expand to more values than fit into memory: a megabyte with aliases can. ValueError."""
    aliases = values = depth = 0
    for event in yaml.parse(data, _LOADER):
        aliases += isinstance(event, yaml.AliasEvent)
        values += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > _MOST_ALIASES:
            raise ValueError(f"it holds more than {_MOST_ALIASES} aliases")
        if values > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")


def read(root: str, path: str) -> list[dict[str, Any]]:
    """The mappings in the file at `path` of the node under `root`. OSError, or ValueError that names the file."""
    data = read_bounded(inside(root, path), _LIMIT + 1)
    try:
        if len(data) > _LIMIT:
            raise ValueError(f"it is larger than {_LIMIT >> 10} KiB")
        return documents(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def scalar(value: Any) -> str:
    """A value in the form of a flag: lists with commas, booleans in lower case. ValueError for very long lists."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        if len(value) > _LONGEST_LIST:
            raise ValueError(f"it holds a list of {len(value)} values, where {_LONGEST_LIST} would be too many")
        return ",".join(scalar(part) for part in value)
    return "" if value is None else str(value)
