"""JSON of values whose text may come from file names, which may have any bytes, unlike JSON.

Python decodes bytes that are not UTF-8 as lone surrogates (PEP 383). A pod can create such names for mounts, links,
processes and sockets; they must not make a report fail.
"""

from typing import Any

import msgspec


def to_bytes(value: Any) -> bytes:
    """The value on one line. A byte that is not UTF-8 becomes `\\udcNN`, where NN is the byte."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_readable(msgspec.to_builtins(value)))


def indented(value: Any, indent: int = 2) -> bytes:
    """The same, indented for people, with a final newline."""
    pretty: bytes = msgspec.json.format(to_bytes(value), indent=indent)
    return pretty + b"\n"


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_readable(key): _readable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(one) for one in value]
    return value
