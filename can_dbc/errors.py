"""The errors of this package, each worded for the person who has to repair the file.  Pure."""


class DatabaseError(Exception):
    """A database cannot be read, or says what no decoder can honour.  Names file, line where known, and remedy."""


class DecodeError(Exception):
    """A caller asked for what the plan does not hold (a signal index out of range): a mistake of the program."""
