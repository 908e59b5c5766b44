"""Evaluates targeting rules (JsonLogic with the operators of flagd), and counts the operations.

flagd's own evaluator cannot be interrupted.  The results of this file equal those of flagd; a test compares the two.
Operators that take values are flagd's.  This file implements the operators that decide what is evaluated at all:
conditions and loops.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from json_logic.builtins import to_bool

from agent.formats.down.rule_cost import Meter

Operators = Mapping[str, Callable[..., Any]]
RULE_ERRORS: Final = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What the operators of JsonLogic raise for unsuitable operands, as in a division by zero."""


def evaluate(rule: Any, data: Any, operators: Operators, meter: Meter) -> Any:
    """Return the result of `rule` for `data`.  `operators` has the operators whose arguments are evaluated first.

    Raises: Permanent if the rule takes too many operations; any error of an operator of flagd.
    """
    return _Run(operators, meter).result(rule, data)


class _Run:
    """Evaluates one rule.  `meter` counts every operation and ends the evaluation at its limit."""

    def __init__(self, operators: Operators, meter: Meter) -> None:
        self._operators = operators
        self._meter = meter

    def result(self, rule: Any, data: Any) -> Any:
        """Return the result of `rule` for `data`; see `evaluate`."""
        self._meter.count()
        if isinstance(rule, list):
            return [self.result(item, data) for item in rule]
        if not isinstance(rule, dict):
            return rule
        ((operator, arguments),) = rule.items()
        special = _SPECIAL.get(operator)
        if special is not None:
            return special(self, arguments, data)
        values = [self.result(argument, data) for argument in arguments]
        for value in values:
            self._meter.count_value(value)
        return self._operators[operator](data, *values)

    def _if(self, arguments: list[Any], data: Any) -> Any:
        for place in range(0, len(arguments) - 1, 2):
            if to_bool(self.result(arguments[place], data)):
                return self.result(arguments[place + 1], data)
        return self.result(arguments[-1], data) if len(arguments) % 2 else None

    def _and(self, arguments: list[Any], data: Any) -> Any:
        found = None
        for argument in arguments:
            found = self.result(argument, data)
            if not to_bool(found):
                break
        return found

    def _or(self, arguments: list[Any], data: Any) -> Any:
        found = None
        for argument in arguments:
            found = self.result(argument, data)
            if to_bool(found):
                break
        return found

    def _items(self, arguments: list[Any], data: Any) -> list[Any] | None:
        """Return the list that a loop goes through, or None if the first argument is not a list."""
        items = self.result(arguments[0], data)
        return items if isinstance(items, list) else None

    def _filter(self, arguments: list[Any], data: Any) -> list[Any]:
        return [item for item in self._items(arguments, data) or () if to_bool(self.result(arguments[1], item))]

    def _map(self, arguments: list[Any], data: Any) -> list[Any]:
        return [self.result(arguments[1], item) for item in self._items(arguments, data) or ()]

    def _reduce(self, arguments: list[Any], data: Any) -> Any:
        items = self._items(arguments, data)
        # flagd does not evaluate the start value either, so it must be a literal.
        context = {"accumulator": arguments[2] if len(arguments) > 2 else None}
        for item in items or ():
            context["current"] = item
            context["accumulator"] = self.result(arguments[1], context)
        return context["accumulator"]

    def _all(self, arguments: list[Any], data: Any) -> bool:
        items = self._items(arguments, data)
        # JsonLogic defines that `all` is false for an empty list.
        return bool(items) and all(to_bool(self.result(arguments[1], item)) for item in items or ())

    def _some(self, arguments: list[Any], data: Any) -> bool:
        return any(to_bool(self.result(arguments[1], item)) for item in self._items(arguments, data) or ())

    def _none(self, arguments: list[Any], data: Any) -> bool:
        return not self._some(arguments, data)


_SPECIAL: Final[Mapping[str, Callable[[_Run, list[Any], Any], Any]]] = {
    "if": _Run._if,
    "and": _Run._and,
    "or": _Run._or,
    "filter": _Run._filter,
    "map": _Run._map,
    "reduce": _Run._reduce,
    "all": _Run._all,
    "some": _Run._some,
    "none": _Run._none,
}
