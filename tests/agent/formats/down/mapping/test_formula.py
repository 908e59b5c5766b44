"""Formulas of mappings give what py-expression-eval 0.3.14 gives; what it cannot compute is refused or has no value."""

import math
import random
from typing import Any

import pytest
from py_expression_eval import Parser

from agent.formats.down.mapping.entries import finite
from agent.formats.down.mapping.formula import parse_formula
from agent.formats.down.mapping.tokens import MAX_CHARS, FormulaError

INPUTS = (0, 1, -1, 7, -7, 2.5, -0.25, 100, 3276.7, "Open", "")
OPERATORS = ("+", "-", "*", "/", "%", "^", "**", "==", "!=", "<", "<=", ">", ">=", "and ", "or ", "xor ", "||", "in ")
PREFIX = ("sin", "cos", "tan", "asin", "acos", "atan", "sind", "cosd", "tand", "asind", "acosd", "atand", "sqrt")
PREFIX += ("abs", "ceil", "floor", "round", "exp")
CALLS = {"min": 3, "max": 2, "log": 1, "pow": 2, "pyt": 2, "atan2": 2, "if": 3, "concat": 2, "fac": 1}


class Bounded(Parser):
    """The library, which raises OverflowError in place of computing for minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.ops2 |= {"^": self.power, "**": self.power, "%": self.remainder}
        self.functions |= {"fac": self.factorial}

    def power(self, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > 4_096:
            raise OverflowError
        return left**right

    def remainder(self, left: Any, right: Any) -> Any:
        if isinstance(left, str):
            raise OverflowError
        return left % right

    def factorial(self, value: Any) -> Any:
        if value > 400:
            raise OverflowError
        return math.factorial(value)


def theirs(text: str, x: object) -> object:
    """Return what the library gives, as far as it is a value; raise what it raises."""
    return finite(Bounded().parse(text).evaluate({"x": x}))


def same(mine: object, other: object) -> bool:
    if isinstance(mine, (str, bool)) or isinstance(other, (str, bool)) or mine is None or other is None:
        return type(mine) is type(other) and mine == other
    return mine == other or math.isclose(float(mine), float(other), rel_tol=1e-12)  # type: ignore[arg-type]


def generated(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if depth > 3 or kind < 0.25:
        return chance.choice(["x", "x", "2", "0.5", "10", ".5", "3.", "1e2", "PI", "E", "'Open'", '"b"'])
    if kind < 0.65:
        sides = [generated(chance, depth + 1) for _ in range(2)]
        sides = [f"({side})" if chance.random() < 0.4 else side for side in sides]
        return f"{sides[0]} {chance.choice(OPERATORS)}{chance.choice(['', ' '])}{sides[1]}"
    if kind < 0.75:
        return f"{chance.choice(['-', '+', 'not '])}{generated(chance, depth + 1)}"
    if kind < 0.87:
        return f"{chance.choice(PREFIX)}({generated(chance, depth + 1)})"
    name = chance.choice(list(CALLS))
    return f"{name}({', '.join(generated(chance, depth + 1) for _ in range(CALLS[name]))})"


@pytest.mark.parametrize("seed", range(20))
def test_random_formulas_give_what_the_library_gives(seed: int) -> None:
    chance = random.Random(seed)
    computed = 0
    for _ in range(400):
        text = generated(chance)
        try:
            mine = parse_formula(text, ["x"])
        except FormulaError:
            for x in INPUTS:  # refused, so the library must never have a value
                with pytest.raises(Exception):  # noqa: B017  # whatever Python raises
                    raise_if_none(theirs(text, x))
            continue
        for x in INPUTS:
            try:
                expected = theirs(text, x)
            except OverflowError:
                continue
            except Exception:  # noqa: BLE001  # the library raises whatever Python does
                expected = None
            found = finite(mine.value({"x": x}))
            assert same(found, expected), (text, x, found, expected)
            computed += expected is not None
    assert computed > 1_000


def raise_if_none(value: object) -> None:
    if value is None:
        raise ValueError("no value")


@pytest.mark.parametrize(
    ("text", "x", "value"),
    [
        ("-x^2", 3, -9),
        ("2^3^2", 0, 64),
        ("-7 % 3", 0, -1),
        ("x % 3", -7, 2),
        ("round(x)", 2.5, 2),
        ("x and 5", 0, 0),
        ("x or 5", 0, 5),
        ("x in (1, 2)", 2, True),
        ("x || 'b'", "a", "ab"),
        ("if(x == 'On', 1, 0)", "On", 1),
        ("100 / x", 0, None),
        ("x + 1", "On", None),
        ("sqrt(x)", -1, None),
        ("x /* half */ / 2", 3, 1.5),
        ("max(x, 2, 7)", 5, 7),
        ("x * 10 ^ 400", 1, None),
    ],
)
def test_peculiarities(text: str, x: float | str, value: object) -> None:
    assert finite(parse_formula(text, ["x"]).value({"x": x})) == value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 1),
        ("x +", 4),
        ("2*-x", 2),
        ("x // 2", 4),
        ("(x", 3),
        ("x)", 2),
        ("y + 1", 1),
        ("x * velocity", 5),
        ("random(1)", 1),
        ("x ! 2", 3),
        ("'On", 1),
        ("x 2", 3),
        ("1.2.3", 1),
        ("min", 1),
        ("2 ^ max(1, x)", 3),
        ("x(2)", 2),
        ("sin x", 5),
        ("x /* y", 3),
        ("(1, 2)", 1),
        ("x" * (MAX_CHARS + 1), MAX_CHARS + 1),
    ],
)
def test_a_formula_that_cannot_be_read_is_refused_with_its_place(text: str, place: int) -> None:
    with pytest.raises(FormulaError, match=rf"^character {place}: "):
        parse_formula(text, ["x"])


@pytest.mark.parametrize(
    "text", ["9^(9^9)", "fac(100000)", "'a' * 10^9", "concat('aaaaaaaaaa' * 100, 'b')", "'%999999999d' % x"]
)
def test_no_formula_takes_long_or_much_memory(text: str) -> None:
    assert parse_formula(text, ["x"]).value({"x": 1}) is None
