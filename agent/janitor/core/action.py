"""What may be done to a node, as values: actions, what is not done and why, and what the operator allows."""

from dataclasses import dataclass
from typing import Literal

from janitor.core.age import GRACE_S
from janitor.core.evidence import FileIdentity

MAX_PER_PASS = 256
SETTLE_S = 60
MISSING_S = 60

Kind = Literal["free", "discard", "reserve", "restore", "configure"]


@dataclass(frozen=True, slots=True)
class Action:
    """One change. `proof` is why it is safe, in the words of the judgement.

    `free`     the lease `directory`/`name` goes to quarantine
    `discard`  the libcni cache entry `directory`/`name` goes to quarantine
    `reserve`  the missing lease `directory`/`name` is written for `container_id` and `interface`
    `restore`  the policy rule `name` is made; `content` is its payload, in hex
    `configure` the file `directory`/`name` gets the text `content`

    Actions with the same `chain`, a cache entry's path, are one: the CNI DEL of that entry first, then all of them.
    """

    kind: Kind
    directory: str
    name: str
    container_id: str
    interface: str
    pod: str
    proof: tuple[str, ...]
    file: FileIdentity | None = None  # None where there is no file
    ctime_ns: int = 0
    chain: str = ""
    content: str = ""

    @property
    def path(self) -> str:
        """Where the file is, as the node names it; the rule itself, for a rule."""
        return self.name if self.kind == "restore" else f"{self.directory}/{self.name}"

    @property
    def key(self) -> str:
        """What it is known by from pass to pass: as long as the file is the same, so is what is to be done about it."""
        return f"{self.kind} {self.path} {self.container_id} {self.ctime_ns}"

    @property
    def network(self) -> str:
        """The network's name, for a lease."""
        return self.directory.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is left as it is. `wait_s` says when another look could decide otherwise; `pod` whose it was."""

    subject: str
    reason: str
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
