"""Parses a host-local lease file, from its name and its bytes alone.

The formats are those of containernetworking/plugins, `backend/disk/backend.go`: since v0.8.0
`<container ID>\\r\\n<interface>` without a final newline (70 bytes for a CRI sandbox on eth0); before that the
container ID alone, which DEL still accepts. The file's name is the address as Go prints it.
"""

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileIdentity, LeaseFile, Unknown
from janitor.core.model.reason import Reason, because

Address = IPv4Address | IPv6Address

CRI_ID = re.compile(r"[0-9a-f]{64}")
"""containerd and cri-o name every sandbox by 64 hexadecimal digits. Leases with other IDs are never candidates."""

LONGEST_LEASE = 4096
"""More than any lease holds (an ID, CR LF and an interface name of at most 15 bytes)."""

Shape = Literal["lease", "corrupt", "foreign", "bookkeeping", "unreadable"]

_BOOKKEEPING = re.compile(r"lock|last_reserved_ip(\.\d+)?")
_WHOLE_DIGESTS = (
    32,
    40,
    56,
)  # lengths of complete IDs in hexadecimal digits that others may use (MD5, SHA-1, …)


@dataclass(frozen=True, slots=True)
class ParsedLease:
    """What one file of a network's directory is.

      `lease`        `container_id` is 64 hexadecimal digits; `interface` is "" in the format before v0.8.0
      `corrupt`      host-local never finishes a file like this, and no CNI DEL can ever match it
      `foreign`      somebody else's
      `bookkeeping`  host-local's own `lock` and `last_reserved_ip.N`
      `unreadable`   it may be anything

    `note` is the reason; None for an intact lease.
    """

    shape: Shape
    note: Reason | None
    address: Address | None = None
    container_id: str = ""
    interface: str = ""
    stuck: bool = False  # names its owner, but in bytes that CNI DEL does not match
    fragment: str = ""  # of a truncated lease: what is left of the container ID


def canonical_address(name: str) -> Address | None:
    """The address that a file is named after; None if host-local would not write the name like this."""
    try:
        address = ip_address(name)
    except ValueError:
        return None
    # Go prints an IPv4-mapped address as IPv4, Python does not: such a name is not canonical for either.
    if str(address) != name or (isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id)):
        return None
    return address


def parse_lease(file: LeaseFile) -> ParsedLease:
    """Read one directory entry. Never raises, whatever the bytes are."""
    if _BOOKKEEPING.fullmatch(file.name):
        return ParsedLease("bookkeeping", because(Code.BOOKKEEPING))
    address = canonical_address(file.name)
    if address is None:
        return ParsedLease("foreign", because(Code.NAME_NOT_AN_ADDRESS, name=repr(file.name)))
    if file.kind != "file":
        return ParsedLease("foreign", because(Code.NOT_A_REGULAR_LEASE, kind=file.kind), address)
    if isinstance(file.content, Unknown):
        return ParsedLease("unreadable", file.content.reason, address)
    if file.size > LONGEST_LEASE:
        return ParsedLease("foreign", because(Code.TOO_LARGE, bytes=file.size), address)
    return _parse_content(file.content, address)


def _parse_content(content: bytes, address: Address) -> ParsedLease:
    if not content:
        return ParsedLease("corrupt", because(Code.EMPTY), address)
    if not content.strip(b"\0 \t\r\n"):
        what = "NUL bytes" if b"\0" in content else "white space"
        return ParsedLease("corrupt", because(Code.BLANK, bytes=len(content), what=what), address)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return ParsedLease("foreign", because(Code.BINARY), address)
    head, nul, rest = text.partition("\0")
    if nul:
        if rest.strip("\0") == "" and re.fullmatch(r"[0-9a-f]{1,64}(\r\n?\w*)?", head):
            return ParsedLease("corrupt", because(Code.BREAKS_OFF_IN_NULS), address, fragment=head[:64].strip())
        return ParsedLease("foreign", because(Code.BINARY), address)
    # host-local trims white space at both ends before it compares (backend.go, ReleaseByID).
    first, separator, second = _split(text.strip())
    if CRI_ID.fullmatch(first):
        stuck = separator not in ("", "\r\n")
        note = because(Code.LINES_END_IN_LF) if stuck else None
        return ParsedLease("lease", note, address, first, second, stuck)
    length = len(text)
    if 12 < length < 64 and length not in _WHOLE_DIGESTS and re.fullmatch(r"[0-9a-f]+", text):
        return ParsedLease("corrupt", because(Code.BREAKS_OFF, digits=length), address, fragment=text)
    return ParsedLease("foreign", because(Code.NOT_A_SANDBOX_ID, id=_shorten(first)), address)


def _split(text: str) -> tuple[str, str, str]:
    """The first line, its line ending, and the rest."""
    for separator in ("\r\n", "\n", "\r"):
        first, found, rest = text.partition(separator)
        if found:
            return first.strip(), separator, rest.strip()
    return text, "", ""


def _shorten(text: str) -> str:
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"


def identity(path: str, file: LeaseFile) -> FileIdentity | None:
    """What is compared between two looks at a file; None if its content could not be read."""
    if isinstance(file.content, Unknown):
        return None
    digest = hashlib.sha256(file.content).hexdigest()
    return FileIdentity(path, file.device, file.inode, file.mtime_ns, file.size, digest)
