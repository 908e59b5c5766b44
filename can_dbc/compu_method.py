"""Reads AUTOSAR computation methods (ARXML COMPU-METHOD), which turn an internal value into a physical one.  Pure.

A method has scales.  Each scale is for an interval of internal values, and has one of these:

- a text (`COMPU-CONST/VT`)
- a number (`COMPU-CONST/V`)
- a quotient of two polynomials (`COMPU-RATIONAL-COEFFS`)

The scales decide, and not the CATEGORY, because tools disagree about the category: a method of category
RAT_FUNC whose quotient is a straight line is a linear one.  A plan has one scale and one offset for each signal.  A
method that needs more than that has a `problem`, and its signals are left out (can_dbc/arxml.py).  It needs more in
these cases:

- Its intervals have different lines.
- A quotient is not a line.
- A scale gives a number for an interval.

cantools reads only the categories LINEAR, TEXTTABLE and SCALE_LINEAR_AND_TEXTTABLE.  It gives raw values for all
others, uses the last of several lines, and refuses the file if a text has an interval of several values
(https://github.com/cantools/cantools/issues/461).
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element

_MOST_TEXTS: Final = 4096
"""The most values that the texts of one method may list.  The limit bounds the catalogue, which carries all texts."""
_OCTAL: Final = re.compile(r"[+-]?0[0-7]+")
_WORDS: Final = {"true": 1, "false": 0, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}


@dataclass(slots=True)
class Conversion:
    """Says how internal values become physical ones: a line, and texts for single values.

    The physical value is internal * `scale` + `offset`.  `minimum` and `maximum` limit the physical values, or are
    None.  If `problem` is not None, the method cannot be carried out, and the text says why.  `notes` name what is left
    out.
    """

    scale: float = 1.0
    offset: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    texts: dict[int, str] = field(default_factory=dict)
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Interval:
    """An interval of internal values.  An open end does not belong to the interval."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    @property
    def empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def whole(self, lowest: int, highest: int) -> range:
        """Return the whole numbers of the interval that are from `lowest` to `highest`."""
        first = lowest if self.low == -math.inf else math.ceil(self.low) + (self.low_open and self.low % 1 == 0)
        last = highest if self.high == math.inf else math.floor(self.high) - (self.high_open and self.high % 1 == 0)
        return range(max(first, lowest), min(last, highest) + 1)


def number(text: str | None) -> float:
    """Return the number in `text`, an int if it is whole.  AUTOSAR writes octal numbers with a leading 0.

    Raises: ValueError if `text` is not a number.
    """
    word = (text or "").strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    if _OCTAL.fullmatch(word):
        return int(word, 8)
    try:
        return int(word, 0)
    except ValueError:
        value = float.fromhex(word) if "0x" in word else float(word)
    return int(value) if value.is_integer() else value


def read(method: Element, lowest: int, highest: int) -> Conversion:
    """Return the conversion of `method` for a signal whose internal values lie between `lowest` and `highest`."""
    found = Conversion()
    forward = _child(method, "COMPU-INTERNAL-TO-PHYS")
    inverse = _child(method, "COMPU-PHYS-TO-INTERNAL")
    direction = forward if forward is not None else inverse
    if direction is None:
        return found
    try:
        if forward is None:
            _read_inverse(direction, found)
        else:
            _read_scales(list(_scales(direction)), lowest, highest, found)
    except ValueError as error:
        found.problem = f"has a number that cannot be read ({error})"
    if _child(direction, "COMPU-DEFAULT-VALUE") is not None:
        found.notes.append("its COMPU-DEFAULT-VALUE is not used, so values outside of all intervals are converted")
    return found


def _read_scales(scales: Sequence[Element], lowest: int, highest: int, found: Conversion) -> None:
    lines: dict[tuple[float, float], list[_Interval]] = {}
    for scale in scales:
        constant = _child(scale, "COMPU-CONST")
        coefficients = _child(scale, "COMPU-RATIONAL-COEFFS")
        if constant is not None and (text := _text(scale, constant)) is not None:
            _add_text(text, scale, (lowest, highest), found)
        elif constant is not None:
            found.problem = "gives a number of its own to an interval (COMPU-CONST/V)"
        elif coefficients is not None:
            line = _line(coefficients)
            if isinstance(line, str):
                found.problem = line
            else:
                lines.setdefault(line, []).append(_interval(scale))
        elif _limits(scale):
            lines.setdefault((1.0, 0.0), []).append(_interval(scale))
    if len(lines) > 1:
        found.problem = f"has {len(lines)} different lines, one for each interval"
    for (found.scale, found.offset), intervals in lines.items():
        ends = [end * found.scale + found.offset for i in intervals for end in (i.low, i.high) if not i.empty]
        found.minimum = min(ends) if ends and all(map(math.isfinite, ends)) else None
        found.maximum = max(ends) if ends and all(map(math.isfinite, ends)) else None


def _read_inverse(direction: Element, found: Conversion) -> None:
    """Read a method that is only defined from the physical value to the internal one, which must be a line."""
    scales = list(_scales(direction))
    coefficients = [_child(scale, "COMPU-RATIONAL-COEFFS") for scale in scales]
    if len(scales) == 1 and coefficients[0] is not None:
        line = _line(coefficients[0])
        if not isinstance(line, str) and line[0] != 0:
            found.scale, found.offset = 1 / line[0], -line[1] / line[0] + 0.0
            return
    if scales:
        found.problem = "is only defined from the physical value to the internal one, and is not a single line"


def _add_text(text: str, scale: Element, limits: tuple[int, int], found: Conversion) -> None:
    if _child(scale, "MASK") is not None:
        found.notes.append(f"the text {text!r} is left out, because it is for some bits of the value (MASK)")
        return
    if not _limits(scale):
        found.notes.append(f"the text {text!r} is left out, because it has no limits")
        return
    interval = _interval(scale, point=True)
    values = interval.whole(*limits)
    if len(found.texts) + len(values) > _MOST_TEXTS:
        found.notes.append(
            f"the text {text!r} is left out, because the texts would list more than {_MOST_TEXTS} values"
        )
        return
    if not values and not interval.whole(-(2**63), 2**64):
        found.notes.append(f"the text {text!r} is left out, because no whole number lies within its limits")
    for value in values:
        if found.texts.setdefault(value, text) != text:
            found.notes.append(
                f"the value {value} has the texts {found.texts[value]!r} and {text!r}; the first is used"
            )


def _text(scale: Element, constant: Element) -> str | None:
    """Return the text of a scale.  A text that is empty is replaced by the label or the symbol of the scale."""
    found = _child(constant, "VT")
    if found is None:
        return None
    named = (found, _child(scale, "SHORT-LABEL"), _child(scale, "SYMBOL"))
    return next((e.text.strip() for e in named if e is not None and (e.text or "").strip()), "")  # type: ignore[union-attr]


def _line(coefficients: Element) -> tuple[float, float] | str:
    """Return the slope and the constant of the quotient if it is a straight line, or else a text that says why not."""
    top = _polynomial(_child(coefficients, "COMPU-NUMERATOR"))
    bottom = _polynomial(_child(coefficients, "COMPU-DENOMINATOR"))
    if len(bottom) != 1 or not bottom[0] or len(top) > 2:
        return f"is the quotient of the polynomials {top} and {bottom}, which is not a line"
    constant, slope = [*top, 0, 0][:2]
    return slope / bottom[0], constant / bottom[0]


def _polynomial(parent: Element | None) -> list[float]:
    """Return the coefficients, lowest power first, without zeros at the end.  A missing polynomial is 1."""
    found = [] if parent is None else [number(e.text) for e in parent if _tag(e) == "V"]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found or [1]


def _interval(scale: Element, *, point: bool = False) -> _Interval:
    """Return the interval of a scale.  A missing limit is infinite or, with `point`, equal to the other limit."""
    limits: list[tuple[float, bool] | None] = []
    for name, infinite in (("LOWER-LIMIT", -math.inf), ("UPPER-LIMIT", math.inf)):
        limit = _child(scale, name)
        kind = "" if limit is None else limit.get("INTERVAL-TYPE", "CLOSED").upper()
        if kind == "INFINITE":
            limits.append((infinite, False))
        else:
            limits.append(None if limit is None else (number(limit.text), kind == "OPEN"))
    low, high = limits
    low = low or (high if point else None) or (-math.inf, False)
    high = high or (low if point else None) or (math.inf, False)
    return _Interval(low[0], high[0], low[1], high[1])


def _limits(scale: Element) -> bool:
    return any(_child(scale, name) is not None for name in ("LOWER-LIMIT", "UPPER-LIMIT"))


def _scales(direction: Element) -> Iterator[Element]:
    scales = _child(direction, "COMPU-SCALES")
    return (e for e in (() if scales is None else scales) if _tag(e) == "COMPU-SCALE")


def _child(parent: Element, name: str) -> Element | None:
    return next((e for e in parent if _tag(e) == name), None)


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]
