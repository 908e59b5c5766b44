"""The tree of a condition.  Pure.

Each node has its `place`, the number of its first character in the expression (from 1, without parentheses), and its
`depth`.  The depth of a leaf is 1.  The depth of an operation is one more than the depth of its deepest operand.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

RISING_EDGES: Final = "MULTI_RISING_EDGE_TRIGGER"
"""The function whose operands are pairs of a name (a text) and a condition."""


class Literal(msgspec.Struct, frozen=True):
    """A number, a boolean or a text."""

    value: float | bool | str
    place: int
    depth: int = 1


class Variable(msgspec.Struct, frozen=True):
    """The newest value of the signal that is called `name`."""

    name: str
    place: int
    depth: int = 1


class IsNull(msgspec.Struct, frozen=True):
    """Asks whether `variable` has no sample that the campaign has not sent yet."""

    variable: Variable
    place: int
    depth: int = 1


class Operation(msgspec.Struct, frozen=True):
    """An operator or a function with its operands.

    `name` is the operator as it is written, or the name of the function.  A minus that precedes an operand other than a
    number is the operator "-" with the operands 0 and that operand.
    """

    name: str
    operands: "tuple[Node, ...]"
    place: int
    depth: int


Node = Literal | Variable | IsNull | Operation


def operation(name: str, operands: Sequence[Node], place: int) -> Operation:
    """Return an operation with the depth that follows from its operands."""
    return Operation(name, tuple(operands), place, 1 + max(operand.depth for operand in operands))


def nodes(tree: Node) -> Iterator[Node]:
    """Yield the node itself and all nodes below it, in the order of the text."""
    yield tree
    if isinstance(tree, Operation):
        for operand in tree.operands:
            yield from nodes(operand)
    elif isinstance(tree, IsNull):
        yield tree.variable


def variables(tree: Node) -> tuple[str, ...]:
    """Return the name of each variable once, in the order of the text."""
    return tuple(dict.fromkeys(node.name for node in nodes(tree) if isinstance(node, Variable)))


def undefined_forever(tree: Node, unknown: frozenset[str]) -> Variable | None:
    """Return the first variable that makes the condition undefined for ever, or None if it can be defined.

    `unknown` has the names that no database has.  An unknown variable does no harm in a pair of
    MULTI_RISING_EDGE_TRIGGER if another pair can be defined.
    """
    if isinstance(tree, Variable):
        return tree if tree.name in unknown else None
    if isinstance(tree, IsNull):
        return undefined_forever(tree.variable, unknown)
    if isinstance(tree, Operation):
        if tree.name == RISING_EDGES:
            found = [undefined_forever(condition, unknown) for condition in tree.operands[1::2]]
            return None if None in found else found[0]
        for operand in tree.operands:
            first = undefined_forever(operand, unknown)
            if first is not None:
                return first
    return None
