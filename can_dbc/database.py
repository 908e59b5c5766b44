"""Loads CAN databases (DBC, ARXML, KCD, SYM) with cantools, or one bus of a file (`can_dbc/buses.py`).

A DBC or SYM file is read as UTF-8 if it is valid UTF-8, and otherwise as cp1252, which Vector's tools write.  Loading
is not strict, because real files have a few signals that overlap or do not fit their message.  The notes of the plan
name such signals.  Frames with these signals are refused, but everything else in the file is used.  Any other defect of
a file raises DatabaseError.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from can_dbc.buses import FORMATS, file_and_bus
from can_dbc.errors import DatabaseError

if TYPE_CHECKING:
    from cantools.database.can import Database
    from cantools.database.errors import UnsupportedDatabaseFormatError

_LEGACY_ENCODED: Final = ("dbc", "sym")
_LINE: Final = re.compile(r"at line (\d+)")
_UNUSED: Final = re.compile(r"(?:VAL_|SG_MUL_VAL_|SIG_VALTYPE_) \d+ \w+")

# cantools keeps a record of every bit of a message in memory.  It makes a codec (some 50 us) for each multiplexer
# number, and for nested multiplexers one for each combination of numbers.  A small file could therefore exhaust memory
# and time.  No bus carries messages beyond these limits.
_MOST_BYTES: Final = 65_535
_MOST_NUMBERS: Final = 65_536
_MOST_CODECS: Final = 131_072
_MOST_NESTED: Final = 64
_SIZES: Final = re.compile(
    r"\bBO_\s+\d+\s+\w+\s*:\s*(?P<bytes>\d+)|\bSG_\s[^:\n]*:\s*(?P<start>\d+)\s*\|\s*(?P<bits>\d+)\s*@"
)
_SELECTIONS: Final = re.compile(r"\bSG_MUL_VAL_\s+(?P<message>\d+)\s+(?P<signal>\w+)\s+(?P<by>\w+)(?P<ranges>[^;]*)")
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")

# cantools logs warnings about duplicate names and ids.  They are silenced here, because the plan has its own notes.
# What cantools warns of in ARXML, KCD and SYM files becomes notes (can_dbc/by_cantools.py).
logging.getLogger("cantools.database").setLevel(logging.ERROR)


def load(path: Path) -> "Database":
    """Load the database file `path`, whose suffix names the format.

    Raises: DatabaseError if the file is unreadable, has an unknown format, or is refused by cantools.
    """
    content, database_format = read(path)
    return parse(content, database_format, str(path))


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


def parse(content: bytes, database_format: str, source: str) -> "Database":
    """Parse a database from `content`, whose format is one of FORMATS; `source` is its path, perhaps with a bus.

    Raises: DatabaseError if the content has the wrong encoding, exceeds a limit, or is refused by cantools.
    """
    # cantools takes a quarter of a second to import, and an agent that has its plans cached does not need it.
    import cantools.database  # noqa: PLC0415
    from cantools.database.can import Database  # noqa: PLC0415
    from cantools.database.errors import UnsupportedDatabaseFormatError  # noqa: PLC0415

    text = _text(content, database_format, source)
    if database_format != "dbc":
        from can_dbc import by_cantools  # noqa: PLC0415

        return by_cantools.parse(text, database_format, Path(source))
    _check_limits(text, source)
    try:
        database = cantools.database.load_string(text, database_format, strict=False)
    except UnsupportedDatabaseFormatError as error:
        raise DatabaseError(_explained(error, database_format, text, source)) from error
    assert isinstance(database, Database)
    return database


def _text(content: bytes, database_format: str, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if database_format in _LEGACY_ENCODED:
            return content.decode("cp1252", errors="replace")
        line = content.count(b"\n", 0, error.start) + 1
        raise DatabaseError(f"{source}: line {line}: the text is not UTF-8; save the file as UTF-8") from error


def _check_limits(text: str, source: str) -> None:
    for size in _SIZES.finditer(text):
        most = {"bytes": _MOST_BYTES, "start": 8 * _MOST_BYTES, "bits": 8 * _MOST_BYTES}
        if any(_beyond(digits, most[name]) for name, digits in size.groupdict("0").items()):
            raise _too_large(size, text, source, f"the limit of {_MOST_BYTES} bytes per message")
    trees: dict[str, _Tree] = {}
    for selection in _SELECTIONS.finditer(text):
        count = 0
        for first, last in _RANGE.findall(selection["ranges"]):
            if _beyond(last, int(first[:20]) + _MOST_NUMBERS):
                raise _too_large(selection, text, source, f"the limit of {_MOST_NUMBERS} multiplexer numbers per range")
            count += max(int(last) - int(first[:20]) + 1, 1)
        tree = trees.setdefault(selection["message"], {})
        tree.setdefault(selection["by"], []).append((selection["signal"], count))
    if sum(_codecs(tree) for tree in trees.values()) > _MOST_CODECS:
        raise DatabaseError(
            f"{source}: the SG_MUL_VAL_ entries need more than {_MOST_CODECS} combinations of multiplexer numbers, "
            "which is the limit; narrow their ranges"
        )


_Tree = dict[str, list[tuple[str, int]]]
"""Maps a multiplexer to the signals that it selects.  The number beside a signal counts the values that select it."""


def _codecs(tree: _Tree) -> int:
    """Estimate how many codecs cantools makes for the multiplexer numbers of a message."""
    known: dict[str, int] = {}

    def below(multiplexer: str, depth: int) -> int:
        if multiplexer not in known:
            known[multiplexer] = 0  # A multiplexer that selects itself counts as 0 here, so the recursion ends.
            inner = tree.get(multiplexer, ()) if depth < _MOST_NESTED else ()
            known[multiplexer] = sum(count * (1 + below(signal, depth + 1)) for signal, count in inner)
        return known[multiplexer]

    return sum(below(multiplexer, 0) for multiplexer in tree)


def _beyond(digits: str, most: int) -> bool:
    # Python refuses to convert numbers with thousands of digits (CVE-2020-10735).  A number of more than 20 digits
    # exceeds every limit.
    return len(digits) > 20 or int(digits) > most


def _too_large(found: re.Match[str], text: str, source: str, limit: str) -> DatabaseError:
    line = text.count("\n", 0, found.start()) + 1
    return DatabaseError(f"{source}: line {line}: {found.group(0)[:80]!r} exceeds {limit}; correct this line")


def _explained(error: "UnsupportedDatabaseFormatError", database_format: str, text: str, source: str) -> str:
    """Return an error message with the file, the line, cantools' reason and the remedy."""
    cause: Exception | None = getattr(error, f"e_{database_format}")
    reason = " ".join(str(cause).split()) or type(cause).__name__
    line = _line(reason, text)
    place = source if line is None else f"{source}: line {line}"
    return (
        f"{place}: cantools refuses this {database_format.upper()} file: {reason}. "
        "Repair the file, or export it again with the tool that made it"
    )


def _line(reason: str, text: str) -> int | None:
    """Return the number of the line that cantools names or quotes in `reason`, or None if there is no such line."""
    if found := _LINE.search(reason):
        return int(found.group(1))
    if quoted := _UNUSED.search(reason):
        at = text.find(quoted.group(0))
        return text.count("\n", 0, at) + 1 if at >= 0 else None
    return None
