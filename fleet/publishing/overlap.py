"""Decides whether two audiences can have a vehicle in common, and whether one contains the other.  Pure.

Both functions take the field `custom` of a signed target (`agent.formats.down.audience`), and look at nothing but the
audiences, because vehicles are enrolled later, too.  A field with the digests of vehicles can be compared only with a
field for the same document, so the caller makes the new field with the hash of the document that is already published.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_Rule = Mapping[str, Any]


def may_meet(one: object, other: object) -> bool:
    """Return whether a vehicle could belong to both audiences."""
    return any(_may_meet(a, b) for a in _rules(one) for b in _rules(other))


def contains(outer: object, inner: object) -> bool:
    """Return whether every vehicle of `inner` belongs to `outer` as well."""
    return all(any(_contains(a, b) for a in _rules(outer)) for b in _rules(inner))


def _rules(custom: object) -> Sequence[_Rule]:
    """Return the rules of an audience, of which a vehicle must match one.  A target without the field is for all."""
    audience = custom.get("audience", {}) if isinstance(custom, Mapping) else {}
    return audience if isinstance(audience, list) else [audience]


def _may_meet(one: _Rule, other: _Rule) -> bool:
    """Return False only if both rules list values of one attribute and share none of them."""
    return all(
        bool(set(one[key]) & set(other[key]))
        for key in one.keys() & other.keys()
        if isinstance(one[key], list) and isinstance(other[key], list)
    )


def _contains(outer: _Rule, inner: _Rule) -> bool:
    return all(key in inner and _is_within(inner[key], allowed) for key, allowed in outer.items())


def _is_within(inner: Any, outer: Any) -> bool:
    if isinstance(inner, list) and isinstance(outer, list):
        return set(inner) <= set(outer)
    # A share of the vehicles contains each smaller share of the same document.
    if isinstance(inner, Mapping) and isinstance(outer, Mapping):
        return inner.get("salt") == outer.get("salt") and inner.get("ppm", 0) <= outer.get("ppm", 0)
    return bool(inner == outer)
