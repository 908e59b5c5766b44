"""Checks a condition as a whole: its length, its depth and the types of its operands.  Pure.

All types are known before the first frame, because signals are numbers and texts come only as literals.

    operator or function            operands                   result
    + (two texts)                   texts                      text
    + - * /                         numbers                    number
    == != (two texts)               texts                      boolean
    == != < <= > >=                 numbers                    boolean
    && || !                         truths                     boolean
    abs ceil floor min max pow log  numbers                    number
    MULTI_RISING_EDGE_TRIGGER       pairs of text and truth    boolean

A boolean counts as the number 0 or 1, and every number but 0 counts as true.
"""

from enum import StrEnum
from typing import Final

from agent.formats.down.conditions.fault import ConditionFault
from agent.formats.down.conditions.parser import parse
from agent.formats.down.conditions.tree import RISING_EDGES, IsNull, Literal, Node, Operation, Variable

MAX_CHARS: Final = 2_048
"""The limit of FleetWise.  It also bounds the work of an evaluation: some 700 nodes and 146 variables at most."""
MAX_DEPTH: Final = 10

_BOOLEAN_RESULT: Final = frozenset(("==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", RISING_EDGES))
_TEXTS_ALLOWED: Final = frozenset(("+", "==", "!="))


class Type(StrEnum):
    """The types of values."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"


def read_condition(text: str) -> Node:
    """Return the tree of a condition that is right in itself.  Whether its signals exist is not checked here.

    Raises: ConditionFault with the place.
    """
    if not 1 <= len(text) <= MAX_CHARS:
        raise ConditionFault(
            min(len(text), MAX_CHARS) + 1, f"a condition has 1 to {MAX_CHARS:,} characters; this one has {len(text):,}"
        )
    tree = parse(text)
    deep = _first_below(tree, MAX_DEPTH)
    if deep is not None:
        raise ConditionFault(
            deep.place, f"nested deeper than {MAX_DEPTH} levels: balance chains of && and || with parentheses"
        )
    if type_of(tree) is Type.TEXT:
        raise ConditionFault(tree.place, "the condition is a text, which is neither true nor false: compare it")
    return tree


def type_of(node: Node) -> Type:
    """Return the type of a node's value.  Raises: ConditionFault at an operand of the wrong type."""
    if isinstance(node, Literal):
        return _type_of_literal(node)
    if isinstance(node, Variable):
        return Type.NUMBER
    if isinstance(node, IsNull):
        return Type.BOOLEAN
    types = [type_of(operand) for operand in node.operands]
    if node.name == RISING_EDGES:
        _check_pairs(node, types)
    elif Type.TEXT in types:
        text = types.index(Type.TEXT)
        if node.name not in _TEXTS_ALLOWED:
            raise ConditionFault(node.operands[text].place, f"{node.name} does not take a text")
        if any(type_ is not Type.TEXT for type_ in types):
            raise ConditionFault(node.operands[text].place, _text_against_number(node.name))
        return Type.TEXT if node.name == "+" else Type.BOOLEAN
    return Type.BOOLEAN if node.name in _BOOLEAN_RESULT else Type.NUMBER


def _type_of_literal(node: Literal) -> Type:
    if isinstance(node.value, str):
        return Type.TEXT
    return Type.BOOLEAN if isinstance(node.value, bool) else Type.NUMBER


def _check_pairs(node: Operation, types: list[Type]) -> None:
    for place, (operand, type_) in enumerate(zip(node.operands, types, strict=True)):
        if place % 2 == 0 and type_ is not Type.TEXT:
            raise ConditionFault(operand.place, f"the name of a pair of {node.name} must be a text, not a {type_}")
        if place % 2 == 1 and type_ is Type.TEXT:
            raise ConditionFault(operand.place, f"the condition of a pair of {node.name} must not be a text")


def _text_against_number(operator: str) -> str:
    if operator == "+":
        return "a text and a number cannot be added"
    return (
        f"{operator} between a text and a number has no meaning: a signal is a number, so compare it with the number "
        "that the value table of the database gives to the text"
    )


def _first_below(node: Node, levels: int) -> Node | None:
    """Return the first node, in the order of the text, that lies more than `levels` levels deep."""
    if node.depth <= levels:
        return None
    if levels == 0:
        return node
    assert isinstance(node, Operation)
    below = (_first_below(operand, levels - 1) for operand in node.operands)
    return next(found for found in below if found is not None)
