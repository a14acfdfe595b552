"""Small pieces of plain English for findings."""

from collections.abc import Iterable

_SHOWN = 8


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 lease`, `3 leases`; `plural` for nouns that do not take an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def listing(items: list[str], shown: int = _SHOWN) -> str:
    """The first `shown` items, and how many more there are."""
    more = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {more} more" if more > 0 else "")


def id_ranges(ids: Iterable[str]) -> str:
    """`CIDR001-CIDR004, KUB001`: consecutive IDs are written as a range."""
    runs: list[list[str]] = []
    for one in ids:
        before = runs[-1][-1] if runs else ""
        if before[:-3] == one[:-3] and int(before[-3:]) + 1 == int(one[-3:]):
            runs[-1].append(one)
        else:
            runs.append([one])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def nearest(word: str, there: Iterable[str]) -> str:
    """` (did you mean 'grace'?)` if one of `there` is close enough for a typo; else ""."""
    from difflib import get_close_matches  # imported late: only needed after a typo

    names = {name.lower(): name for name in there}
    near = get_close_matches(word.lower(), names, n=1)
    return f" (did you mean '{names[near[0]]}'?)" if near else ""


def safe(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge a line or send terminal sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `5 h`, `3 d`: the largest unit that fits at least twice, else seconds."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
