"""The errors of this package.  Pure."""


class DatabaseError(Exception):
    """A database cannot be read, or contradicts itself; the message names file, line if known, and remedy."""


class DecodeError(Exception):
    """A caller asked for a signal index that the plan does not have: a mistake of the program."""
