"""Changes of a node as values: actions, refusals with their reasons, and what the operator allows."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from janitor.core.model.evidence import FileIdentity
from janitor.core.model.reason import Reason

GRACE_S = 600
"""How long a lease is watched before it counts as proven dead."""
MAX_PER_PASS = 256
SETTLE_S = 60
MISSING_S = 60

Kind = Literal["free", "discard", "reserve", "restore", "configure"]


@dataclass(frozen=True, slots=True)
class _OnFile:
    """A change of the file `directory`/`name`, for a container's interface. `proof` is why it is safe.

    Actions with the same `chain` (the path of a cache entry) form a unit: the CNI DEL of that entry runs first.
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
        """The file's path as the node sees it."""
        return f"{self.directory}/{self.name}"

    @property
    def network(self) -> str:
        """For a lease, the name of its network."""
        return self.directory.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeLease(_OnFile):
    """Move the lease to quarantine, if it is still the `file` that was judged."""

    kind: ClassVar[Kind] = "free"
    file: FileIdentity
    ctime_ns: int

    @property
    def key(self) -> str:
        """Identifies the action from pass to pass; the same as long as the file is."""
        return f"{self.kind} {self.path} {self.container_id} {self.ctime_ns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardEntry(_OnFile):
    """Move the entry of libcni's cache to quarantine, if it is still the `file` that was judged."""

    kind: ClassVar[Kind] = "discard"
    file: FileIdentity
    ctime_ns: int

    @property
    def key(self) -> str:
        """As for a lease."""
        return f"{self.kind} {self.path} {self.container_id} {self.ctime_ns}"


@dataclass(frozen=True, slots=True)
class ReserveLease(_OnFile):
    """Write the missing lease."""

    kind: ClassVar[Kind] = "reserve"

    @property
    def key(self) -> str:
        """Without a ctime: there is no file yet."""
        return f"{self.kind} {self.path} {self.container_id}"


@dataclass(frozen=True, slots=True)
class RestoreRule:
    """Add the policy rule. `name` is the rule in words, `payload` the kernel's message in hex."""

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
    """Write the text `content` to the file `directory`/`name`."""

    kind: ClassVar[Kind] = "configure"
    pod: ClassVar[str] = ""
    chain: ClassVar[str] = ""
    directory: str
    name: str
    content: str
    proof: tuple[Reason, ...]

    @property
    def path(self) -> str:
        """The file's path as the node sees it."""
        return f"{self.directory}/{self.name}"

    @property
    def key(self) -> str:
        """The file."""
        return f"{self.kind} {self.path}"


Action = FreeLease | DiscardEntry | ReserveLease | RestoreRule | WriteSetting
"""One change of the node."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is left unchanged. `wait_s`: seconds until another look may decide otherwise; `pod`: its owner."""

    subject: str
    reasons: tuple[Reason, ...]
    wait_s: int | None = None
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows. Empty `networks` means all of them; `findings` None means every finding.

    `postponed` holds the keys of actions that were refused before and must not be retried yet.
    """

    max_per_pass: int = MAX_PER_PASS
    networks: tuple[str, ...] = ()
    grace_s: int = GRACE_S
    findings: frozenset[str] | None = None
    postponed: frozenset[str] = frozenset()

    def about(self, family: str) -> bool:
        """Whether findings of this family (`LEASE`, `RULE`) are selected."""
        return self.findings is None or any(identifier.startswith(family) for identifier in self.findings)


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order of execution, and refusals."""

    actions: tuple[Action, ...]
    refusals: tuple[Refusal, ...]
