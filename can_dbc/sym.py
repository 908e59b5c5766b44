"""Loads SYM databases with cantools, and names what cantools passes over in silence.  Pure.

- A symbol may have several `Mux` entries.  cantools takes the position of the selecting bits from the first one.  If
  another entry selects by other bits, its signals would be decoded from frames that are not theirs, so the message is
  left out.
- `string`, `raw` and `char` are decoded as unsigned integers.
- A range of identifiers makes one message for each identifier, so the size of a range is limited.
"""

import re
from collections.abc import Iterator
from typing import Final

import cantools.database
from cantools.database.can import Database

from can_dbc.errors import DatabaseError
from can_dbc.noted import NotedDatabase

_SECTION: Final = re.compile(r"^[ \t]*\{(\w+)\}", re.MULTILINE)
_SYMBOL: Final = re.compile(r'^[ \t]*\[(?:"([^"]*)"|([^\]]*))\]', re.MULTILINE)
_MUX: Final = re.compile(
    r'^[ \t]*Mux=(?:"[^"]*"|\S+)[ \t]+(?P<start>\d+),(?P<bits>\d+)[ \t]+(?P<value>\w+)(?P<flags>[^\n/]*)', re.MULTILINE
)
_TEXTUAL: Final = re.compile(r'^[ \t]*(?:Sig|Var)=(?:"([^"]*)"|(\S+))[ \t]+(string|raw|char)\b', re.MULTILINE)
_IDS: Final = re.compile(r"^[ \t]*ID=(?P<first>[0-9A-Fa-f]+)h-(?P<last>[0-9A-Fa-f]+)h", re.MULTILINE)
_ABSURD: Final = re.compile(r"(?:\bLen=|[ \t]\d+,|^Sig=\S+[ \t]+)\d{6,}|[ \t]\d{7,},\d", re.MULTILINE)
"""Matches an absurd length or position.  cantools keeps a record of every bit, so such a number exhausts memory."""
_MOST_IDS: Final = 4096
"""The most identifiers of one range.  cantools makes a message, some 50 us and 10 kB, for each of them."""


def parse(text: str, source: str) -> NotedDatabase:
    """Return the database in `text`; `source` names the file in errors.

    Raises: DatabaseError if a range of identifiers is too large, UnsupportedDatabaseFormatError if cantools refuses
    the text.
    """
    for ids in _IDS.finditer(text):
        if int(ids["last"], 16) - int(ids["first"], 16) >= _MOST_IDS:
            line = text.count("\n", 0, ids.start()) + 1
            raise DatabaseError(
                f"{source}: line {line}: {ids.group(0).strip()!r} has more than {_MOST_IDS} identifiers, which is the "
                "limit; split the symbol"
            )
    if absurd := _ABSURD.search(text):
        line = text.count("\n", 0, absurd.start()) + 1
        raise DatabaseError(f"{source}: line {line}: {absurd.group(0)[:40]!r} exceeds every message; correct this line")
    database = cantools.database.load_string(text, "sym", strict=False)
    assert isinstance(database, Database)
    notes = [
        f"{name}: the signal is of type {kind}, but it is decoded as an unsigned integer"
        for quoted, plain, kind in _TEXTUAL.findall(text)
        if (name := quoted or plain)
    ]
    unclear = dict(_unclear(text))
    notes += unclear.values()
    messages = [message for message in database.messages if message.name not in unclear]
    return NotedDatabase(messages, database.buses, notes)


def _unclear(text: str) -> Iterator[tuple[str, str]]:
    """Yield each symbol whose Mux entries select by different bits, with a note that says so."""
    seen: dict[tuple[str, str], tuple[str, str, bool]] = {}
    for section, name, body, first_line in _symbols(text):
        for mux in _MUX.finditer(body):
            bits = (mux["start"], mux["bits"], "-m" in mux["flags"])
            first = seen.setdefault((section, name), bits)
            if first != bits:
                line = first_line + body.count("\n", 0, mux.start())
                yield (
                    name,
                    f"{name}: the message is left out, because the Mux entry at line {line} selects by the bits "
                    f"{','.join(bits[:2])}, and an earlier one by {','.join(first[:2])}; "
                    "use the same bits and byte order in all entries",
                )


def _symbols(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield section, name, text and first line of each symbol."""
    marks = sorted([*_SECTION.finditer(text), *_SYMBOL.finditer(text)], key=lambda mark: mark.start())
    section = ""
    for mark, after in zip(marks, [*(m.start() for m in marks[1:]), len(text)], strict=True):
        if mark.re is _SECTION:
            section = mark.group(1)
        else:
            line = text.count("\n", 0, mark.start()) + 1
            yield section, mark.group(1) or mark.group(2), text[mark.start() : after], line
