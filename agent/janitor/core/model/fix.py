"""The fix of a finding as a value: sentences for people, and commands and files that can be pasted as they are.

`Command.of` is the only place where values from the node become part of a command. It quotes them for a shell, because
a pod or a file may choose a name: pasting a command runs that command and nothing else.
"""

import shlex
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words for people: a sentence or a part of one. A terminal may wrap it anywhere."""

    kind: ClassVar[Literal["sentence"]] = "sentence"
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A shell command, ready to be pasted. Pass only literals as `shell`; values go through `of`."""

    kind: ClassVar[Literal["command"]] = "command"
    shell: str
    comment: str = ""

    @classmethod
    def of(cls, *words: str) -> "Command":
        """The command made of these words, each quoted for the shell."""
        return cls(shlex.join(words))

    def and_then(self, other: "Command") -> "Command":
        """This command, then `other` if this one succeeds."""
        return Command(f"{self.shell} && {other.shell}")

    def into(self, other: "Command") -> "Command":
        """A pipe from this command to `other`."""
        return Command(f"{self.shell} | {other.shell}")

    @property
    def text(self) -> str:
        """The command with its comment."""
        return f"{self.shell}    # {self.comment}" if self.comment else self.shell

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Snippet:
    """Flags or a line for a file, exactly as they have to stand there."""

    kind: ClassVar[Literal["snippet"]] = "snippet"
    text: str


@dataclass(frozen=True, slots=True)
class LineBreak:
    """Starts a new line."""

    kind: ClassVar[Literal["line break"]] = "line break"
    text: ClassVar[str] = "\n"


@dataclass(frozen=True, slots=True)
class File:
    """The complete text of a file, to be saved under `path`."""

    kind: ClassVar[Literal["file"]] = "file"
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A change of the file `path`, for `patch -p1 -d /`."""

    kind: ClassVar[Literal["patch"]] = "patch"
    path: str
    text: str


Block = File | Patch
Part = Sentence | Command | Snippet | LineBreak | Block
NEW_LINE = LineBreak()


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, in order. The parts' texts joined together are what people read."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: str | Part) -> "Fix":
        """The fix made of these parts; a plain text is a sentence. Files and patches get lines of their own."""
        found: list[Part] = []
        for part in (Sentence(part) if isinstance(part, str) else part for part in parts):
            last = found[-1] if found else NEW_LINE
            if isinstance(part, Sentence) and isinstance(last, Sentence):
                found[-1] = Sentence(last.text + part.text)
                continue
            if (isinstance(part, Block) or isinstance(last, Block)) and not last.text.endswith("\n"):
                found.append(NEW_LINE)
            found.append(part)
        return cls(tuple(part for part in found if part.text))

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(part.text for part in self.parts)
