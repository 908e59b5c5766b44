"""The three kinds of failure, by whose fault they are and what to do about them, and the wording of remedies.

Raise the most specific kind, chain the cause, and word the message for the person who has to act: name the file, the
key, the frame or the peer, and the remedy.  Only the supervisor (`agent.runtime.supervisor`) catches other errors
broadly.  Pure.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class AgentError(Exception):
    """Base of all errors that this project raises about outside input or the outside world."""


class Transient(AgentError):
    """The world is not ready (link down, disk full): try again later; nothing is lost meanwhile."""


class Permanent(AgentError):
    """The input is wrong and stays wrong (configuration, database, log file): give up and report."""


class Untrusted(AgentError):
    """The input fails verification (signature, version, seal): reject, report, and never retry."""


def first(group: ExceptionGroup[AgentError]) -> AgentError:
    """Return the first error of a group, however deep it lies, for places where one message must do."""
    error: BaseException = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)
    return error


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
        raise first(ours) from group


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean '...'?" with the known word that is nearest to `word`, or "" if none is near."""
    # Every program imports this file, and few of them ever meet a misspelt word.
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
