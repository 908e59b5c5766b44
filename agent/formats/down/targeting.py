"""Check targeting rules before any of them is evaluated, and bring them into a form that all evaluators read alike.

The schema https://flagd.dev/schema/v0/targeting.json defines which operators there are.  Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.errors import Permanent, nearest

DEPTH: Final = 40
"""The greatest depth of a rule, because the evaluator recurses into rules."""
NODES: Final = 50_000
"""The greatest number of nodes in all rules together, after each `$ref` is resolved."""
SAFE_INTEGER: Final = 2**53 - 1
"""The greatest integer that every JSON reader reads exactly (RFC 8259, section 6)."""
WEIGHTS: Final = 2**31 - 1
"""The greatest sum of the weights of a `fractional` that the evaluator accepts."""
COMPUTED_SHARES: Final = 8
"""The most shares of a `fractional` whose weights are rules; `vehicle_rules` repeats each weight for each share."""

_OPERATORS: Final[Mapping[str, tuple[int, int | None]]] = {
    "var": (1, 2), "missing": (0, None), "missing_some": (2, 2),
    "if": (1, None), "and": (1, None), "or": (1, None), "!": (1, 1), "!!": (1, 1),
    "==": (2, 2), "===": (2, 2), "!=": (2, 2), "!==": (2, 2),
    "<": (2, 3), "<=": (2, 3), ">": (2, 2), ">=": (2, 2),
    "+": (1, None), "-": (1, None), "*": (1, None), "/": (2, 2), "%": (2, 2), "min": (1, None), "max": (1, None),
    "map": (2, 2), "filter": (2, 2), "reduce": (2, 3), "all": (2, 2), "none": (2, 2), "some": (2, 2),
    "merge": (1, None), "in": (2, 2), "cat": (1, None), "substr": (2, 3),
    "starts_with": (2, 2), "ends_with": (2, 2), "sem_ver": (3, 3), "fractional": (1, None),
}  # fmt: skip
"""The least and the greatest number of arguments of each operator; None means no limit."""
_YES_OR_NO: Final = frozenset(("==", "===", "!=", "!==", "<", "<=", ">", ">=", "!", "!!", "in", "all", "none", "some"))
_RANGES: Final = frozenset(["=", "!=", ">", "<", ">=", "<=", "~", "^"])


@dataclass(slots=True)
class Rules:
    """Checks targeting rules, and replaces every `$ref` in them by the named rule of `evaluators`.

    `nodes` counts the nodes of all rules of the document together, after each `$ref` is resolved.  A limit on this
    count stops references that lead to many further references.
    """

    evaluators: Mapping[str, Any]
    nodes: int = field(default=0)

    def resolve(self, rule: Any, where: str, depth: int = 0) -> Any:
        """Return `rule` without `$ref`, and with a list as the arguments of each operator.

        Raises: Permanent, which names `where` and the fault.
        """
        self.nodes += 1
        # Without these limits, ten evaluators, each of which refers to the next one ten times, would make 10^10 nodes.
        if depth > DEPTH or self.nodes > NODES:
            raise Permanent(
                f"{where}: rules nest deeper than {DEPTH} or have more than {NODES} nodes; "
                "check for a $ref that leads back to itself"
            )
        if isinstance(rule, list):
            return [self.resolve(item, where, depth + 1) for item in rule]
        if not isinstance(rule, dict):
            return rule
        # The Python evaluator would treat an object with two keys as data, and return it unchanged.
        if len(rule) != 1:
            raise Permanent(f"{where}: a rule must have exactly one operator, but this has {', '.join(rule) or 'none'}")
        ((operator, arguments),) = rule.items()
        if operator == "$ref":
            if not isinstance(arguments, str) or arguments not in self.evaluators:
                raise Permanent(f"{where}: $ref {arguments!r} is not among `$evaluators`")
            # A message names the innermost reference only, because a chain of them would fill a receipt.
            outside = where.partition(": $ref ")[0]
            return self.resolve(self.evaluators[arguments], f"{outside}: $ref {arguments!r}", depth + 1)
        if operator not in _OPERATORS:
            close = nearest(operator, _OPERATORS)
            remedy = f"did you mean {close!r}?" if close else f"the operators are {', '.join(_OPERATORS)}"
            raise Permanent(f"{where}: there is no operator {operator!r}; {remedy}")
        resolved = self.resolve(arguments if isinstance(arguments, list) else [arguments], where, depth + 1)
        _check_arguments(operator, resolved, where)
        if operator == "-" and len(resolved) > 2:
            # The schema allows more than two arguments, but half of the evaluators, Python's among them, ignore the
            # third (https://github.com/jwadhams/json-logic-js/issues/128).  All of them compute this form alike.
            return {"-": [resolved[0], {"+": resolved[1:]}]}
        return {operator: resolved}


def _check_arguments(operator: str, arguments: list[Any], where: str) -> None:
    least, most = _OPERATORS[operator]
    if len(arguments) < least or (most is not None and len(arguments) > most):
        wanted = f"{least}" if least == most else f"{least} to {most}" if most else f"at least {least}"
        raise Permanent(f"{where}: {operator!r} takes {wanted} arguments, not {len(arguments)}")
    match operator:
        case "var":
            if not isinstance(arguments[0], str | int | dict):
                raise Permanent(f"{where}: the argument of 'var' must name an attribute of the context")
            # An app may send any attribute, so a misspelt attribute is found only among the attributes of flagd itself.
            name = arguments[0]
            if isinstance(name, str) and name.startswith("$flagd.") and name[7:] not in ("flagKey", "timestamp"):
                raise Permanent(f"{where}: {name!r} does not exist; use $flagd.flagKey or $flagd.timestamp")
        case "starts_with" | "ends_with":
            if not all(isinstance(argument, str | dict) for argument in arguments):
                raise Permanent(f"{where}: the arguments of {operator!r} must be strings")
        case "sem_ver":
            if not isinstance(arguments[1], str) or arguments[1] not in _RANGES:
                raise Permanent(f"{where}: the second argument of 'sem_ver' must be one of {' '.join(sorted(_RANGES))}")
        case "fractional":
            _check_fractional(arguments, where)


def _check_fractional(arguments: list[Any], where: str) -> None:
    shares = _shares(arguments)
    if not shares or not all(isinstance(share, list) and 1 <= len(share) <= 2 for share in shares):
        raise Permanent(f"{where}: 'fractional' takes an optional bucketing rule and then [variant, weight] pairs")
    weights = [share[1] if len(share) == 2 else 1 for share in shares]
    if any(isinstance(weight, dict) for weight in weights):
        # A progressive roll-out computes its weights from `$flagd.timestamp`; only an evaluation can check them.
        if len(shares) > COMPUTED_SHARES or any(_has_fractional(weight) for weight in weights):
            raise Permanent(
                f"{where}: a 'fractional' whose weights are rules takes at most {COMPUTED_SHARES} shares, "
                "and no 'fractional' in its weights"
            )
        return
    total = 0
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            raise Permanent(f"{where}: the weight {weight!r} of 'fractional' must be a whole number, 0 or more")
        total += weight
    # For any other sum, the evaluator would silently use the default variant.
    if not 0 < total <= WEIGHTS:
        raise Permanent(
            f"{where}: the weights of 'fractional' add up to {total}; the sum must be between 1 and {WEIGHTS}."
        )


def _has_fractional(rule: Any) -> bool:
    if isinstance(rule, dict):
        return "fractional" in rule or any(_has_fractional(inner) for inner in rule.values())
    return isinstance(rule, list) and any(_has_fractional(inner) for inner in rule)


def _shares(arguments: list[Any]) -> list[Any]:
    return arguments if isinstance(arguments[0], list) else arguments[1:]


def outcomes(rule: object) -> Iterator[str]:
    """Yield the variants that `rule` names as its results.

    A computed result, such as text that `cat` joins, is left out, because only an evaluation can check it.
    """
    match rule:
        case bool():
            yield str(rule).lower()
        case str():
            yield rule
        case int() | float():
            yield str(rule)
        # The arguments of `if` alternate conditions and results; the last one is the result for all other cases.
        case {"if": branches}:
            for index, branch in enumerate(branches):
                if index % 2 or (index == len(branches) - 1):
                    yield from outcomes(branch)
        case {"fractional": arguments}:
            for share in _shares(arguments):
                yield from outcomes(share[0])
        # The evaluator uses a boolean result as the name of a variant.
        case dict() if next(iter(rule)) in _YES_OR_NO:
            yield from ("true", "false")
