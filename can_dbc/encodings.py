"""Decodes the bytes of DBC and SYM files, which do not name their encoding.  Pure.

Some encodings are certain: a byte order mark, valid UTF-8, and UTF-16, in which every second byte of a keyword is zero.
Any other file has the code page of the computer that wrote it, which only its owner can know.  If the owner
names none, the file is read as cp1252, which Vector's tools write in Western Europe, and a note says so.
"""

import codecs
import re
from typing import Final

from can_dbc.errors import DatabaseError

_GUESS: Final = "cp1252"
_EXAMPLES: Final = "gbk, big5, shift_jis, euc_kr, cp1250 or cp1251"
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_TEXT: Final = re.compile(r'"([^"\n]*[^\x00-\x7f"\n][^"\n]*)')
_SHOWN_CHARS: Final = 30


def decoded(content: bytes, encoding: str | None, source: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of `content`, and a note if its encoding had to be guessed; `source` names the file.

    Raises: DatabaseError if the bytes are not text in `encoding`, or if there is no such encoding.
    """
    if encoding is not None:
        return _as_told(content, encoding, source), ()
    for certain in _certain(content):
        try:
            return content.decode(certain), ()
        except UnicodeDecodeError:
            continue
    return _guessed(content, source)


def _certain(content: bytes) -> tuple[str, ...]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    if content[1:2] == b"\0":
        return ("utf-16-le",)
    return ("utf-16-be",) if content[:1] == b"\0" else ("utf-8-sig",)


def _as_told(content: bytes, encoding: str, source: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        return content.decode("utf-8-sig" if name == "utf-8" else name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatabaseError(
            f"{source}: line {line}: the text is not {encoding}; name the encoding that the file was written with"
        ) from error
    except (LookupError, ValueError) as error:
        raise DatabaseError(
            f"{source}: encoding {encoding!r} is unknown; name one of Python's text encodings, such as {_EXAMPLES}"
        ) from error


def _guessed(content: bytes, source: str) -> tuple[str, tuple[str, ...]]:
    text = content.decode(_GUESS, errors="replace")
    first = _NOT_ASCII.search(content)
    line = content.count(b"\n", 0, first.start()) + 1 if first else 1
    shown = _TEXT.search(text)
    example = f', as in "{shown[1][:_SHOWN_CHARS]}"' if shown else ""
    # Five bytes have no meaning in cp1252, so a file with one of them was certainly written in another encoding.
    wrong = "is only a guess" if "\ufffd" not in text else "is wrong, because it has no character for some of the bytes"
    return text, (
        f"{source}: line {line}: the text is not UTF-8 and was read as {_GUESS}{example}; this {wrong}: "
        f"set the encoding of the database, for example {_EXAMPLES}",
    )
