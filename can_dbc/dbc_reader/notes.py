"""Collects the notes of one database file, and puts notes with the same text together.  Pure."""

from typing import Final

_SHOWN: Final = 8  # lines and names in one note, so that a note about a thousand lines still fits on a screen


class Notes:
    """Collects what was repaired or left out, with lines and names."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[str, tuple[dict[int, None], dict[str, None]]] = {}

    def add(self, line: int, text: str, name: str = "") -> None:
        """Add a note about line number `line`; `name` is the message or `Message.Signal`, if there is one."""
        lines, names = self._found.setdefault(text, ({}, {}))
        lines[line] = None
        if name:
            names[name] = None

    def texts(self) -> tuple[str, ...]:
        """Return the notes in the order in which their texts were first added."""
        return tuple(
            f"{self._source}: {'line' if len(lines) == 1 else 'lines'} {_listed(list(map(str, lines)))}: "
            + (f"{_listed(list(names))}: {text}" if names else text)
            for text, (lines, names) in self._found.items()
        )


def _listed(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
