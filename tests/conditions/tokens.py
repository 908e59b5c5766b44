"""Cuts the text of a condition into tokens with their places, which are counted in characters from 1."""

from dataclasses import dataclass

COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"


@dataclass(frozen=True)
class Token:
    kind: str  # number, text, variable, word, sign, bad, end
    text: str
    value: object
    first: int
    last: int


class Tokens:
    """Reads the tokens of a text one after the other."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def read(self) -> Token:
        """Return the next token.  What cannot be read is a token of the kind bad."""
        text = self.text
        while self.at < len(text) and text[self.at] in " \t\r\n":
            self.at += 1
        start = self.at
        if start == len(text):
            return Token("end", "", None, start + 1, start + 1)
        one = text[start]
        if one in _DIGITS or (one == "." and text[start + 1 : start + 2] in tuple(_DIGITS)):
            return self.number(start)
        if one in "'\"":
            return self.literal(start)
        if text.startswith("$variable.`", start):
            return self.variable(start)
        if one in _LETTERS:
            while self.at < len(text) and text[self.at] in _LETTERS + _DIGITS + ".":
                self.at += 1
            return Token("word", text[start : self.at], None, start + 1, self.at)
        for sign in ("||", "&&", *COMPARISONS, "!", "+", "-", "*", "/", "(", ")", ","):
            if text.startswith(sign, start):
                self.at += len(sign)
                return Token("sign", sign, None, start + 1, self.at)
        return Token("bad", one, None, start + 1, start + 1)

    def number(self, start: int) -> Token:
        text, at = self.text, start
        while text[at : at + 1] in tuple(_DIGITS):
            at += 1
        if text[at : at + 1] == ".":
            at += 1
            while text[at : at + 1] in tuple(_DIGITS):
                at += 1
        if text[at : at + 1] in ("e", "E"):
            digits = at + 1 + (text[at + 1 : at + 2] in ("+", "-"))
            if text[digits : digits + 1] in tuple(_DIGITS):
                at = digits
                while text[at : at + 1] in tuple(_DIGITS):
                    at += 1
        self.at = at
        return Token("number", text[start:at], float(text[start:at]), start + 1, at)

    def literal(self, start: int) -> Token:
        text, at, value = self.text, start + 1, ""
        while at < len(text) and text[at] != text[start]:
            if text[at] != "\\":
                value += text[at]
                at += 1
                continue
            mark = text[at + 1 : at + 2]
            if mark in tuple(_ESCAPES):
                value += _ESCAPES[mark]
                at += 2
            elif (
                mark == "u"
                and len(text[at + 2 : at + 6]) == 4
                and set(text[at + 2 : at + 6]) <= set("0123456789abcdefABCDEF")
            ):
                value += chr(int(text[at + 2 : at + 6], 16))
                at += 6
            else:
                return Token("bad", text[start:at], None, start + 1, at + 2)
        if at == len(text):
            return Token("bad", text[start:], None, start + 1, len(text) + 1)
        self.at = at + 1
        return Token("text", text[start : self.at], value, start + 1, self.at)

    def variable(self, start: int) -> Token:
        begin = start + len("$variable.`")
        end = self.text.find("`", begin)
        if end < 0:
            return Token("bad", self.text[start:], None, start + 1, len(self.text) + 1)
        name = self.text[begin:end]
        if not 1 <= len(name) <= 150 or any(ord(one) < 32 or 127 <= ord(one) < 160 for one in name):
            return Token("bad", name, None, start + 1, end + 1)
        self.at = end + 1
        return Token("variable", self.text[start : self.at], name, start + 1, self.at)
