"""Read a flagd flag definition strictly, before any of its flags is evaluated.  Pure.

The schemas https://flagd.dev/schema/v0/flags.json and targeting.json define what is valid.  The Python evaluator
accepts an empty document (which would remove every flag), a default variant that does not exist, and unknown operators.
All of these are refused here, and the error message names the flag and the fault.  Properties that are not in the
schemas are tolerated, as the schemas demand, and never reach the evaluator.

Invariant: `Toggles.resolved` has only validated content.  Every `$ref` in it is resolved, and its size is bounded even
if the named rules in `$evaluators` refer to each other.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from agent.errors import Permanent, nearest
from agent.formats.down.rule_cost import check_costs
from agent.formats.down.strict import read_object

DOCUMENT_BYTES: Final = 500_000
"""The size limit of one document.  A bundle has a limit as well, but a message about it cannot name the document."""
FLAGS: Final = 2_000
DEPTH: Final = 40
"""The greatest depth of a rule, because the evaluator recurses into rules."""
NODES: Final = 50_000
"""The greatest number of nodes in all rules together, after each `$ref` is resolved."""
SAFE_INTEGER: Final = 2**53 - 1
"""The greatest integer that every JSON reader reads exactly (RFC 8259, section 6)."""
WEIGHTS: Final = 2**31 - 1
"""The greatest sum of the weights of a `fractional` that the evaluator accepts."""

_OPERATORS: Final[Mapping[str, tuple[int, int | None]]] = {
    "var": (1, 2), "missing": (0, None), "missing_some": (2, 2),
    "if": (2, None), "and": (1, None), "or": (1, None), "!": (1, 1), "!!": (1, 1),
    "==": (2, 2), "===": (2, 2), "!=": (2, 2), "!==": (2, 2),
    "<": (2, 3), "<=": (2, 3), ">": (2, 2), ">=": (2, 2),
    "+": (1, None), "-": (1, 2), "*": (2, None), "%": (2, 2), "min": (1, None), "max": (1, None),
    "map": (2, 2), "filter": (2, 2), "reduce": (2, 3), "all": (2, 2), "none": (2, 2), "some": (2, 2),
    "merge": (1, None), "in": (2, 2), "cat": (1, None), "substr": (2, 3),
    "starts_with": (2, 2), "ends_with": (2, 2), "sem_ver": (3, 3), "fractional": (1, None),
}  # fmt: skip
"""The least and the greatest number of arguments of each operator; None means no limit."""
_YES_OR_NO: Final = frozenset(("==", "===", "!=", "!==", "<", "<=", ">", ">=", "!", "!!", "in", "all", "none", "some"))
_RANGES: Final = frozenset(["=", "!=", ">", "<", ">=", "<=", "~", "^"])


class FlagKind(StrEnum):
    """The type that all variants of a flag share."""

    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    OBJECT = "object"


class Toggles(msgspec.Struct, frozen=True):
    """A valid flag definition.

    `kinds` has the kind of each flag by key, `disabled` has the keys of disabled flags, and `resolved` is the JSON text
    for the evaluator.
    """

    kinds: Mapping[str, FlagKind]
    disabled: frozenset[str]
    resolved: str


def parse_toggles(document: bytes, source: str) -> Toggles:
    """Read a flag definition (JSON, UTF-8).

    Raises: Permanent naming `source`, the flag and the fault.
    """
    if len(document) > DOCUMENT_BYTES:
        raise Permanent(
            f"{source}: the flag definition has {len(document):,} bytes; at most {DOCUMENT_BYTES:,} are allowed"
        )
    data = read_object(document, source, "a flag definition (a JSON object with `flags`)")
    flags = data.get("flags")
    if not isinstance(flags, dict) or not flags:
        raise Permanent(f"{source}: `flags` must name at least one flag; an empty document would remove all flags")
    if len(flags) > FLAGS:
        raise Permanent(f"{source}: the flag definition has {len(flags):,} flags; at most {FLAGS:,} are allowed")
    metadata = data.get("metadata", {})
    _check_metadata(metadata, source)
    rules = _Rules(_evaluators(data, source))
    kinds: dict[str, FlagKind] = {}
    disabled: set[str] = set()
    resolved: dict[str, Any] = {}
    for key, flag in flags.items():
        where = f"{source}: flag {key!r}"
        kinds[key], resolved[key] = _flag(key, flag, rules, where)
        # A disabled flag is validated like any other, because enabling it changes one word of the document.
        if flag["state"] == "DISABLED":
            disabled.add(key)
    check_costs({key: flag["targeting"] for key, flag in resolved.items() if "targeting" in flag}, source)
    # The text for the evaluator has only checked properties: unknown properties and `$evaluators` are left out.
    text = json.dumps({"flags": resolved, "metadata": metadata})
    return Toggles(kinds=kinds, disabled=frozenset(disabled), resolved=text)


def _check_metadata(metadata: object, where: str) -> None:
    if not isinstance(metadata, dict) or not all(metadata):
        raise Permanent(f"{where}: `metadata` must be an object without empty names")
    for name, value in metadata.items():
        if not isinstance(value, str | int | float):
            raise Permanent(f"{where}: metadata {name!r} must be a string, a number or a boolean")


def _evaluators(data: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    evaluators = data.get("$evaluators", {})
    if not isinstance(evaluators, dict) or not all(evaluators):
        raise Permanent(f"{source}: `$evaluators` must be an object of named rules")
    return evaluators


def _flag(key: str, flag: object, rules: "_Rules", where: str) -> tuple[FlagKind, dict[str, Any]]:
    if not key:
        raise Permanent(f"{where}: the key of a flag must not be empty")
    if not isinstance(flag, dict):
        raise Permanent(f"{where}: a flag must be an object with `state` and `variants`")
    if flag.get("state") not in ("ENABLED", "DISABLED"):
        raise Permanent(f"{where}: `state` must be ENABLED or DISABLED, not {flag.get('state')!r}")
    variants = flag.get("variants")
    if not isinstance(variants, dict) or not variants or not all(variants):
        raise Permanent(f"{where}: `variants` must have at least one variant, and no empty name")
    kind = _kind(variants, where)
    default = flag.get("defaultVariant")
    if default is not None and (not isinstance(default, str) or default not in variants):
        raise Permanent(f"{where}: `defaultVariant` {default!r} is not one of the variants {', '.join(variants)}")
    metadata = flag.get("metadata", {})
    _check_metadata(metadata, where)
    resolved: dict[str, Any] = {"state": flag["state"], "variants": variants, "metadata": metadata}
    if default is not None:
        resolved["defaultVariant"] = default
    targeting = flag.get("targeting", {})
    if not isinstance(targeting, dict):
        raise Permanent(f"{where}: `targeting` must be a rule (a JSON object)")
    if targeting:
        rule = rules.resolve(targeting, f"{where}: targeting")
        for outcome in _outcomes(rule):
            if outcome not in variants:
                raise Permanent(
                    f"{where}: targeting yields {outcome!r}, which is not one of the variants {', '.join(variants)}"
                )
        resolved["targeting"] = rule
    return kind, resolved


def _kind(variants: Mapping[str, object], where: str) -> FlagKind:
    kinds = {_kind_of(value, where) for value in variants.values()}
    # JSON has only one type of numbers, and writers shorten 1.0 to 1, so a flag may mix integers and floats.
    if kinds == {FlagKind.INTEGER, FlagKind.FLOAT}:
        return FlagKind.FLOAT
    if len(kinds) != 1:
        raise Permanent(f"{where}: all variants must have one type, but these have {', '.join(sorted(kinds))}")
    return kinds.pop()


def _kind_of(value: object, where: str) -> FlagKind:
    match value:
        # In Python a boolean is also an integer, so the case of booleans comes first.
        case bool():
            return FlagKind.BOOLEAN
        case str():
            return FlagKind.STRING
        case int() if abs(value) <= SAFE_INTEGER:
            return FlagKind.INTEGER
        case int():
            raise Permanent(
                f"{where}: the variant value {value} is beyond 2^53, so JSON readers disagree; use a string"
            )
        case float():
            return FlagKind.FLOAT
        case dict():
            return FlagKind.OBJECT
    raise Permanent(
        f"{where}: a variant must be a boolean, a string, a number or an object, not {json.dumps(value)[:40]}"
    )


@dataclass(slots=True)
class _Rules:
    """Checks targeting rules, and replaces every `$ref` in them by the named rule of `evaluators`.

    `nodes` counts the nodes of all rules of the document together, after each `$ref` is resolved.  A limit on this
    count stops references that lead to many further references.
    """

    evaluators: Mapping[str, Any]
    nodes: int = field(default=0)

    def resolve(self, rule: Any, where: str, depth: int = 0) -> Any:
        self.nodes += 1
        # Without these limits ten evaluators that refer to each other ten times each would make 10^10 nodes.
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
            return self.resolve(self.evaluators[arguments], f"{where}: $ref {arguments!r}", depth + 1)
        if operator not in _OPERATORS:
            close = nearest(operator, _OPERATORS)
            remedy = f"did you mean {close!r}?" if close else f"the operators are {', '.join(_OPERATORS)}"
            raise Permanent(f"{where}: there is no operator {operator!r}; {remedy}")
        resolved = self.resolve(arguments if isinstance(arguments, list) else [arguments], where, depth + 1)
        _check_arguments(operator, resolved, where)
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
    total = 0
    for share in shares:
        weight = share[1] if len(share) == 2 else 1
        if isinstance(weight, dict):
            # A progressive roll-out computes its weights from `$flagd.timestamp`; only an evaluation can check them.
            return
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            raise Permanent(f"{where}: the weight {weight!r} of 'fractional' must be a whole number, 0 or more")
        total += weight
    # For any other sum, the evaluator would silently use the default variant.
    if not 0 < total <= WEIGHTS:
        raise Permanent(
            f"{where}: the weights of 'fractional' add up to {total}; the sum must be between 1 and {WEIGHTS}."
        )


def _shares(arguments: list[Any]) -> list[Any]:
    return arguments if isinstance(arguments[0], list) else arguments[1:]


def _outcomes(rule: object) -> Iterator[str]:
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
                    yield from _outcomes(branch)
        case {"fractional": arguments}:
            for share in _shares(arguments):
                yield from _outcomes(share[0])
        # The evaluator uses a boolean result as the name of a variant.
        case dict() if next(iter(rule)) in _YES_OR_NO:
            yield from ("true", "false")
