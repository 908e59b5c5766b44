"""The three kinds of failure, by whose fault they are and what to do about them, and the wording of remedies.

Raise the most specific kind, chain the cause, and word the message for the person who has to act: name the file, the
key, the frame or the peer, and the remedy.  Only the supervisor (`agent.runtime.supervisor`) catches other errors
broadly.  Pure.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

_LIKENESS: Final = 0.65
"""The least likeness (`difflib.SequenceMatcher.ratio`) of a suggestion, because a far-fetched one misleads."""


class AgentError(Exception):
    """Base of all errors that this project raises about outside input or the outside world."""


class Transient(AgentError):
    """The world is not ready (link down, disk full): try again later; nothing is lost meanwhile."""


class Permanent(AgentError):
    """The input is wrong and stays wrong (configuration, database, log file): give up and report."""


class Untrusted(AgentError):
    """The input fails verification (signature, version, seal): reject, report, and never retry."""


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the first AgentError of an ExceptionGroup that leaves the block, in place of the group.

    A group with any other error is raised unchanged, because an error of the programmer must keep its traceback.
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
    # Every program imports this file, and few of them ever meet a misspelt name.
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
