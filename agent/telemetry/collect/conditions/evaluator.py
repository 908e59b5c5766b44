"""Evaluates a condition for many frames at once, as arrays.  This file is pure.

The value of each node is a pair: the values, and where they are defined.  Both have one element for each frame, or one
for all frames.  Every node is computed for every frame, because a result is defined only where all operands are.

A comparison for equality allows a difference of less than TOLERANCE.  Infinities differ from each other, because their
difference is not a number.

`pow` and `log` are computed by the C library where their operands change.  numpy has other versions of them for other
processors, and a condition must give the same result in every vehicle.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.down.conditions.condition import Type, type_of
from agent.formats.down.conditions.tree import RISING_EDGES, IsNull, Literal, Node, Operation, Variable

TOLERANCE: Final = 0.001
Values = NDArray[Any]
Value = tuple[Values, Values]
"""Values and where they are defined."""
DEFINED: Final = np.array(True)
"""Says that a value is defined at every frame."""
UNDEFINED: Final[Value] = (np.array(0.0), np.array(False))
"""The value of a variable that no database has."""


class Inputs(msgspec.Struct, frozen=True):
    """Holds what a condition is evaluated with, for `count` frames.

    `variables` has the value of each variable.  `nulls` has the result of isNull for each variable that isNull names.
    """

    count: int
    variables: Mapping[str, Value]
    nulls: Mapping[str, Value]


class Evaluated(msgspec.Struct, frozen=True, eq=False):
    """The result for n frames.

    `true` (n,) says where the condition is defined and true.  `high` (pairs, n) says whether the condition of each pair
    of MULTI_RISING_EDGE_TRIGGER was high, and `rose` (pairs, n) whether it rose.
    """

    true: NDArray[np.bool_]
    high: NDArray[np.bool_]
    rose: NDArray[np.bool_]


class Evaluator:
    """Evaluates one condition.  It has no state; the memory of MULTI_RISING_EDGE_TRIGGER is an argument."""

    def __init__(self, tree: Node) -> None:
        self._tree = _without_texts(tree)
        self._names: list[str] = []
        self._first_pairs: dict[int, int] = {}  # number of the first pair of each call, by the place of the call
        self._number_pairs(tree)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of each pair of MULTI_RISING_EDGE_TRIGGER in the order of evaluation: operands come first."""
        return tuple(self._names)

    def _number_pairs(self, node: Node) -> None:
        if isinstance(node, Operation):
            for operand in node.operands:
                self._number_pairs(operand)
            if node.name == RISING_EDGES:
                self._first_pairs[node.place] = len(self._names)
                self._names += [_text(operand) for operand in node.operands[::2]]

    def begin(self) -> NDArray[np.bool_]:
        """Return the memory before the first evaluation.

        All conditions count as high, so the first evaluation finds no edge.
        """
        return np.ones(len(self.names), np.bool_)

    def evaluate(self, inputs: Inputs, memory: NDArray[np.bool_]) -> Evaluated:
        """Evaluate the condition for all frames of `inputs`.

        `memory` (pairs,) says which conditions were high at the frame before.
        """
        high = np.empty((len(self.names), inputs.count), np.bool_)
        rose = np.empty_like(high)
        with np.errstate(all="ignore"):
            values, defined = self._value(self._tree, inputs, (memory, high, rose))
            true = np.broadcast_to(_truth(values) & defined, (inputs.count,))
        return Evaluated(true, high, rose)

    def _value(self, node: Node, inputs: Inputs, edges: Sequence[NDArray[np.bool_]]) -> Value:
        if not isinstance(node, Operation):
            return _leaf(node, inputs)
        if node.name == RISING_EDGES:
            conditions = [self._value(operand, inputs, edges) for operand in node.operands[1::2]]
            return self._rising_edges(conditions, self._first_pairs[node.place], edges)
        return _applied(node.name, [self._value(operand, inputs, edges) for operand in node.operands])

    def _rising_edges(self, conditions: Sequence[Value], first: int, edges: Sequence[NDArray[np.bool_]]) -> Value:
        memory, high, rose = edges
        pairs = slice(first, first + len(conditions))
        for pair, (values, defined) in enumerate(conditions, first):
            high[pair] = _truth(values) | ~defined
            earlier = np.concatenate((memory[pair : pair + 1], high[pair, :-1]))
            rose[pair] = high[pair] & defined & ~earlier
        return np.logical_or.reduce(rose[pairs]), DEFINED


def _leaf(node: Literal | Variable | IsNull, inputs: Inputs) -> Value:
    if isinstance(node, Literal):
        return np.array(node.value), DEFINED
    if isinstance(node, Variable):
        return inputs.variables[node.name]
    return inputs.nulls[node.variable.name]


def _applied(name: str, operands: Sequence[Value]) -> Value:
    """Return the result of an operator or of a function without memory."""
    values = [values for values, _ in operands]
    defined = reduce(np.logical_and, (defined for _, defined in operands))
    if name in _TRUTH_OPERATORS:
        return _TRUTH_OPERATORS[name](*map(_truth, values)), defined
    numbers = [value.astype(np.float64) for value in values]
    if name in _PARTIAL:
        value, possible = _PARTIAL[name](*numbers)
        return value, np.logical_and(defined, possible)
    return _OPERATORS[name](*numbers), defined


def _without_texts(node: Node) -> Node:
    """Replace each comparison of constant texts by its result."""
    if not isinstance(node, Operation):
        return node
    if node.name != RISING_EDGES and type_of(node.operands[0]) is Type.TEXT:
        left, right = map(_text, node.operands)
        return Literal((left == right) is (node.name == "=="), node.place)
    # The names of MULTI_RISING_EDGE_TRIGGER are the only texts that stay.
    operands = [each if type_of(each) is Type.TEXT else _without_texts(each) for each in node.operands]
    return msgspec.structs.replace(node, operands=tuple(operands))


def _text(node: Node) -> str:
    """Return the value of a node that is a text.  All texts are constants."""
    if isinstance(node, Literal):
        return str(node.value)
    assert isinstance(node, Operation)
    return "".join(map(_text, node.operands))


def _truth(values: Values) -> Values:
    truth: Values = values if values.dtype.kind == "b" else np.not_equal(values, 0)
    return truth


def _equal(left: Values, right: Values) -> Values:
    equal: Values = np.less(np.abs(left - right), TOLERANCE)
    return equal


def _power(base: Values, exponent: Values) -> Value:
    result = _where_operands_change(math.pow, base, exponent)
    return result, np.isfinite(result) | ~np.isfinite(base) | ~np.isfinite(exponent)


def _logarithm(base: Values, number: Values) -> Value:
    possible = ~((base <= 0) | (number <= 0))
    logarithms = [_where_operands_change(math.log, np.where(value <= 0, 1.0, value)) for value in (number, base)]
    return np.divide(*logarithms), possible


def _where_operands_change(function: Callable[..., float], *operands: Values) -> Values:
    """Return `function` of each frame's operands, computed only for frames whose operands differ from those before."""
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    columns = np.stack([np.broadcast_to(operand, shape).reshape(-1) for operand in operands])
    bits = columns.view(np.int64)  # tells 0.0 from -0.0, and finds a NaN equal to itself
    changed = np.ones(columns.shape[1], np.bool_)
    changed[1:] = (bits[:, 1:] != bits[:, :-1]).any(axis=0)
    arguments = columns[:, changed].tolist()
    try:
        results = list(map(function, *arguments))
    except (ValueError, OverflowError):
        results = [_or_nan(function, *each) for each in zip(*arguments, strict=True)]
    spread: Values = np.array(results, np.float64)[np.cumsum(changed) - 1].reshape(shape)
    return spread


def _or_nan(function: Callable[..., float], *operands: float) -> float:
    try:
        return function(*operands)
    except (ValueError, OverflowError):
        return math.nan


_TRUTH_OPERATORS: Final[Mapping[str, Callable[..., Values]]] = {
    "||": np.logical_or,
    "&&": np.logical_and,
    "!": np.logical_not,
}
_OPERATORS: Final[Mapping[str, Callable[..., Values]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": _equal,
    "!=": lambda left, right: ~_equal(left, right),
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    # fmin and fmax leave out operands that are not numbers, unless all are.
    "min": lambda *operands: reduce(np.fmin, operands),
    "max": lambda *operands: reduce(np.fmax, operands),
}
_PARTIAL: Final[Mapping[str, Callable[..., Value]]] = {"pow": _power, "log": _logarithm}
"""Functions that have no value for some operands.  They return the values, and where there are any."""
