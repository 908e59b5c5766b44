"""Splits a formula of a mapping into tokens.  Pure.

The language is that of py-expression-eval 0.3.14.  The words `in`, `not`, `and`, `xor` and `or` are operators only if a
space follows.
"""

import math
import re
from enum import Enum, auto
from typing import Final, NamedTuple


class FormulaError(Exception):
    """Raised if a formula cannot be read.  The message names the place, counted in characters from 1."""

    def __init__(self, place: int, what: str) -> None:
        super().__init__(f"character {place + 1}: {what}")


class Sort(Enum):
    """The sorts of tokens."""

    VALUE = auto()  # a number, a text or a constant
    NAME = auto()
    OPERATOR = auto()
    OPEN = auto()
    CLOSE = auto()
    COMMA = auto()
    END = auto()


class Token(NamedTuple):
    """A token: its place in the formula, counted from 0, its text, and its value if it has one."""

    sort: Sort
    place: int
    text: str
    value: float | int | str | None = None


_CONSTANTS: Final = {"E": math.e, "PI": math.pi}
_OPERATOR: Final = re.compile(r"\*\*|\|\||==|!=|<=|>=|[\^%/\u2219\u2022*+\-<>]|(?:in|not|and|xor|or) ")
_SCIENTIFIC: Final = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_DECIMAL: Final = re.compile(r"[0-9.]+")
_TEXT: Final = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_NAME: Final = re.compile(r"[^\W\d_][\w.]*")
_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
_PUNCTUATION: Final = {"(": Sort.OPEN, ")": Sort.CLOSE, ",": Sort.COMMA}
_SAME: Final = {"**": "^", "\u2219": "*", "\u2022": "*"}
MAX_CHARS: Final = 2_048
"""The longest formula.  Real ones have less than a hundred characters."""


def tokens(formula: str) -> list[Token]:
    """Return the tokens of a formula, the last of which is END.  Raises: FormulaError."""
    if len(formula) > MAX_CHARS:
        raise FormulaError(MAX_CHARS, f"the formula has {len(formula):,} characters, and {MAX_CHARS:,} is the limit")
    found = []
    place = 0
    while place < len(formula):
        if formula[place].isspace():
            place += 1
        elif formula.startswith("/*", place):
            comment = _COMMENT.match(formula, place)
            if comment is None:
                raise FormulaError(place, "the comment has no end; add */")
            place = comment.end()
        else:
            token, place = _token(formula, place)
            found.append(token)
    return [*found, Token(Sort.END, len(formula), "the end")]


def _token(formula: str, place: int) -> tuple[Token, int]:
    """Return the token at `place`, and the place behind it."""
    if formula[place] in _PUNCTUATION:
        return Token(_PUNCTUATION[formula[place]], place, formula[place]), place + 1
    if operator := _OPERATOR.match(formula, place):
        text = operator[0].strip()
        return Token(Sort.OPERATOR, place, _SAME.get(text, text)), operator.end()
    if number := _SCIENTIFIC.match(formula, place) or _DECIMAL.match(formula, place):
        return Token(Sort.VALUE, place, number[0], _number(number[0], place)), number.end()
    if quoted := _TEXT.match(formula, place):
        return Token(Sort.VALUE, place, quoted[0], quoted[1] if quoted[2] is None else quoted[2]), quoted.end()
    if name := _NAME.match(formula, place):
        if name[0] in _CONSTANTS:
            return Token(Sort.VALUE, place, name[0], _CONSTANTS[name[0]]), name.end()
        return Token(Sort.NAME, place, name[0]), name.end()
    if formula[place] in "'\"":
        raise FormulaError(place, "the text has no end, or a backslash, which has no meaning in a mapping")
    raise FormulaError(place, f"{formula[place]!r} has no meaning here")


def _number(text: str, place: int) -> float | int:
    try:
        return int(text) if text.isdecimal() else float(f"0{text}")
    except ValueError as error:
        raise FormulaError(place, f"{text} is no number") from error
