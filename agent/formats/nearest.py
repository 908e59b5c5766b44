"""Find the known name that somebody most likely meant, for messages that refuse an unknown one.  Pure."""

import difflib
from collections.abc import Iterable
from typing import Final

_LIKENESS: Final = 0.7
"""The least likeness (`difflib.SequenceMatcher.ratio`) of a suggestion: a far-fetched one misleads."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that is most like `name`, or None where none is like it.

    Case and underscores do not count, so `on_change` finds `onChange`.
    """
    folded = {_fold(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=_LIKENESS)
    return folded[found[0]] if found else None


def _fold(name: str) -> str:
    return name.lower().replace("_", "")
