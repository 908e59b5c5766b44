"""Parses ARXML, KCD and SYM databases with cantools, and notes what cantools warns of or leaves to its caller.

Each format has a module of its own (`arxml.py`, `kcd.py`, `sym.py`), which handles what cantools ignores silently.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cantools.database.can import Message
from cantools.database.conversion import NamedSignalConversion
from cantools.database.errors import UnsupportedDatabaseFormatError

from can_dbc import arxml, kcd, sym
from can_dbc.buses import file_and_bus
from can_dbc.errors import DatabaseError
from can_dbc.noted import NotedDatabase

_LINE: Final = re.compile(r"(?:at|:) line (\d+)")
_CANTOOLS: Final = logging.getLogger("cantools.database")
_LOOKUPS: Final = "cantools.database.can.database"
"""The logger by which cantools warns of messages that share a name or an identifier in its own look-up tables.

These tables are not used here, and the notes of the plan name such messages (can_dbc/compile.py).
"""


def parse(text: str, database_format: str, source: Path) -> NotedDatabase:
    """Parse a database in the format "arxml", "kcd" or "sym"; `source` is its path, perhaps with a bus.

    Raises: DatabaseError if cantools refuses the text, or if the file has no such bus.
    """
    file, bus = file_and_bus(source)
    warnings: list[str] = []
    try:
        with _heard(warnings):
            if database_format == "arxml":
                database = arxml.parse(text)
            elif database_format == "kcd":
                database = kcd.parse(text)
            else:
                database = sym.parse(text, str(file))
    except UnsupportedDatabaseFormatError as error:
        raise DatabaseError(_refusal(getattr(error, f"e_{database_format}"), database_format, file)) from error
    except (*arxml.FAULTS, SyntaxError, RecursionError) as error:  # expat raises a SyntaxError if the text is not XML.
        raise DatabaseError(_refusal(error, database_format, file)) from error
    database.notes += tuple(warnings)
    for message in database.messages:
        for inner in (message, *(message.contained_messages or ())):
            database.notes += tuple(_corrected(inner))
    return _of_bus(database, bus, file)


def _of_bus(database: NotedDatabase, bus: str | None, file: Path) -> NotedDatabase:
    """Return the messages that `database` has on `bus`, or all messages if `bus` is None.

    Without a choice, a note names the buses.  If an identifier means different messages on two of them, compiling the
    plan fails (can_dbc/compile.py).

    Raises: DatabaseError that names the buses of `file`, if `bus` is not one of them.
    """
    names = sorted({message.bus_name for message in database.messages if message.bus_name is not None})
    known = sorted({*names, *(b.name for b in database.buses)})
    if bus is None:
        if len(names) > 1:
            database.notes += (
                f"the database describes the buses {', '.join(names)}, and the messages of all of them are used; "
                f"choose one, as in {file.name}#{names[0]}",
            )
        return database
    if bus not in known:
        has = f"its buses are {', '.join(known)}" if known else "the file names no buses"
        raise DatabaseError(f"{file}: the file has no bus {bus!r}; {has}; correct the name after the #")
    return NotedDatabase([m for m in database.messages if m.bus_name == bus], database.buses, database.notes)


def _corrected(message: Message) -> Iterator[str]:
    """Make the numbers of texts whole, because a SYM file may write 1.0 for 1.  Yield a note for each scale of 0."""
    for signal in message.signals:
        conversion = signal.conversion
        if isinstance(conversion, NamedSignalConversion) and conversion.choices:
            conversion.set_choices(
                OrderedDict((int(key), text) for key, text in conversion.choices.items() if key == int(key))
            )
        if conversion.scale == 0:
            yield (
                f"{message.name}.{signal.name}: the scale is 0, so all values are {float(conversion.offset)}; "
                "correct it in the database"
            )


def _refusal(cause: Exception | None, database_format: str, file: Path) -> str:
    """Return an error message with the file, the line if cantools names it, cantools' reason and the remedy."""
    reason = " ".join(str(cause).split()) or type(cause).__name__
    line = _LINE.search(reason)
    place = str(file) if line is None else f"{file}: line {line[1]}"
    return (
        f"{place}: cantools refuses this {database_format.upper()} file: {reason}. "
        "Repair the file, or export it again with the tool that made it"
    )


class _Listener(logging.Handler):
    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        warning = f"cantools warns: {' '.join(record.getMessage().split())}"
        if record.name != _LOOKUPS and warning not in self._warnings:
            self._warnings.append(warning)


@contextmanager
def _heard(warnings: list[str]) -> Iterator[None]:
    """Add each distinct warning of cantools to `warnings` instead of logging it."""
    listener = _Listener(warnings)
    level, propagate = _CANTOOLS.level, _CANTOOLS.propagate
    _CANTOOLS.addHandler(listener)
    _CANTOOLS.setLevel(logging.WARNING)
    _CANTOOLS.propagate = False
    try:
        yield
    finally:
        _CANTOOLS.removeHandler(listener)
        _CANTOOLS.setLevel(level)
        _CANTOOLS.propagate = propagate
