"""Read a flagd flag definition strictly, before any of its flags is evaluated.  Pure.

The schemas https://flagd.dev/schema/v0/flags.json and targeting.json define what is valid.  The Python evaluator
accepts an empty document (which would remove every flag), a default variant that does not exist, and unknown operators.
All of these are refused here, and the error message names the flag and the fault.  Properties that are not in the
schemas are tolerated, as the schemas demand, and never reach the evaluator.

Invariant: `Toggles.resolved` has only validated content.  Every `$ref` in it is resolved, and its size is bounded even
if the named rules in `$evaluators` refer to each other.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from agent.errors import Permanent, did_you_mean
from agent.formats.down.rule_cost import check_costs
from agent.formats.down.strict import read_object
from agent.formats.down.targeting import SAFE_INTEGER, Rules, outcomes
from agent.formats.down.validity import read_validity, refuse_in_set

DOCUMENT_BYTES: Final = 500_000
"""The size limit of one document.  A bundle has a limit as well, but a message about it cannot name the document."""
FLAGS: Final = 2_000
_PROPERTIES: Final = ("state", "variants", "defaultVariant", "targeting", "metadata")
NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,60}")
"""The names of documents, which become a step of the path of a target."""
FLAG_SET_ID: Final = "flagSetId"
"""The name of a document, in its `metadata`.  flagd calls it by this name, too, and returns it with each evaluation."""


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
    for the evaluator.  `name` is the `flagSetId` in the document's metadata, or empty.
    """

    kinds: Mapping[str, FlagKind]
    disabled: frozenset[str]
    resolved: str
    name: str = ""


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
    refuse_in_set(metadata, source)
    name = metadata.get(FLAG_SET_ID, "")
    if name != "" and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise Permanent(
            f"{source}: metadata {FLAG_SET_ID!r} is the name of the document; it must have 1 to 60 letters, digits, "
            f"'_', '-', '.' or ':', not {name!r:.80}"
        )
    rules = Rules(_evaluators(data, source))
    kinds: dict[str, FlagKind] = {}
    disabled: set[str] = set()
    resolved: dict[str, Any] = {}
    for key, flag in flags.items():
        where = f"{source}: flag {key!r}"
        kinds[key], resolved[key] = _flag(key, flag, rules, where)
        # The terms stay in the metadata, where the vehicle reads them again (`validities_in`).
        read_validity(resolved[key], where)
        # A disabled flag is validated like any other, because enabling it changes one word of the document.
        if flag["state"] == "DISABLED":
            disabled.add(key)
    check_costs({key: flag["targeting"] for key, flag in resolved.items() if "targeting" in flag}, source)
    # The text for the evaluator has only checked properties: unknown properties and `$evaluators` are left out.
    text = json.dumps({"flags": resolved, "metadata": metadata})
    return Toggles(kinds=kinds, disabled=frozenset(disabled), resolved=text, name=name)


def union(definitions: Sequence[Toggles]) -> Toggles:
    """Return one definition with the flags of all `definitions`, which must not share a flag.

    As in flagd, the metadata of a definition becomes metadata of each of its flags, unless the flag has its own.
    """
    if len(definitions) == 1:
        return definitions[0]
    flags: dict[str, Any] = {}
    for definition in definitions:
        content = json.loads(definition.resolved)
        for key, flag in content["flags"].items():
            flags[key] = {**flag, "metadata": {**content["metadata"], **flag["metadata"]}}
    return Toggles(
        kinds={key: kind for definition in definitions for key, kind in definition.kinds.items()},
        disabled=frozenset().union(*(definition.disabled for definition in definitions)),
        resolved=json.dumps({"flags": flags, "metadata": {}}),
    )


def check_union(definitions: Sequence[Toggles], source: str) -> None:
    """Check the limits that all flags of a vehicle have together.  Raises: Permanent naming `source`."""
    count = sum(len(definition.kinds) for definition in definitions)
    if count > FLAGS:
        raise Permanent(f"{source}: one vehicle gets {count:,} flags; at most {FLAGS:,} are allowed")
    rules = [json.loads(definition.resolved)["flags"] for definition in definitions]
    check_costs(
        {key: flag["targeting"] for flags in rules for key, flag in flags.items() if "targeting" in flag}, source
    )


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


def _flag(key: str, flag: object, rules: Rules, where: str) -> tuple[FlagKind, dict[str, Any]]:
    if not key:
        raise Permanent(f"{where}: the key of a flag must not be empty")
    if not isinstance(flag, dict):
        raise Permanent(f"{where}: a flag must be an object with `state` and `variants`")
    _refuse_misspelt(flag, where)
    if flag.get("state") not in ("ENABLED", "DISABLED"):
        raise Permanent(f"{where}: `state` must be ENABLED or DISABLED, not {flag.get('state')!r}")
    variants = flag.get("variants")
    if not isinstance(variants, dict) or not variants or not all(variants):
        raise Permanent(f"{where}: `variants` must have at least one variant, and no empty name")
    kind = _kind(variants, where)
    default = flag.get("defaultVariant")
    if default is not None and (not isinstance(default, str) or default not in variants):
        raise Permanent(
            f"{where}: `defaultVariant` {default!r} is not one of the variants; name one of {_quoted(variants)}"
        )
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
        for outcome in outcomes(rule):
            if outcome not in variants:
                raise Permanent(
                    f"{where}: targeting yields {outcome!r}, which is not one of the variants; name one of "
                    f"{_quoted(variants)}"
                )
        resolved["targeting"] = rule
    return kind, resolved


def _quoted(variants: Mapping[str, object]) -> str:
    return ", ".join(map(repr, variants))


def _refuse_misspelt(flag: Mapping[str, object], where: str) -> None:
    """Refuse an unknown property that is like a known one which the flag does not have.

    The schema tolerates unknown properties, but a misspelt `targeting` would give every vehicle the default.
    """
    missing = [name for name in _PROPERTIES if name not in flag]
    for name in flag:
        if name not in _PROPERTIES and (remedy := did_you_mean(name, missing)):
            raise Permanent(f"{where}: unknown property {name[:60]!r}; {remedy}")


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
