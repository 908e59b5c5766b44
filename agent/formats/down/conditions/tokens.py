"""Splits the text of a condition into tokens.  Pure."""

import re
from enum import StrEnum, auto
from typing import Final

import msgspec

from agent.formats.down.conditions.fault import ConditionFault

MAX_NAME_CHARS: Final = 150


class TokenKind(StrEnum):
    """The kinds of tokens.  A FAULT is text that is no token."""

    NUMBER = auto()
    TEXT = auto()
    VARIABLE = auto()
    WORD = auto()
    SYMBOL = auto()
    END = auto()
    FAULT = auto()


class Token(msgspec.Struct, frozen=True):
    """One token.  `place` is the number of its first character, from 1.

    `text` is the token as it is written; of a text and a variable it is the content without quotes.  A FAULT has the
    message in its `text`.
    """

    kind: TokenKind
    text: str
    place: int


_SPACE: Final = " \t\r\n"
_NUMBER: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"[^\W\d][\w.]*")
_VARIABLE: Final = "$variable.`"
_SYMBOL: Final = re.compile(r"\|\||&&|==|!=|<=|>=|[!<>+\-*/(),]")
_ESCAPES: Final = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
_UNICODE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_REFUSED: Final = {
    "=": "'=' is no operator: write ==",
    "&": "'&' is a bitwise operator, and the language has none: write && for 'and'",
    "|": "'|' is a bitwise operator, and the language has none: write || for 'or'",
    "^": "'^' is a bitwise operator, and the language has none: use custom_function('pow', x, y) for powers",
    "~": "'~' is a bitwise operator, and the language has none: write ! for 'not'",
}


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a condition.  The last one has the kind END, or FAULT if what follows is no token.

    A fault is a token, because the parser may find a mistake before it.
    """
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
            continue
        try:
            token, at = _token(text, at)
        except ConditionFault as fault:
            return [*tokens, Token(TokenKind.FAULT, fault.what, fault.place)]
        tokens.append(token)
    return [*tokens, Token(TokenKind.END, "", len(text) + 1)]


def _token(text: str, at: int) -> tuple[Token, int]:
    """Return the token that begins at index `at`, and the index after it."""
    if text[at] in "'\"":
        return _text(text, at)
    if text[at] == "$":
        return _variable(text, at)
    for kind, pattern in ((TokenKind.NUMBER, _NUMBER), (TokenKind.WORD, _WORD), (TokenKind.SYMBOL, _SYMBOL)):
        found = pattern.match(text, at)
        if found is not None:
            return Token(kind, found[0], at + 1), found.end()
    raise ConditionFault(at + 1, _REFUSED.get(text[at], f"{text[at]!r} has no meaning here: remove it"))


def _variable(text: str, at: int) -> tuple[Token, int]:
    if not text.startswith(_VARIABLE, at):
        raise ConditionFault(at + 1, "a signal is written $variable.`Vehicle.Message.Signal`")
    start = at + len(_VARIABLE)
    end = text.find("`", start)
    if end < 0:
        raise ConditionFault(len(text) + 1, "the expression ends within the name of a variable: add '`'")
    name = text[start:end]
    if not 1 <= len(name) <= MAX_NAME_CHARS or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ConditionFault(
            at + 1, f"the name of a variable has 1 to {MAX_NAME_CHARS} characters, and no control character"
        )
    return Token(TokenKind.VARIABLE, name, at + 1), end + 1


def _text(text: str, at: int) -> tuple[Token, int]:
    quote, start = text[at], at
    content: list[str] = []
    at += 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\":
            character, at = _escape(text, at)
        else:
            character, at = text[at], at + 1
        content.append(character)
    if at >= len(text):
        raise ConditionFault(len(text) + 1, f"the expression ends within a text: add {quote}")
    # Two escapes may stand for the two halves of one character, as in JSON.
    joined = "".join(content).encode("utf-16-le", "surrogatepass")
    try:
        return Token(TokenKind.TEXT, joined.decode("utf-16-le"), start + 1), at + 1
    except UnicodeDecodeError as error:
        raise ConditionFault(start + 1, r"a \u escape of this text stands for half a character: write both") from error


def _escape(text: str, at: int) -> tuple[str, int]:
    if at + 1 >= len(text):
        raise ConditionFault(len(text) + 1, "the expression ends within a text: finish it")
    found = _UNICODE.match(text, at)
    if found is not None:
        return chr(int(found[1], 16)), found.end()
    character = _ESCAPES.get(text[at + 1])
    if character is None:
        raise ConditionFault(
            at + 1, rf"\{text[at + 1]} is no escape: write \\, \', \", \n, \t, \r or \u with four hex digits"
        )
    return character, at + 2
