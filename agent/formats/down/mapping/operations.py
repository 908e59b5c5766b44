"""Says what the operators and functions of formulas compute.  Pure.

They compute what Python computes, as in py-expression-eval 0.3.14, whose author wrote them in Python: `%` has the sign
of the divisor, `round` rounds half to even, `and` and `or` give one of their operands.  Each operation is bounded, so
that no formula can take long or much memory.  An operation that fails, or exceeds its bound, raises an error of FAULTS,
and then the formula has no value.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

FAULTS: Final = (ArithmeticError, ValueError, TypeError, LookupError)
"""What operations raise: division by zero, a logarithm of zero, arithmetic with texts, and the like."""

_MOST_BITS: Final = 4_096
"""The longest whole number.  A double has 1,024 bits at most, and the quotient of two longer numbers may be one."""
_MOST_FACTORIAL: Final = 400
_MOST_CHARS: Final = 1_000
"""The longest text."""


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MOST_CHARS:
        raise ValueError(f"a text has more than {_MOST_CHARS} characters")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise OverflowError(f"a whole number has more than {_MOST_BITS} bits")
    return value


def _times(left: Any, right: Any) -> Any:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, (str, list)) and isinstance(count, int) and len(text) * count > _MOST_CHARS:
            raise ValueError(f"a text has more than {_MOST_CHARS} characters")
    return left * right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise TypeError("a text has no remainder")  # Python would take the text for a format
    return left % right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS:
        raise OverflowError(f"a whole number has more than {_MOST_BITS} bits")
    return left**right


def _concatenated(first: Any, second: Any, *others: Any) -> str:
    return "".join(f"{part}" for part in (first, second, *others))


def _factorial(value: Any) -> int:
    if value > _MOST_FACTORIAL:
        raise OverflowError(f"the number exceeds {_MOST_FACTORIAL}")
    return math.factorial(value)


BINARY: Final[Mapping[str, tuple[int, Callable[[Any, Any], Any]]]] = {
    "^": (8, _power),
    "%": (6, _modulo),
    "/": (6, operator.truediv),
    "*": (5, _times),
    "+": (4, operator.add),
    "-": (4, operator.sub),
    "||": (3, _concatenated),
    "==": (3, operator.eq),
    "!=": (3, operator.ne),
    "<": (3, operator.lt),
    "<=": (3, operator.le),
    ">": (3, operator.gt),
    ">=": (3, operator.ge),
    "in": (3, lambda left, right: left in right),
    "and": (1, lambda left, right: left and right),
    "or": (0, lambda left, right: left or right),
    "xor": (0, operator.xor),
}
"""The operators between two operands, each with its priority."""

UNARY: Final[Mapping[str, tuple[int, Callable[[Any], Any]]]] = {
    "-": (5, operator.neg),
    "not": (2, operator.not_),
}

PREFIX: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sqrt", "exp")},
    "sind": lambda value: math.sin(math.radians(value)),
    "cosd": lambda value: math.cos(math.radians(value)),
    "tand": lambda value: math.tan(math.radians(value)),
    "asind": lambda value: math.degrees(math.asin(value)),
    "acosd": lambda value: math.degrees(math.acos(value)),
    "atand": lambda value: math.degrees(math.atan(value)),
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
}
"""The functions of one operand, which bind like operators."""

FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "fac": _factorial,
    "log": math.log,
    "min": min,
    "max": max,
    "pyt": lambda a, b: math.sqrt(a * a + b * b),
    "pow": math.pow,
    "atan2": math.atan2,
    "concat": _concatenated,
    "if": lambda condition, yes, no: yes if condition else no,
}
"""The functions that are called with a list of operands."""

NOT_REPEATABLE: Final = frozenset({"random", "D"})


def bounded(compute: Callable[..., Any], *operands: Any) -> Any:
    """Compute, and return the result if it keeps the bounds.  Raises: one of FAULTS."""
    return _bounded(compute(*operands))
