"""Decides whether two audiences can have a vehicle in common.  Pure.

It takes the field `custom` of signed targets (`agent.formats.down.audience`), and looks at nothing but the audiences,
because vehicles are enrolled later, too.  A field with the digests of vehicles can be compared only with a field for
the same document, so the caller makes the new field with the hash of the document that is already published.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_Rule = Mapping[str, Any]


def may_meet(one: object, other: object) -> bool:
    """Return whether a vehicle could belong to both audiences."""
    return any(_may_meet(a, b) for a in _rules(one) for b in _rules(other))


def _rules(custom: object) -> Sequence[_Rule]:
    """Return the rules of an audience; a vehicle must match one of them.  A target without an audience is for all."""
    audience = custom.get("audience", {}) if isinstance(custom, Mapping) else {}
    return audience if isinstance(audience, list) else [audience]


def _may_meet(one: _Rule, other: _Rule) -> bool:
    """Return False only if both rules list values of one attribute and share none of them."""
    return all(
        bool(set(one[key]) & set(other[key]))
        for key in one.keys() & other.keys()
        if isinstance(one[key], list) and isinstance(other[key], list)
    )
