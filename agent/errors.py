"""The three kinds of failure, by whose fault it is and what to do about it.

Raise the most specific one, chain the cause, and word the message for the person who has to act: name the file, the
key, the frame or the peer, and the remedy.  Nothing else in this project may be caught broadly, except at the
supervisor (`agent.runtime.supervisor`).
"""


class AgentError(Exception):
    """Base of all errors this project raises on outside input or the outside world."""


class Transient(AgentError):
    """The world is not ready (link down, disk full): try again later; nothing is lost meanwhile."""


class Permanent(AgentError):
    """The input is wrong and stays wrong (configuration, database, log file): give up and report."""


class Untrusted(AgentError):
    """The input fails verification (signature, version, seal): refuse, report, never retry."""


def first(group: ExceptionGroup[AgentError]) -> AgentError:
    """The first error of a group, however deep: where one message must do."""
    error: BaseException = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)
    return error
