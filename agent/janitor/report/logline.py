"""Lines of the log: `key=value`, as logfmt has it, the event first."""

from janitor.core.prose import safe


def line(event: str, fields: dict[str, object]) -> str:
    """One line without its end; values with spaces are quoted, empty ones left out."""
    words = [f"event={_quoted(event)}"]
    words += [f"{name}={_quoted(str(value))}" for name, value in fields.items() if value not in ("", None)]
    return " ".join(words)


def _quoted(value: str) -> str:
    text = safe(value)
    plain = text and not any(c in ' "=\\' for c in text)
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
