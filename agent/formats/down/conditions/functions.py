"""The functions that conditions may call, and why others are refused.  Pure."""

from typing import Final

import msgspec

from agent.formats.down.conditions.fault import ConditionFault
from agent.formats.down.conditions.tree import RISING_EDGES


class Arity(msgspec.Struct, frozen=True):
    """How many operands a function takes; `most` is None if there is no limit.  `words` says it in a message."""

    least: int
    most: int | None
    words: str


_ONE: Final = Arity(1, 1, "one operand")
_TWO: Final = Arity(2, 2, "two operands")
_SEVERAL: Final = Arity(2, None, "two operands or more")
FUNCTIONS: Final = {
    "abs": _ONE,
    "ceil": _ONE,
    "floor": _ONE,
    "pow": _TWO,
    "log": _TWO,
    "min": _SEVERAL,
    "max": _SEVERAL,
    RISING_EDGES: Arity(2, None, "pairs of a name and a condition"),
}
_NOT_SUPPORTED: Final = {
    "python": "no program from outside runs in the vehicle",
    "DTC_QUERY": "conditions do not ask control units for trouble codes",
    "sin": "only the sample code of FleetWise has it",
    "counter": "only the sample code of FleetWise has it",
    "file_size": "conditions do not read files",
}
_WINDOW_FUNCTIONS: Final = tuple(
    f"{which}_window_{what}" for which in ("last", "prev_last") for what in ("min", "max", "avg")
)


def check_name(name: str, place: int) -> None:
    """Check that there is a function `name`.  Raises: ConditionFault at `place`, the place of the name."""
    if name in FUNCTIONS:
        return
    reason = _NOT_SUPPORTED.get(name)
    if reason is not None:
        raise ConditionFault(place, f"the function {name!r} is not supported: {reason}")
    if is_window_function(name):
        raise ConditionFault(place, window_function(name))
    raise ConditionFault(place, f"there is no function {name!r}: known are {', '.join(FUNCTIONS)}")


def check_arity(name: str, operands: int, place: int) -> None:
    """Check that the function `name` takes so many operands.

    Raises: ConditionFault at `place`, the place of the name.
    """
    arity = FUNCTIONS[name]
    too_many = arity.most is not None and operands > arity.most
    if operands < arity.least or too_many or (name == RISING_EDGES and operands % 2):
        raise ConditionFault(place, f"{name} takes {arity.words}, but there are {operands}")


def is_window_function(word: str) -> bool:
    """Return whether `word` is one of FleetWise's functions over time windows."""
    return word in _WINDOW_FUNCTIONS


def window_function(word: str) -> str:
    """Return why a function over time windows is refused."""
    return f"{word} is not supported, because no field of a campaign sets the length of its window"
