"""Parses the formulas of `math` in a mapping, and computes them.  Pure.

The language is that of py-expression-eval 0.3.14, because the formulas of users were written for it.  A formula becomes
a list of steps for a stack.  Each operator waits until one of at most its own priority comes, so operators of the same
priority group from the left, and `2^3^2` is 64.  Some combinations do not exist in that language, such as `2*-x`,
because the minus comes before its operand and has the priority of `*`.  They are found by a trial run over the steps.

Two operands without an operator between them, and backslashes in texts, are refused here.
"""

from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import msgspec

from agent.formats.down.mapping.operations import BINARY, FAULTS, FUNCTIONS, NOT_REPEATABLE, PREFIX, UNARY, bounded
from agent.formats.down.mapping.tokens import FormulaError, Sort, Token, tokens

_CALL: Final = "a call"
_COMMA: Final = ","
_INSIDE: Final = 10
"""What a pair of parentheses adds to the priorities inside."""
_PREFIX_PRIORITY: Final = 9
_COMMA_PRIORITY: Final = -1
_CALL_PRIORITY: Final = -2


class _Is(Enum):
    VALUE = auto()
    LIST = auto()
    FUNCTION = auto()


class _Step(NamedTuple):
    """One step: push `value` or the value of `name`, or replace `operands` values on the stack by what is computed."""

    place: int
    text: str
    operands: int
    priority: int = 0
    value: Any = None
    name: str = ""
    compute: Callable[..., Any] | None = None


class Formula(msgspec.Struct, frozen=True):
    """A parsed formula; `names` are the values that it uses."""

    text: str
    steps: tuple[_Step, ...]
    names: frozenset[str]

    def value(self, values: Mapping[str, float | int | str]) -> Any:
        """Return the value of the formula, or None if the computation fails.

        `values` has a value for each of `names`.
        """
        try:
            return self._computed(values)
        except FAULTS:
            return None

    def _computed(self, values: Mapping[str, float | int | str]) -> Any:
        stack: list[Any] = []
        for step in self.steps:
            if step.name:
                stack.append(values[step.name])
            elif step.text == _COMMA:
                last, before = stack.pop(), stack.pop()
                stack.append([*before, last] if isinstance(before, list) else [before, last])
            elif step.text == _CALL:
                operands, function = stack.pop(), stack.pop()
                stack.append(bounded(function, *(operands if isinstance(operands, list) else (operands,))))
            elif step.compute is not None:
                operands = stack[-step.operands :]
                del stack[-step.operands :]
                stack.append(bounded(step.compute, *operands))
            else:
                stack.append(step.value)
        return stack[0]


def parse_formula(text: str, names: Collection[str]) -> Formula:
    """Parse a formula over values with these names.  Raises: FormulaError, with the place of the fault."""
    parser = _Parser(names)
    for token in tokens(text):
        parser.take(token)
    steps = tuple(parser.steps)
    _try(steps)
    return Formula(text, steps, frozenset(step.name for step in steps if step.name))


class _Parser:
    """Orders the steps of a formula as its tokens come.

    `operand` says whether an operand must come next, `sign` whether a sign or `not` may, and `call` whether a
    parenthesis would be a call.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._waiting: list[_Step] = []
        self._inside = 0
        self._operand = True
        self._sign = True
        self._call = False
        self._opened = False
        self.steps: list[_Step] = []

    def take(self, token: Token) -> None:
        """Take the next token.  Raises: FormulaError if it cannot stand here."""
        opened, self._opened = self._opened, token.sort is Sort.OPEN
        match token.sort:
            case Sort.VALUE:
                self._push(token, _Step(token.place, token.text, 0, value=token.value))
            case Sort.NAME:
                self._name(token)
            case Sort.OPERATOR:
                self._operator(token)
            case Sort.OPEN:
                self._open(token)
            case Sort.CLOSE if opened and self._operand:
                self._push(token, _Step(token.place, "()", 0, value=[]))
                self._close(token)
            case Sort.CLOSE:
                self._close(token)
            case Sort.COMMA:
                self._after_operand(token)
                self._wait(_Step(token.place, _COMMA, 2, _COMMA_PRIORITY))
            case Sort.END:
                self._end(token)

    def _push(self, token: Token, step: _Step, *, call: bool = False) -> None:
        self._expect_operand(token)
        self.steps.append(step)
        self._operand, self._sign, self._call = False, False, call

    def _expect_operand(self, token: Token) -> None:
        if not self._operand:
            raise FormulaError(token.place, f"an operator is missing before {token.text}")
        if not self._sign:
            raise FormulaError(token.place, f"a parenthesis is missing before {token.text}")

    def _name(self, token: Token) -> None:
        name = token.text
        if name in self._names:
            self._push(token, _Step(token.place, name, 0, name=name), call=True)
        elif name in PREFIX:
            self._expect_operand(token)
            self._wait(_Step(token.place, name, 1, _PREFIX_PRIORITY, compute=PREFIX[name]))
            self._sign = False
        elif name in FUNCTIONS:
            self._push(token, _Step(token.place, name, 0, value=FUNCTIONS[name]), call=True)
        elif name in NOT_REPEATABLE:
            raise FormulaError(token.place, f"{name} gives another value each time, so it is refused")
        else:
            known = ", ".join(sorted(self._names))
            raise FormulaError(token.place, f"{name} is neither a value ({known}) nor a function nor a constant")

    def _operator(self, token: Token) -> None:
        text = token.text
        if self._operand and self._sign and text in ("-", "+", "not"):
            if text != "+":
                self._wait(_Step(token.place, text, 1, UNARY[text][0], compute=UNARY[text][1]))
            return
        if text == "not":
            raise FormulaError(token.place, "not cannot stand here")
        self._after_operand(token)
        self._wait(_Step(token.place, text, 2, BINARY[text][0], compute=BINARY[text][1]))

    def _after_operand(self, token: Token) -> None:
        if self._operand:
            raise FormulaError(token.place, f"a value is missing before {token.text}")
        self._operand, self._sign, self._call = True, True, False

    def _open(self, token: Token) -> None:
        self._inside += _INSIDE
        if not self._operand:
            if not self._call:
                raise FormulaError(token.place, "an operator is missing before the parenthesis")
            self._wait(_Step(token.place, _CALL, 2, _CALL_PRIORITY))
        self._operand, self._sign, self._call = True, True, False

    def _close(self, token: Token) -> None:
        if self._operand or not self._inside:
            raise FormulaError(token.place, "the parenthesis closes nothing")
        self._inside -= _INSIDE
        self._call = True

    def _end(self, token: Token) -> None:
        if self._operand:
            raise FormulaError(token.place, "the formula ends where a value must stand")
        if self._inside:
            raise FormulaError(token.place, "a parenthesis is not closed")
        self.steps += reversed(self._waiting)

    def _wait(self, step: _Step) -> None:
        """Let an operator wait for its last operand, behind those that come first."""
        step = step._replace(priority=step.priority + self._inside)
        while self._waiting and step.priority <= self._waiting[-1].priority:
            self.steps.append(self._waiting.pop())
        self._waiting.append(step)


def _try(steps: Collection[_Step]) -> None:
    """Check that each step finds its operands, and that functions are called and nothing else is."""
    stack: list[_Is] = []
    for step in steps:
        if len(stack) < step.operands:
            raise FormulaError(step.place, f"{step.text} cannot stand here; put its operand in parentheses")
        operands = stack[len(stack) - step.operands :]
        del stack[len(stack) - step.operands :]
        if step.text == _CALL:
            if operands[0] is not _Is.FUNCTION:
                raise FormulaError(step.place, "only a function can be called; an operator may be missing")
            stack.append(_Is.VALUE)
        elif _Is.FUNCTION in operands:
            raise FormulaError(step.place, f"{step.text} has a function as operand; put the call in parentheses")
        elif step.text == _COMMA:
            stack.append(_Is.LIST)
        elif step.value in FUNCTIONS.values() if callable(step.value) else False:
            stack.append(_Is.FUNCTION)
        else:
            stack.append(_Is.LIST if isinstance(step.value, list) else _Is.VALUE)
    if len(stack) != 1 or stack[0] is not _Is.VALUE:
        raise FormulaError(0, "the formula is not one value")
