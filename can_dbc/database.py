"""Loading of CAN databases (DBC, ARXML, KCD, SYM) by cantools: the only file of this package that reads the disk.

A DBC or SYM file is read as UTF-8 where it is valid UTF-8, else as cp1252, which is what Vector's tools write.
Loading is not strict, because real files have a few signals that overlap or do not fit their message: the plan names
them and their frames are refused, but the rest of the file is used.  A defect of a file is a DatabaseError.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from can_dbc.errors import DatabaseError

if TYPE_CHECKING:
    from cantools.database.can import Database
    from cantools.database.errors import UnsupportedDatabaseFormatError

FORMATS: Final = ("dbc", "arxml", "kcd", "sym")
_LEGACY_ENCODED: Final = ("dbc", "sym")
_LINE: Final = re.compile(r"at line (\d+)")
_UNUSED: Final = re.compile(r"(?:VAL_|SG_MUL_VAL_|SIG_VALTYPE_) \d+ \w+")

# cantools lays out every bit of a message in memory.  It makes a codec (some 50 us) for each multiplexer number, and
# for nested multiplexers one for each combination.  A small file could therefore take all memory and time; no bus
# carries messages beyond these limits.
_MOST_BYTES: Final = 65_535
_MOST_NUMBERS: Final = 65_536
_MOST_CODECS: Final = 131_072
_MOST_NESTED: Final = 64
_SIZES: Final = re.compile(
    r"\bBO_\s+\d+\s+\w+\s*:\s*(?P<bytes>\d+)|\bSG_\s[^:\n]*:\s*(?P<start>\d+)\s*\|\s*(?P<bits>\d+)\s*@"
)
_SELECTIONS: Final = re.compile(r"\bSG_MUL_VAL_\s+(?P<message>\d+)\s+(?P<signal>\w+)\s+(?P<by>\w+)(?P<ranges>[^;]*)")
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")

# cantools warns of duplicate names and ids on its own logger; the plan reports the same as notes.
logging.getLogger("cantools.database").setLevel(logging.ERROR)


def load(path: Path) -> "Database":
    """Load the database in `path`, of the format that its suffix names.

    Raises: DatabaseError if the file is unreadable, of an unknown format, or refused by cantools.
    """
    content, database_format = read(path)
    return parse(content, database_format, str(path))


def read(path: Path) -> tuple[bytes, str]:
    """Return the content of `path`, and its format, one of FORMATS.  Raises: DatabaseError."""
    database_format = path.suffix[1:].lower()
    if database_format not in FORMATS:
        raise DatabaseError(f"{path}: unknown database format; name the file *.{', *.'.join(FORMATS)}")
    try:
        return path.read_bytes(), database_format
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse(content: bytes, database_format: str, source: str) -> "Database":
    """Parse the database in `content`, of one of FORMATS; `source` names it in errors.  Raises: DatabaseError."""
    # cantools takes a quarter of a second to import, and an agent that has its plans cached does not need it.
    import cantools.database  # noqa: PLC0415
    from cantools.database.can import Database  # noqa: PLC0415
    from cantools.database.errors import UnsupportedDatabaseFormatError  # noqa: PLC0415

    text = _text(content, database_format, source)
    if database_format == "dbc":
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
        raise DatabaseError(f"{source}: line {line}: not UTF-8; save the file as UTF-8") from error


def _check_limits(text: str, source: str) -> None:
    for size in _SIZES.finditer(text):
        most = {"bytes": _MOST_BYTES, "start": 8 * _MOST_BYTES, "bits": 8 * _MOST_BYTES}
        if any(_beyond(digits, most[name]) for name, digits in size.groupdict("0").items()):
            raise _too_large(size, text, source, f"{_MOST_BYTES} bytes a message")
    trees: dict[str, _Tree] = {}
    for selection in _SELECTIONS.finditer(text):
        count = 0
        for first, last in _RANGE.findall(selection["ranges"]):
            if _beyond(last, int(first[:20]) + _MOST_NUMBERS):
                raise _too_large(selection, text, source, f"{_MOST_NUMBERS} multiplexer numbers a range")
            count += max(int(last) - int(first[:20]) + 1, 1)
        tree = trees.setdefault(selection["message"], {})
        tree.setdefault(selection["by"], []).append((selection["signal"], count))
    if sum(_codecs(tree) for tree in trees.values()) > _MOST_CODECS:
        raise DatabaseError(
            f"{source}: SG_MUL_VAL_ entries that select by more than {_MOST_CODECS} multiplexer numbers, nested ones "
            "counted for each number around them; narrow their ranges"
        )


_Tree = dict[str, list[tuple[str, int]]]
"""The signals that each multiplexer selects, with the number of values that select them."""


def _codecs(tree: _Tree) -> int:
    """Estimate how many codecs cantools makes for the multiplexer numbers of a message."""
    known: dict[str, int] = {}

    def below(multiplexer: str, depth: int) -> int:
        if multiplexer not in known:
            known[multiplexer] = 0  # A multiplexer that selects itself is never reached, and must not recurse here.
            inner = tree.get(multiplexer, ()) if depth < _MOST_NESTED else ()
            known[multiplexer] = sum(count * (1 + below(signal, depth + 1)) for signal, count in inner)
        return known[multiplexer]

    return sum(below(multiplexer, 0) for multiplexer in tree)


def _beyond(digits: str, most: int) -> bool:
    # Python refuses to convert numbers of thousands of digits (CVE-2020-10735); 20 digits are beyond any limit here.
    return len(digits) > 20 or int(digits) > most


def _too_large(found: re.Match[str], text: str, source: str, limit: str) -> DatabaseError:
    line = text.count("\n", 0, found.start()) + 1
    return DatabaseError(f"{source}: line {line}: {found.group(0)[:80]!r} is beyond {limit}; repair that line")


def _explained(error: "UnsupportedDatabaseFormatError", database_format: str, text: str, source: str) -> str:
    """Return a message with file, line, cantools' reason and what to do."""
    cause: Exception | None = getattr(error, f"e_{database_format}")
    reason = " ".join(str(cause).split()) or type(cause).__name__
    line = _line(reason, text)
    place = source if line is None else f"{source}: line {line}"
    return (
        f"{place}: cantools refuses this {database_format.upper()} file: {reason}. "
        "Repair that place, or export the database again from the tool that made it"
    )


def _line(reason: str, text: str) -> int | None:
    """Return the line that cantools names, or else the line of the first entry that it quotes."""
    if found := _LINE.search(reason):
        return int(found.group(1))
    if quoted := _UNUSED.search(reason):
        at = text.find(quoted.group(0))
        return text.count("\n", 0, at) + 1 if at >= 0 else None
    return None
