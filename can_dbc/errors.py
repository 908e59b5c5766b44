"""Defines the errors of this package.  Pure."""


class DatabaseError(Exception):
    """A database cannot be read or compiled.

    The message names the remedy, and either the file (with the line if known) or the message and signal of the
    database.
    """


class DecodeError(Exception):
    """A caller asked for a signal that a message does not have, which is a mistake in the program."""
