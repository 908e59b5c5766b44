"""Rewrite targeting rules for one vehicle, so that they ask only for what an app sends.  Pure.

OFREP and flagd's file must give an app the same answer, but the readers of the file differ from OFREP in two ways:

- They do not know the vehicle.  A rule over `brand` or `vehicle` has no value for them.
- They put a vehicle into another share of a `fractional`.  All hash with murmur3, but flagd itself and most of its
  libraries hash the plain text, and the Python library has hashed CBOR since 2.0
  (https://github.com/open-feature/flagd/issues/1737).

Both differences vanish if the vehicle works out everything that it knows before an app asks.  OFREP and the file then
share one rewritten rule, which has constants in place of the facts about the vehicle and of its shares:

    published             {"if": [{"==": [{"var": "brand"}, "Aria"]}, {"fractional": [["on", 10], ["off", 90]]}, "off"]}
    for this vehicle      "off"
    for an app that has   {"fractional": [["on", 10], ["off", 90]]}
    its own targetingKey
    rewritten             {"if": [<the app has no key of its own>, "off", {"fractional": [["on", 10], ["off", 90]]}]}

A `fractional` over a value that the app sends stays a `fractional`, because only the reader knows the value.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from json_logic.builtins import to_bool

from agent.errors import Permanent
from agent.formats.down.rules import RULE_ERRORS
from agent.formats.down.targeting import SAFE_INTEGER, WEIGHTS

TARGETING_KEY: Final = "targetingKey"
FLAGD: Final = "$flagd"
Calculate = Callable[[Any, Mapping[str, Any]], Any]
"""Returns the result of a rule for data, or raises Permanent or one of RULE_ERRORS."""

_LOOPS: Final = frozenset(("map", "filter", "reduce", "all", "none", "some"))
_CONSTANT_CHARS: Final = 10_000
"""The length of the longest result that replaces a rule; a rule that builds a longer text or list stays a rule."""


def rule_for_vehicle(rule: Any, key: str, facts: Mapping[str, Any], calculate: Calculate) -> dict[str, Any]:
    """Return the `targeting` of flag `key` for the vehicle with these `facts`, one of which is its `targetingKey`.

    Every `$ref` in `rule` must be resolved, and the arguments of each operator must be a list.
    """
    known = {**facts, FLAGD: {"flagKey": key}}
    alone = _Vehicle(known, calculate).settle(rule)
    with_own_key = _Vehicle({name: known[name] for name in known if name != TARGETING_KEY}, calculate).settle(rule)
    settled = alone
    if alone != with_own_key:
        sent = {"var": [TARGETING_KEY]}
        # Libraries have null, "" or nothing where an app has no key of its own.
        no_own_key = {"or": [{"!": [sent]}, {"==": [sent, facts[TARGETING_KEY]]}]}
        settled = {"if": [no_own_key, alone, with_own_key]}
    # A targeting must be a rule.  With a constant rule the reason of an answer stays TARGETING_MATCH, as published.
    return settled if isinstance(settled, dict) else {"if": [True, settled]}


class _Vehicle:
    """Replaces the parts of a rule that depend only on `known`, the facts that the vehicle has."""

    def __init__(self, known: Mapping[str, Any], calculate: Calculate) -> None:
        self._known = known
        self._calculate = calculate

    def settle(self, rule: Any) -> Any:
        """Return `rule` with a constant in place of every part that the vehicle can work out by itself."""
        if isinstance(rule, list):
            return [self.settle(item) for item in rule]
        if not isinstance(rule, dict):
            return rule
        ((operator, arguments),) = rule.items()
        # Inside a loop, `var` reads the element of the list, so only the list itself can depend on the vehicle.
        settled = [self.settle(arguments[0]), *arguments[1:]] if operator in _LOOPS else self.settle(arguments)
        special = _SPECIAL.get(operator)
        if special is not None:
            return special(self, settled)
        closed = settled[:1] if operator in _LOOPS else settled
        return self._calculated({operator: settled}) if _is_constant(closed) else {operator: settled}

    def _calculated(self, rule: dict[str, Any]) -> Any:
        try:
            value = self._calculate(rule, self._known)
        except (Permanent, *RULE_ERRORS):
            # The rule may stand in a branch that is never taken, so it is kept, and fails only if the branch is taken.
            return rule
        return value if _is_constant(value) and len(json.dumps(value)) <= _CONSTANT_CHARS else rule

    def _knows(self, name: Any) -> bool:
        """Return whether `name` is a path to a fact.  The time of `$flagd` is not a fact, because it changes."""
        return isinstance(name, str) and (
            name == f"{FLAGD}.flagKey" or (name.split(".")[0] in self._known and name.split(".")[0] != FLAGD)
        )

    def _var(self, arguments: list[Any]) -> Any:
        rule = {"var": arguments}
        return self._calculated(rule) if self._knows(arguments[0]) and _is_constant(arguments[1:]) else rule

    def _present(self, name: Any) -> bool:
        return self._knows(name) and self._calculated({"var": [name]}) not in (None, "")

    def _missing(self, arguments: list[Any]) -> Any:
        if not _is_constant(arguments):
            return {"missing": arguments}
        names = arguments[0] if arguments and isinstance(arguments[0], list) else arguments
        rest = [name for name in names if not self._present(name)]
        return {"missing": rest} if rest else []

    def _missing_some(self, arguments: list[Any]) -> Any:
        least, names = arguments
        if not _is_number(least) or not isinstance(names, list) or not _is_constant(names):
            return {"missing_some": arguments}
        rest = [name for name in names if not self._present(name)]
        still = least - (len(names) - len(rest))
        return {"missing_some": [still, rest]} if still > 0 else []

    def _fractional(self, arguments: list[Any]) -> Any:
        own_rule = not isinstance(arguments[0], list)
        by, shares = (arguments[:1], arguments[1:]) if own_rule else ([], arguments)
        if not _is_constant(by) or not (own_rule or TARGETING_KEY in self._known):
            return {"fractional": arguments}
        if _is_constant(shares):
            return self._calculated({"fractional": arguments})
        place = self._place(by)
        return {"fractional": arguments} if place is None else _share_at(place, shares)

    def _place(self, by: list[Any]) -> float | None:
        """Return the place between 0 and 1 of the vehicle among the shares, or None if the evaluator refuses `by`.

        The evaluator does not return its hash.  Asking it about ever smaller shares finds the hash in 31 steps,
        whatever hash function the evaluator uses.
        """
        least, most = 0, WEIGHTS - 1
        while least < most:
            middle = (least + most) // 2
            halves = [["low", middle + 1], ["high", WEIGHTS - middle - 1]]
            match self._calculated({"fractional": [*by, *halves]}):
                case "low":
                    most = middle
                case "high":
                    least = middle + 1
                case _:
                    return None
        return (least + 0.5) / WEIGHTS


_SPECIAL: Final[Mapping[str, Callable[[_Vehicle, list[Any]], Any]]] = {
    "var": _Vehicle._var,
    "if": lambda _, arguments: _if(arguments),
    "missing": _Vehicle._missing,
    "missing_some": _Vehicle._missing_some,
    "fractional": _Vehicle._fractional,
}


def _share_at(place: float, shares: Sequence[list[Any]]) -> dict[str, Any]:
    """Return a rule without `fractional` for the share at `place`, whose weights are computed when an app asks."""
    # The evaluator takes a negative weight as 0, too.
    weights = [{"max": [0, share[1]]} if len(share) == 2 else 1 for share in shares]
    total = {"+": weights}
    reached = {"*": [place, total]}
    # The evaluator has no share for a greater total.
    branches: list[Any] = [{">": [total, WEIGHTS]}, None]
    for number, share in enumerate(shares, start=1):
        branches += [{"<": [reached, {"+": weights[:number]}]}, share[0]]
    return {"if": [*branches, None]}


def _if(arguments: list[Any]) -> Any:
    """Return an `if` without the branches that a constant condition rules out."""
    while len(arguments) > 1 and _is_constant(arguments[0]):
        if to_bool(arguments[0]):
            return arguments[1]
        arguments = arguments[2:]
    if not arguments:
        return None
    return arguments[0] if len(arguments) == 1 else {"if": arguments}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_constant(value: Any) -> bool:
    """Return whether `value` has no operator in it, and every JSON reader reads it alike."""
    if isinstance(value, list):
        return all(_is_constant(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= SAFE_INTEGER
    return value is None or isinstance(value, str)
