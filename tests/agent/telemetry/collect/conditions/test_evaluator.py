"""Values, undefined values and conversions of the language of conditions."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from agent.formats.down.conditions.condition import read_condition
from agent.formats.down.conditions.tree import variables
from agent.telemetry.collect.conditions.evaluator import UNDEFINED, Evaluated, Evaluator, Inputs

A, B, C = "$variable.`A.a`", "$variable.`B.b`", "$variable.`C.c`"
Column = Sequence[float | None]


def evaluate(text: str, *columns: Column, nulls: Sequence[bool] = ()) -> Evaluated:
    """Evaluate a condition for some frames.  None stands for an undefined value.

    `columns` has the values of each variable, in the order of the text.
    """
    tree = read_condition(text)
    count = len(columns[0]) if columns else 1
    values = {}
    for name, column in zip(variables(tree), columns, strict=True):
        numbers = np.array([0.0 if value is None else value for value in column])
        values[name] = numbers, np.array([value is not None for value in column])
    asked = {name: (np.array(nulls, np.bool_), np.array(True)) for name in values} if nulls else {}
    evaluator = Evaluator(tree)
    return evaluator.evaluate(Inputs(count, values, asked), evaluator.begin())


def true(text: str, *columns: Column, nulls: Sequence[bool] = ()) -> list[bool]:
    found: list[bool] = evaluate(text, *columns, nulls=nulls).true.tolist()
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 == 7", True),
        ("7 / 2 == 3.5", True),
        ("true + true == 2", True),
        ("true * 5 > 4", True),
        ("!0", True),
        ("!0.5", False),
        ("0.0001", True),
        ("0 / 0", True),  # NaN is not 0
        ("0 / 0 == 0 / 0", False),
        ("0 / 0 != 0 / 0", True),
        ("0 / 0 < 1 || 0 / 0 >= 1", False),
        ("1 / 0 > 1e300", True),
        ("1 / 0 == 1 / 0", False),
        ("1 / -0 < 0", True),
        ("1 / -(0) > 0", True),  # 0 - 0 is positive
        ("1 == 1.0009", True),
        ("1 == 1.0011", False),
        ("1 != 1.0009", False),
        ("0 == 0.001", False),
        ("'a' + 'b' == 'ab' && 'a' != 'A'", True),
        ("'a\\u0000' == 'a'", False),
        ("custom_function('abs', -2.5) == 2.5", True),
        ("custom_function('ceil', -1.5) == -1 && custom_function('floor', -1.5) == -2", True),
        ("custom_function('ceil', 1 / 0) > 1", True),
        ("custom_function('min', 3, 1, 2) == 1 && custom_function('max', -3, -1, -2) == -1", True),
        ("custom_function('min', 0 / 0, 2) == 2 && custom_function('max', 0 / 0, 2) == 2", True),
        ("custom_function('min', 0 / 0, 0 / 0) < 1", False),
        ("custom_function('pow', 2, 10) == 1024", True),
        ("custom_function('pow', 1 / 0, 2) > 1", True),
        ("custom_function('log', 10, 1000) == 3", True),
        ("custom_function('log', 1, 2) > 1e300", True),
        ("custom_function('log', 0 / 0, 2) != 1", True),  # NaN is a value
    ],
)
def test_constants_are_computed_as_ieee_numbers(text: str, value: bool) -> None:
    assert true(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "custom_function('pow', -8, 0.5)",
        "custom_function('pow', 0, -1)",
        "custom_function('pow', 10, 400)",
        "custom_function('log', 0, 2)",
        "custom_function('log', 10, -1)",
        "custom_function('log', -0, 1)",
    ],
)
def test_a_function_without_a_value_is_undefined_and_so_is_what_depends_on_it(text: str) -> None:
    assert true(f"{text} > 0") == true(f"!({text} > 0)") == true(f"{text} > 0 || true") == [False]


def test_an_undefined_variable_makes_every_operator_undefined() -> None:
    column: Column = [None, 0.0, 5.0]
    assert true(f"{A} > 1", column) == [False, False, True]
    assert true(f"!({A} > 1)", column) == [False, True, False]
    assert true(f"true || {A} > 1", column) == [False, True, True]
    assert true(f"custom_function('max', 3, {A}) > 1", column) == [False, True, True]
    assert true(f"{A}", column) == [False, False, True]


def test_the_functions_of_single_frames_are_those_of_the_c_library() -> None:
    random = np.random.default_rng(5)
    x, y = random.normal(0, 50, 500), np.round(random.normal(0, 3, 500))
    right = [bool(math.pow(a, b) > 3) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert true(f"custom_function('pow', {A}, {B}) > 3", x.tolist(), y.tolist()) == right
    right = [a > 0 and math.log(a) / math.log(10) > 1.2 for a in x.tolist()]
    assert true(f"custom_function('log', 10, {A}) > 1.2", x.tolist()) == right


def test_is_null_is_defined_where_its_variable_is_not() -> None:
    assert true(f"isNull({A})", [None, 1.0, 1.0], nulls=[True, True, False]) == [True, True, False]
    assert true(f"isNull({A}) && {A} > 0", [None, 1.0, 1.0], nulls=[True, True, False]) == [False, True, False]


def test_is_null_of_an_unknown_variable_is_undefined() -> None:
    evaluator = Evaluator(read_condition(f"!isNull({A}) || true"))
    inputs = Inputs(2, {"A.a": UNDEFINED}, {"A.a": UNDEFINED})
    assert evaluator.evaluate(inputs, evaluator.begin()).true.tolist() == [False, False]


EDGES = f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {A} > 0, 'B', {B} > 0)"


def test_a_condition_rises_if_it_is_true_and_was_defined_and_not_true_at_the_frame_before() -> None:
    found = evaluate(EDGES, [1, 0, 1, 1, 0, None, 1], [None, 1, 0, 0, 1, 0, 1])
    # The first frame only remembers, and an undefined condition counts as high.
    assert found.rose.tolist() == [
        [False, False, True, False, False, False, False],
        [False, False, False, False, True, False, True],
    ]
    assert found.true.tolist() == [False, False, True, False, True, False, True]


def test_edges_are_remembered_from_block_to_block() -> None:
    columns: tuple[list[float], list[float]] = ([0, 1, 0, 1, 0, 1], [1, 1, 0, 0, 1, 0])
    whole = evaluate(EDGES, *columns)
    evaluator = Evaluator(read_condition(EDGES))
    memory, rose = evaluator.begin(), []
    for place in range(6):
        one = {
            name: (np.array([column[place]]), np.array([True]))
            for name, column in zip(("A.a", "B.b"), columns, strict=True)
        }
        found = evaluator.evaluate(Inputs(1, one, {}), memory)
        memory = found.high[:, 0]
        rose.append(found.rose[:, 0].tolist())
    assert np.array(rose).T.tolist() == whole.rose.tolist()


def test_the_names_of_an_inner_call_come_before_those_of_the_outer_one() -> None:
    inner = f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'X', {A}, 'Y' + 'Y', {B})"
    outer = f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {C}, 'B', {inner} || true)"
    assert Evaluator(read_condition(f"{outer} && {inner}")).names == ("X", "YY", "A", "B", "X", "YY")
