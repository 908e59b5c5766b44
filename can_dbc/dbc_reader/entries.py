"""Reads single statements of a DBC: messages, signals, texts of values, types and multiplexing.  Pure.

A function returns None for a statement that it cannot read.  Numbers without a digit before the point, limits that are
not numbers and missing receivers are common in real files, and change no signal.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_MESSAGE: Final = re.compile(r"\s+(?P<id>\d+)\s+(?P<name>[^:\n]*?[^\s:])\s*:\s*(?P<bytes>\d+)\b")
_SENDER: Final = re.compile(r"\s*[^\s<>=/]*\s*(?://[^\n]*(?:\n\s*|\Z))*")
_RECEIVERS: Final = re.compile(r"[\s,;\w.-]*(?://[^\n]*(?:\n\s*|\Z))*")
_TEXT_BEHIND: Final = "there is text after the entry that belongs to no entry of a DBC, and is ignored"
_SIGNAL: Final = re.compile(
    r"\s*(?P<name>[^\s:]+)(?:\s+(?P<marker>M|m\d+M?))?\s*:"
    r"\s*(?P<start>-?\d+)\s*\|\s*(?P<bits>\d+)\s*@\s*(?P<order>[01])\s*(?P<sign>[-+])"
    r"\s*\(\s*(?P<scale>[^\s,()]+)\s*,\s*(?P<offset>[^\s,()]+)\s*\)(?P<rest>.*)",
    re.DOTALL,
)
_LIMITS: Final = re.compile(r"\s*\[([^\]\n]*)\]")
_TWO_NUMBERS: Final = re.compile(rf"\s*({_NUMBER})\s*\|\s*({_NUMBER})\s*")
_UNIT: Final = re.compile(r'\s*"((?:\\"|[^"\n])*)"([^"\n]*)(?=\n|//|\Z)')
_UNIT_WITH_QUOTES: Final = re.compile(r'\s*"([^\n]*)"([^"\n]*)(?=\n|\Z)')
_OF_SIGNAL: Final = re.compile(r"\s+(?P<id>\d+)\s+(?P<name>[^\s:]+)\s*(?P<rest>.*?)[\s;]*\Z", re.DOTALL)
_OF_VARIABLE: Final = re.compile(r"\s+[A-Za-z_]\w*\s")
_TEXT_OF_VALUE: Final = re.compile(rf'\s*({_NUMBER})\s*"(.*?)"(?=\s*(?:{_NUMBER}\s*"|\Z))', re.DOTALL)
_TYPE: Final = re.compile(r":?\s*([0-3])\Z")
_SELECTION: Final = re.compile(r"(?P<by>\S+)\s+(?P<ranges>\d+\s*-\s*\d+(?:\s*,?\s*\d+\s*-\s*\d+)*)\Z")
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")
_LONG_NAME: Final = re.compile(
    r'\s*"System(?P<of>Message|Signal)LongSymbol"\s+(?:BO_\s+(?P<message>\d+)|SG_\s+(?P<id>\d+)\s+(?P<signal>\S+))'
    r'\s*"(?P<long>[^"\n]+)"'
)
_ATTRIBUTE: Final = re.compile(r'\s*(?:\w+\s+)?"([^"\n]*)"')
_MOST_DIGITS: Final = 20  # A longer number exceeds every limit, and Python refuses to convert very long ones.

Number = int | float


@dataclass(frozen=True, slots=True)
class MessageEntry:
    """A BO_ entry; the identifier has bit 31 set if it has 29 bits.  `repairs` are as in a SignalEntry."""

    can_id: int
    name: str
    length: int
    repairs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignalEntry:
    """An SG_ entry.

    `marker` is M for a multiplexer, m and a number for a multiplexed signal, both for a nested multiplexer, or empty.
    `repairs` says what was wrong with parts of the entry that change no value.
    """

    name: str
    marker: str
    start: int
    bits: int
    big_endian: bool
    signed: bool
    scale: Number
    offset: Number
    minimum: Number | None
    maximum: Number | None
    unit: str
    line: int
    repairs: tuple[str, ...]

    @property
    def selects(self) -> bool:
        """Return whether the marker makes the signal a multiplexer."""
        return self.marker.endswith("M")

    @property
    def number(self) -> int | None:
        """Return the multiplexer number in the marker, or None if there is none."""
        digits = self.marker.strip("mM")
        return whole(digits) if digits else None


def message(body: str) -> MessageEntry | None:
    """Read the body of a BO_ statement."""
    found = _MESSAGE.match(body)
    can_id, length = (whole(found["id"]), whole(found["bytes"])) if found else (None, None)
    if found is None or can_id is None or length is None:
        return None
    sender = _SENDER.fullmatch(body, found.end())
    return MessageEntry(can_id, found["name"], length, () if sender else (_TEXT_BEHIND,))


def signal(body: str, line: int) -> SignalEntry | None:
    """Read the body of an SG_ statement in line number `line`."""
    found = _SIGNAL.match(body)
    if found is None:
        return None
    start, bits = whole(found["start"]), whole(found["bits"])
    scale, offset = number(found["scale"]), number(found["offset"])
    if start is None or bits is None or scale is None or offset is None or len(found["marker"] or "") > _MOST_DIGITS:
        return None
    limits, unit, repairs = _rest(found["rest"])
    if any(part.lstrip("-+").startswith(".") for part in (found["scale"], found["offset"])):
        repairs = ("a number has no digit before its point, and is read as if it had a zero", *repairs)
    return SignalEntry(
        found["name"],
        found["marker"] or "",
        start,
        bits,
        found["order"] == "0",
        found["sign"] == "-",
        scale,
        offset,
        *limits,
        unit,
        line,
        repairs,
    )


def _rest(text: str) -> tuple[tuple[Number | None, Number | None], str, tuple[str, ...]]:
    """Return limits and unit from the end of an SG_ entry, and what had to be repaired there."""
    repairs = []
    limits = _LIMITS.match(text)
    two = None if limits is None else _TWO_NUMBERS.fullmatch(limits[1])
    if two is None:
        repairs.append("the limits [minimum|maximum] are not two numbers, and are ignored")
    between = (None, None) if two is None else (number(two[1]), number(two[2]))
    at = limits.end() if limits else 0
    unit = _UNIT.match(text, at)
    if unit is None:
        unit = _UNIT_WITH_QUOTES.match(text, at)
        repairs.append("the unit is not one text in quotes; it is read up to the last quote of the line")
    if unit is None:
        return between, "", tuple(repairs)
    behind = text[unit.start(2) :]
    if _RECEIVERS.fullmatch(behind) is None:
        repairs.append(_TEXT_BEHIND)
    elif not behind.partition("//")[0].strip():
        repairs.append("the signal has no receiver, which changes no value")
    return between, unescaped(unit[1]), tuple(repairs)


def of_signal(body: str) -> tuple[int, str, str] | None:
    """Return identifier, signal name and the rest of a statement about a signal, such as VAL_ or SG_MUL_VAL_."""
    found = _OF_SIGNAL.match(body)
    can_id = whole(found["id"]) if found else None
    return None if found is None or can_id is None else (can_id, found["name"], found["rest"])


def is_of_variable(body: str) -> bool:
    """Return whether the statement is about an environment variable, which is not a signal of a frame."""
    return _OF_VARIABLE.match(body) is not None


def texts_of_values(rest: str) -> tuple[dict[int, str], bool]:
    """Return the texts at the end of a VAL_ statement by raw value, and whether all of `rest` could be read."""
    found: dict[int, str] = {}
    at, complete = 0, True
    while entry := _TEXT_OF_VALUE.match(rest, at):
        value = number(entry[1])
        # The description of the format allows a double as the value.  Only a whole number can be a raw value.
        if value is None or not float(value).is_integer():
            complete = False
        else:
            complete = complete and found.get(int(value), unescaped(entry[2])) == unescaped(entry[2])
            found[int(value)] = unescaped(entry[2])
        at = entry.end()
    return found, complete and not rest[at:].strip()


def float_type(rest: str) -> int | None:
    """Return the number at the end of a SIG_VALTYPE_ statement: 1 and 2 mean an IEEE float of 32 and 64 bits."""
    found = _TYPE.match(rest)
    return None if found is None else int(found[1])


def selection(rest: str) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    """Return the multiplexer at the end of an SG_MUL_VAL_ statement, and the ranges of its numbers."""
    found = _SELECTION.match(rest)
    if found is None:
        return None
    pairs = [(whole(first), whole(last)) for first, last in _RANGE.findall(found["ranges"])]
    ranges = tuple((a, b) for a, b in pairs if a is not None and b is not None and a <= b)
    return (found["by"], ranges) if len(ranges) == len(pairs) else None


def long_name(body: str) -> tuple[int, str | None, str] | None:
    """Return identifier, signal (None for the message itself) and long name of a BA_ statement that gives one."""
    found = _LONG_NAME.match(body)
    if found is None or (found["of"] == "Message") != (found["message"] is not None):
        return None
    can_id = whole(found["message"] or found["id"])
    return None if can_id is None else (can_id, found["signal"], found["long"])


def attribute(body: str) -> str:
    """Return the name of the attribute that a BA_ or BA_DEF_ statement is about, or an empty text."""
    found = _ATTRIBUTE.match(body)
    return found[1] if found else ""


def unescaped(text: str) -> str:
    r"""Return `text` with a quote in place of each `\"`."""
    return text.replace('\\"', '"')


def whole(digits: str) -> int | None:
    """Return a whole number, or None if it has more digits than any number of a sound DBC."""
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def number(text: str) -> Number | None:
    """Return a finite number, or None.  The number is an int if it is written as a whole number."""
    if re.fullmatch(_NUMBER, text) is None:
        return None
    if re.fullmatch(r"[-+]?\d+", text) and len(text) <= _MOST_DIGITS:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None
