"""Loads CAN databases: DBC with our own reader (`can_dbc.dbc_reader`), ARXML, KCD and SYM with cantools.

A path may choose one bus of a file (`can_dbc/buses.py`).

DBC and SYM files do not name their encoding (`can_dbc.encodings`), so a caller may name it.  cantools does not load
strictly, because real files have a few signals that overlap or do not fit their message.  Everything else in the file
is used, and the notes of the plan name what is not.  Any other defect of these files raises DatabaseError.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from can_dbc import encodings
from can_dbc.buses import FORMATS, file_and_bus
from can_dbc.dbc_reader import reader
from can_dbc.errors import DatabaseError

if TYPE_CHECKING:
    from cantools.database.can import Database

    from can_dbc.description import Description

_WITHOUT_ENCODING: Final = ("dbc", "sym")

# cantools logs warnings about duplicate names and ids.  They are silenced here, because the plan has its own notes.
# What cantools warns of in ARXML, KCD and SYM files becomes notes (can_dbc/by_cantools.py).
logging.getLogger("cantools.database").setLevel(logging.ERROR)


def load(path: Path, encoding: str | None = None) -> "Database | Description":
    """Load the database file `path`, whose suffix names the format; `encoding` is for DBC and SYM files.

    Raises: DatabaseError if the file is unreadable, has an unknown format or another encoding, or is refused.
    """
    content, database_format = read(path)
    return parse(content, database_format, str(path), encoding)


def needs_encoding(path: Path) -> bool:
    """Return whether the file format of `path` does not name an encoding."""
    return path.suffix[1:].lower() in _WITHOUT_ENCODING


def read(path: Path) -> tuple[bytes, str]:
    """Return the content of the database file that `path` names, and its format, which is one of FORMATS.

    Raises: DatabaseError if the format is unknown or the file cannot be read.
    """
    path, bus = file_and_bus(path)
    database_format = path.suffix[1:].lower()
    if database_format not in FORMATS:
        raise DatabaseError(f"{path}: the database format is unknown; name the file *.{', *.'.join(FORMATS)}")
    if database_format == "dbc" and bus is not None:
        raise DatabaseError(f"{path}: a DBC file describes one bus; leave out #{bus}")
    try:
        return path.read_bytes(), database_format
    except OSError as error:
        raise DatabaseError(
            f"{path}: the file cannot be read ({error.strerror or error}); check the path and the permissions"
        ) from error


def parse(content: bytes, database_format: str, source: str, encoding: str | None = None) -> "Database | Description":
    """Parse a database from `content`, whose format is one of FORMATS; `source` is its path, perhaps with a bus.

    Raises: DatabaseError if the content has another encoding, or is refused.
    """
    text, notes = _text(content, database_format, source, encoding)
    if database_format == "dbc":
        found = reader.read(text, source)
        return replace(found, notes=(*notes, *found.notes))
    # cantools takes a quarter of a second to import, and an agent with cached plans or DBC files does not need it.
    from can_dbc import by_cantools  # noqa: PLC0415

    database = by_cantools.parse(text, database_format, Path(source))
    database.notes = (*notes, *database.notes)
    return database


def _text(content: bytes, database_format: str, source: str, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    if database_format in _WITHOUT_ENCODING:
        return encodings.decoded(content, encoding, source)
    if encoding is not None:
        raise DatabaseError(f"{source}: a {database_format.upper()} file names its encoding itself; give none for it")
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatabaseError(f"{source}: line {line}: the text is not UTF-8; save the file as UTF-8") from error
