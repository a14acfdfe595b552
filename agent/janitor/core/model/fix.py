"""What to do about a finding, as a value: sentences for people, and commands and files that can be pasted as they are.

`Command.of` is the only place where values of the node become part of a command: names that a pod or a file was given
are quoted there for a shell, so that pasting a command runs that command and nothing else.
"""

import shlex
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words for people, or a part of a sentence. A terminal may break them anywhere."""

    kind: ClassVar[Literal["sentence"]] = "sentence"
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a shell, ready to be pasted. Only a literal is passed as `shell`; values go through `of`."""

    kind: ClassVar[Literal["command"]] = "command"
    shell: str
    comment: str = ""

    @classmethod
    def of(cls, *words: str) -> "Command":
        """The command of these words, each of which is one word for the shell too."""
        return cls(shlex.join(words))

    def and_then(self, other: "Command") -> "Command":
        """Both, the other one only if this one succeeds."""
        return Command(f"{self.shell} && {other.shell}")

    def into(self, other: "Command") -> "Command":
        """Both, with the output of this one as the input of the other."""
        return Command(f"{self.shell} | {other.shell}")

    @property
    def text(self) -> str:
        """The command with its comment."""
        return f"{self.shell}    # {self.comment}" if self.comment else self.shell

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Snippet:
    """Flags or a line for a file, word by word as they have to stand there."""

    kind: ClassVar[Literal["snippet"]] = "snippet"
    text: str


@dataclass(frozen=True, slots=True)
class LineBreak:
    """What follows begins a new line."""

    kind: ClassVar[Literal["line break"]] = "line break"
    text: ClassVar[str] = "\n"


@dataclass(frozen=True, slots=True)
class File:
    """All lines of a file, to be saved under `path`."""

    kind: ClassVar[Literal["file"]] = "file"
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Patch:
    """The change of the file `path`, for `patch -p1 -d /`."""

    kind: ClassVar[Literal["patch"]] = "patch"
    path: str
    text: str


Block = File | Patch
Part = Sentence | Command | Snippet | LineBreak | Block
NEW_LINE = LineBreak()


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, in order. The texts of all parts, one after the other, are what people read."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: str | Part) -> "Fix":
        """The fix of these parts, where a plain text is a sentence. A file or a patch has its lines to itself."""
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
        """All of it."""
        return "".join(part.text for part in self.parts)
