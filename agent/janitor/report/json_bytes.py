"""JSON of a value whose text may come from file names: the kernel lets those be any bytes, and JSON does not.

Python keeps bytes that are no UTF-8 as lone surrogates (PEP 383). A pod can have such names among its mounts, links,
processes and sockets; one of them must not be the end of a report.
"""

from typing import Any

import msgspec


def to_bytes(value: Any) -> bytes:
    """The value on one line. A byte that is no UTF-8 becomes `\\udcNN`, of which NN is the byte."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_readable(msgspec.to_builtins(value)))


def indented(value: Any, indent: int = 2) -> bytes:
    """The same for people, with a line break at the end."""
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
