"""The three kinds of failure, by whose fault it is and what to do about it.

Raise the most specific one, chain the cause, and word the message for the person who has to act: name the file, the
key, the frame or the peer, and the remedy.  Nothing else in this project may be caught broadly, except at the
supervisor in `agent.app`.
"""


class AgentError(Exception):
    """Base of all errors this project raises on outside input or the outside world."""


class Transient(AgentError):
    """The world is not ready (link down, disk full): try again later; nothing is lost meanwhile."""


class Permanent(AgentError):
    """The input is wrong and stays wrong (configuration, database, log file): give up and report."""


class Untrusted(AgentError):
    """The input fails verification (signature, version, seal): refuse, report, never retry."""
