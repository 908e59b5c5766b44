"""The kinds of errors in this project, and helpers that suggest a known name for a misspelt name.  Pure.

Raise the most specific kind, and chain the cause.  Word the message for the person who has to act: name the file, the
key, the frame or the peer, and the remedy.  Only the supervisor (`agent.runtime.supervisor`) and the receiver's intake
(`fleet.receiving.intake`) catch errors of any kind.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

_LIKENESS: Final = 0.65
"""The least similarity (`difflib.SequenceMatcher.ratio`) of a suggestion; a far-fetched suggestion would mislead."""


class AgentError(Exception):
    """Base of all errors that this project raises about outside input or the outside world."""


class Transient(AgentError):
    """An error that can pass by itself, such as a broken link or a full disk.  Retry later."""


class Permanent(AgentError):
    """An error in the input, such as a configuration, a database or a log file.  Report it; a retry would not help."""


class Mistakes(Permanent):
    """Several errors in one input; `each` has the message of each, so that all can be corrected at once."""

    def __init__(self, each: Sequence[str]) -> None:
        super().__init__("; ".join(each))
        self.each = tuple(each)


class Untrusted(AgentError):
    """An error in input that is malformed or fails verification.  Reject the input, report it, and never retry."""


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the first AgentError of an ExceptionGroup that leaves the `with` block, in place of the group.

    A group that also has an error of another kind is raised unchanged, because an error of the programmer must keep its
    traceback.
    """
    try:
        yield
    except ExceptionGroup as group:
        ours, others = group.split(AgentError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from group


def _first(group: ExceptionGroup[AgentError]) -> AgentError:
    error: BaseException = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)
    return error


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that is most like `name`, or None if no name is like it.

    Case and underscores do not count, so `on_change` finds `onChange`.
    """
    # Every program imports this file, but a suggestion is seldom needed, so difflib is imported only here.
    from difflib import get_close_matches  # noqa: PLC0415

    folded = {_fold(candidate): candidate for candidate in known}
    found = get_close_matches(_fold(name), folded, n=1, cutoff=_LIKENESS)
    return folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean '...'?" with the known name that is nearest to `name`, or "" if no name is near."""
    near = nearest(name, known)
    return "" if near is None else f"did you mean {near!r}?"


def _fold(name: str) -> str:
    return name.lower().replace("_", "")
