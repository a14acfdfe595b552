"""What may be done to a node, as values: actions, what is not done and why, and what the operator allows."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from janitor.core.model.evidence import FileIdentity
from janitor.core.model.reason import Reason

GRACE_S = 600
"""How long a lease is watched before that proves it dead."""
MAX_PER_PASS = 256
SETTLE_S = 60
MISSING_S = 60

Kind = Literal["free", "discard", "reserve", "restore", "configure"]


@dataclass(frozen=True, slots=True)
class _OnFile:
    """A change of the file `directory`/`name`, for a container's interface. `proof` is why it is safe.

    Actions with the same `chain`, a cache entry's path, are one: the CNI DEL of that entry first, then all of them.
    """

    directory: str
    name: str
    container_id: str
    interface: str
    pod: str
    proof: tuple[Reason, ...]
    chain: str = ""

    @property
    def path(self) -> str:
        """Where the file is, as the node names it."""
        return f"{self.directory}/{self.name}"

    @property
    def network(self) -> str:
        """The network's name, for a lease."""
        return self.directory.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeLease(_OnFile):
    """The lease goes to quarantine, if it is still the `file` that was judged."""

    kind: ClassVar[Kind] = "free"
    file: FileIdentity
    ctime_ns: int

    @property
    def key(self) -> str:
        """What it is known by from pass to pass: as long as the file is the same, so is what is to be done about it."""
        return f"{self.kind} {self.path} {self.container_id} {self.ctime_ns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardEntry(_OnFile):
    """The entry of libcni's cache goes to quarantine, if it is still the `file` that was judged."""

    kind: ClassVar[Kind] = "discard"
    file: FileIdentity
    ctime_ns: int

    @property
    def key(self) -> str:
        """As for a lease."""
        return f"{self.kind} {self.path} {self.container_id} {self.ctime_ns}"


@dataclass(frozen=True, slots=True)
class ReserveLease(_OnFile):
    """The missing lease is written."""

    kind: ClassVar[Kind] = "reserve"

    @property
    def key(self) -> str:
        """There is no file yet."""
        return f"{self.kind} {self.path} {self.container_id}"


@dataclass(frozen=True, slots=True)
class RestoreRule:
    """The policy rule is made. `name` is the rule in words, `payload` the kernel's message, in hex."""

    kind: ClassVar[Kind] = "restore"
    directory: ClassVar[str] = ""
    pod: ClassVar[str] = ""
    chain: ClassVar[str] = ""
    name: str
    payload: str
    proof: tuple[Reason, ...]

    @property
    def path(self) -> str:
        """The rule itself."""
        return self.name

    @property
    def key(self) -> str:
        """The rule."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class WriteSetting:
    """The file `directory`/`name` gets the text `content`."""

    kind: ClassVar[Kind] = "configure"
    pod: ClassVar[str] = ""
    chain: ClassVar[str] = ""
    directory: str
    name: str
    content: str
    proof: tuple[Reason, ...]

    @property
    def path(self) -> str:
        """Where the file is, as the node names it."""
        return f"{self.directory}/{self.name}"

    @property
    def key(self) -> str:
        """The file."""
        return f"{self.kind} {self.path}"


Action = FreeLease | DiscardEntry | ReserveLease | RestoreRule | WriteSetting
"""One change of the node."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is left as it is. `wait_s` says when another look could decide otherwise; `pod` whose it was."""

    subject: str
    reasons: tuple[Reason, ...]
    wait_s: int | None = None
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows. Empty `networks` means all; `findings` None means whatever finding it takes care of.

    `postponed` are the keys of actions that were refused before and are not to be tried yet.
    """

    max_per_pass: int = MAX_PER_PASS
    networks: tuple[str, ...] = ()
    grace_s: int = GRACE_S
    findings: frozenset[str] | None = None
    postponed: frozenset[str] = frozenset()

    def about(self, family: str) -> bool:
        """Whether anything of this family of findings (`LEASE`, `RULE`) is asked for."""
        return self.findings is None or any(identifier.startswith(family) for identifier in self.findings)


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order in which they are to be done, and refusals."""

    actions: tuple[Action, ...]
    refusals: tuple[Refusal, ...]
