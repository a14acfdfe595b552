"""Small pieces of plain English for findings."""

from collections.abc import Iterable

_SHOWN = 8


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 lease`, `3 leases`; `plural` for nouns that do not take an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def listing(items: list[str], shown: int = _SHOWN) -> str:
    """The first few, and how many more there are."""
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more} more" if more > 0 else "")


def nearest(word: str, there: Iterable[str]) -> str:
    """` (did you mean 'grace'?)`, where one of `there` is near enough for a slip of the pen; else ""."""
    from difflib import get_close_matches  # here, because nobody needs it as long as all is well

    names = {name.lower(): name for name in there}
    near = get_close_matches(word.lower(), names, n=1)
    return f" (did you mean '{names[near[0]]}'?)" if near else ""


def safe(text: str) -> str:
    """`text` without control characters: a file's name must not forge a line or paint a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h`, `3 d`: the largest unit of which there are at least two, or seconds."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
