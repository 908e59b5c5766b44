r"""Splits the text of a DBC into statements.  Pure.

A statement starts with a keyword.  Most statements end with a semicolon; BO_ and SG_ end before the next statement.
Texts in quotes make this hard, because they may hold semicolons, line ends and whole statements, and because real files
break the rules of quoting:

- `\"` is a quote within a text.  But a text may also end with a backslash, as in "C:\temp\" or in Shift-JIS that
  is read with another encoding.  `\"` therefore ends the text if a semicolon and the next statement follow.
- A closing quote may be missing.  The text would then go on to the next quote of the file.  A text that runs over the
  beginning of another statement is therefore accepted only if a semicolon follows its closing quote.  Otherwise the
  statement ends with its first line.
- The closing semicolon may be missing.  The statement then ends before the next one.

BO_, SG_ and BU_ may run over several lines, but not over a line that cannot belong to them.  Such a line may be a BO_
with a typing error, and the signals after it then belong to no known message.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from can_dbc.dbc_reader.notes import Notes

# The keywords that a DBC lists under NS_, and those that come before it.
_KEYWORD: Final = (
    "(?:VERSION|NS_|NS_DESC_|BS_|BU_|BO_|SG_|CM_|VAL_TABLE_|VAL_|SG_MUL_VAL_|SIG_VALTYPE_|BA_DEF_DEF_REL_|BA_DEF_DEF_|"
    "BA_DEF_REL_|BA_DEF_SGTYPE_|BA_DEF_|BA_REL_|BA_SGTYPE_|BA_|BO_TX_BU_|BU_SG_REL_|BU_EV_REL_|BU_BO_REL_|CAT_DEF_|"
    "CAT_|ENVVAR_DATA_|EV_DATA_|EV_|FILTER|SGTYPE_VAL_|SGTYPE_|SIGTYPE_VALTYPE_|SIG_TYPE_REF_|SIG_GROUP_)"
    r"\b"
)
_QUOTED_CHARS: Final = 60  # of a line that cannot be read, at most this much is quoted
_AT_KEYWORD: Final = re.compile(_KEYWORD)
_SPACE: Final = re.compile(r"(?:\s|//[^\n]*|;)*")  # A semicolon outside of any statement is skipped.
# NS_ lists keywords, one on each line.
_NAMES: Final = re.compile(r"[^\n]*(?:\n[ \t]*[A-Z_]*[ \t]*(?=\n|\Z))*")
_LINE: Final = re.compile(r"[^\n]*")
_BEFORE_NEXT: Final = re.compile(rf"\n(?=[ \t]*{_KEYWORD})|(?<=\s)(?=SG_\s)|\Z")
_MARK: Final = re.compile(rf'\\+"|"|;|\n(?=[ \t]*{_KEYWORD})')
# A line that goes on with an SG_ or a BO_: blank, a comment, a list of receivers, or another part of a signal.
_CONTINUATION: Final = re.compile(r'\s*(?:[\w.-]+(?:\s*,\s*[\w.-]+)*[\s,;]*(?://.*)?|(?:[,:(\["@]|//|\d+\s*\|).*)?')
# A line that goes on with a BU_: blank, a comment, or names of nodes.  A number alone is the identifier of a message.
_NODES: Final = re.compile(r"\s*(?:(?!\d+\b)[\w.-]+(?:[\s,;]+(?!\d+\b)[\w.-]+)*[\s,;]*)?(?://.*)?")
_SEMICOLON: Final = re.compile(r"\s*;")
_LAST_QUOTE: Final = re.compile(rf"\s*;\s*(?:{_KEYWORD}|//|\Z)")


UNREADABLE: Final = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """Holds one statement: its keyword, the text after the keyword, and the number of its first line.

    A line that begins no statement has the keyword UNREADABLE.
    """

    keyword: str
    body: str
    line: int


def statements(text: str, notes: Notes) -> Iterator[Statement]:
    """Yield the statements of `text`, whose lines end with a line feed; add what cannot be understood to `notes`."""
    at, line = 0, 1
    while True:
        start = _after(_SPACE, text, at)
        line += text.count("\n", at, start)
        if start == len(text):
            return
        keyword = _AT_KEYWORD.match(text, start)
        if keyword is None:
            at = _after(_LINE, text, start)
            unreadable = text[start:at].strip()
            notes.add(
                line,
                f"{unreadable[:_QUOTED_CHARS]!r} begins no entry of a DBC, so it is ignored; delete it, or correct it",
            )
            yield Statement(UNREADABLE, unreadable, line)
            continue
        at, mistake = _end(text, keyword.end(), keyword.group())
        if mistake is not None:
            notes.add(line, mistake)
        yield Statement(keyword.group(), text[keyword.end() : at], line)
        line += text.count("\n", start, at)


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None  # These patterns match everywhere, because they match the empty text.
    return found.end()


def _end(text: str, at: int, keyword: str) -> tuple[int, str | None]:
    """Return the end of the statement whose keyword ends at `at`, and the mistake that had to be repaired, or None."""
    if keyword == "NS_":
        return _after(_NAMES, text, at), None
    if keyword in ("VERSION", "BS_"):
        return _after(_LINE, text, at), None
    if keyword == "BU_":
        return _before_odd_line(text, at, _before_next(text, at), _NODES), None
    if keyword in ("BO_", "SG_"):
        return _before_odd_line(text, at, _before_next(text, at), _CONTINUATION), None
    return _end_of_texts(text, at)


def _before_next(text: str, at: int) -> int:
    """Return where the next statement begins, or where the text ends; SG_ may follow BO_ in the same line."""
    for found in _BEFORE_NEXT.finditer(text, at):
        # An SG_ after // is a comment.
        if "//" not in text[text.rfind("\n", 0, found.start()) + 1 : found.start()] or not text.startswith(
            "S", found.start()
        ):
            return found.start()
    return len(text)


def _before_odd_line(text: str, at: int, end: int, continuation: re.Pattern[str]) -> int:
    """Return where the first line after `at` begins that is no `continuation` of the entry there, or `end`."""
    line_end = _after(_LINE, text, at)
    while line_end < end:
        start, line_end = line_end + 1, _after(_LINE, text, line_end + 1)
        if continuation.fullmatch(text, start, min(line_end, end)) is None:
            return start
    return end


def _end_of_texts(text: str, at: int) -> tuple[int, str | None]:
    within = crossed = False  # within a text; and whether this text holds the beginning of another statement
    for mark in _MARK.finditer(text, at):
        sign = mark.group()
        if not within:
            if sign == ";":
                return mark.end(), None
            if sign == "\n":
                return mark.start(), "the entry has no closing semicolon, and ends before the next entry; add it"
            within, crossed = True, False
        elif sign == "\n":
            crossed = True
        elif sign != ";":
            if sign.startswith("\\") and _LAST_QUOTE.match(text, mark.end()) is None:
                continue
            if crossed and _SEMICOLON.match(text, mark.end()) is None:
                break
            within = False
    else:
        if not within:
            return len(text), "the entry has no closing semicolon, and ends with the file; add the semicolon"
    return _after(_LINE, text, at), "a quote of this entry is missing, so the entry ends with its line; add the quote"
