"""Reads the condition language: the tree of a text, and the place of what cannot stand there.

This is the slow reader.  It shares no code with the agent's reader.  A place is a range of characters, counted from 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from tests.conditions.tokens import COMPARISONS, Token, Tokens

EXPRESSION = "collectionScheme.conditionBasedCollectionScheme.expression"
OPERANDS: dict[str, tuple[int, int | None]] = {
    "abs": (1, 1),
    "ceil": (1, 1),
    "floor": (1, 1),
    "min": (2, None),
    "max": (2, None),
    "pow": (2, 2),
    "log": (2, 2),
    "MULTI_RISING_EDGE_TRIGGER": (2, None),
}


class Refused(Exception):
    """A document is refused: the field, and for an expression the ranges of characters that the place may lie in.

    There are several ranges if the text has several faults and the specification does not say which one is named.
    """

    def __init__(self, field: str, what: str, *places: tuple[int, int]) -> None:
        super().__init__(f"{field} {' or '.join(f'{first}-{last}' for first, last in places)}: {what}")
        self.field, self.what, self.places = field, what, places

    def allows(self, place: int) -> bool:
        """Return whether a message may name this place, or any if the field has no places."""
        return not self.places or any(first <= place <= last for first, last in self.places)


@dataclass(frozen=True)
class Node:
    """A node of the tree; `kind` is number, bool, text, variable, isNull, operator or function.

    `name` is the operator, the function or the variable, and `value` the value of a literal.  The characters `first`
    to `last` are the node with its parentheses.
    """

    kind: str
    name: str
    value: object
    operands: tuple["Node", ...]
    first: int
    last: int

    @property
    def place(self) -> tuple[int, int]:
        return self.first, self.last


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = Tokens(text)
        self.token = self.tokens.read()

    def take(self) -> Token:
        taken = self.token
        self.token = self.tokens.read()
        return taken

    def is_sign(self, *signs: str) -> bool:
        return self.token.kind == "sign" and self.token.text in signs

    def must(self, kind: str, text: str | None = None) -> Token:
        if self.token.kind != kind or (text is not None and self.token.text != text):
            self.cannot_stand(f"expected {text or kind}")
        return self.take()

    def cannot_stand(self, what: str) -> NoReturn:
        raise Refused(EXPRESSION, f"{what}, found {self.token.text!r}", (self.token.first, self.token.last))

    def chain(self, signs: tuple[str, ...], operand: Callable[["_Reader"], Node]) -> Node:
        left = operand(self)
        while self.is_sign(*signs):
            sign = self.take().text
            right = operand(self)
            left = Node("operator", sign, None, (left, right), left.first, right.last)
        return left

    def condition(self) -> Node:
        return self.chain(("||",), _Reader.conjunction)

    def conjunction(self) -> Node:
        return self.chain(("&&",), _Reader.negation)

    def negation(self) -> Node:
        if self.is_sign("!"):
            mark = self.take()
            operand = self.negation()
            return Node("operator", "!", None, (operand,), mark.first, operand.last)
        return self.comparison()

    def comparison(self) -> Node:
        left = self.sum()
        if not self.is_sign(*COMPARISONS):
            return left
        sign = self.take().text
        right = self.sum()
        if self.is_sign(*COMPARISONS):
            self.cannot_stand("comparisons do not chain")
        return Node("operator", sign, None, (left, right), left.first, right.last)

    def sum(self) -> Node:
        return self.chain(("+", "-"), _Reader.product)

    def product(self) -> Node:
        return self.chain(("*", "/"), _Reader.unary)

    def unary(self) -> Node:
        if not self.is_sign("-"):
            return self.primary()
        minus = self.take()
        if self.token.kind == "number":
            number = self.take()
            return Node("number", "", -float(number.text), (), minus.first, number.last)
        operand = self.primary()
        zero = Node("number", "", 0.0, (), minus.first, operand.last)
        return Node("operator", "-", None, (zero, operand), minus.first, operand.last)

    def primary(self) -> Node:
        token = self.token
        if token.kind in ("number", "text"):
            self.take()
            return Node(token.kind, "", token.value, (), token.first, token.last)
        if token.kind == "variable":
            return self.variable_node()
        if self.is_sign("("):
            self.take()
            inner = self.condition()
            last = self.must("sign", ")").last
            return Node(inner.kind, inner.name, inner.value, inner.operands, token.first, last)
        if token.kind == "word":
            return self.word()
        return self.cannot_stand("expected a value")

    def variable_node(self) -> Node:
        token = self.must("variable")
        return Node("variable", str(token.value), None, (), token.first, token.last)

    def word(self) -> Node:
        word = self.token
        if word.text in ("true", "false"):
            self.take()
            return Node("bool", "", word.text == "true", (), word.first, word.last)
        if word.text == "isNull":
            self.take()
            self.must("sign", "(")
            variable = self.variable_node()
            return Node("isNull", variable.name, None, (), word.first, self.must("sign", ")").last)
        if word.text == "custom_function":
            self.take()
            return self.function(word.first)
        return self.cannot_stand("an unknown word")

    def function(self, first: int) -> Node:
        self.must("sign", "(")
        name = self.must("text")
        if name.value not in OPERANDS:
            raise Refused(EXPRESSION, f"there is no function {name.text}", (name.first, name.last))
        operands = []
        while self.is_sign(","):
            self.take()
            operands.append(self.condition())
        last = self.must("sign", ")").last
        least, most = OPERANDS[str(name.value)]
        odd = name.value == "MULTI_RISING_EDGE_TRIGGER" and len(operands) % 2
        if len(operands) < least or (most is not None and len(operands) > most) or odd:
            raise Refused(EXPRESSION, f"{name.text} has {len(operands)} operands", (name.first, name.last))
        return Node("function", str(name.value), None, tuple(operands), first, last)


def read_tree(text: str) -> Node:
    """Return the tree of an expression.  Raises: Refused with the place."""
    if not 1 <= len(text) <= 2048:
        raise Refused(EXPRESSION, "1 to 2048 characters")
    reader = _Reader(text)
    tree = reader.condition()
    if reader.token.kind != "end":
        reader.cannot_stand("the expression should end")
    return tree
