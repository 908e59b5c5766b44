"""Defines the errors of this package.  Pure."""


class DatabaseError(Exception):
    """A database cannot be read or compiled.

    The text of the error names the remedy.  It also names the file (with the line if known), or the CAN message and the
    signal.
    """


class DecodeError(Exception):
    """A caller asked for a signal that a message does not have, which is a mistake in the program."""
