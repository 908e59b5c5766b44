"""Compares two lists of records as section 10 of the specification says."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]


def difference(expected: Iterable[Record], found: Iterable[Record]) -> str | None:
    """Return the first difference in words, or None.  The order of the samples of one trigger does not count."""
    sides: tuple[dict[int, list[Record]], dict[int, list[Record]]] = (defaultdict(list), defaultdict(list))
    for records, side in zip((expected, found), sides, strict=True):
        for record in records:
            side[record["n"]].append(record)
    for number in sorted(sides[0].keys() | sides[1].keys()):
        one, other = (sorted(side[number], key=_key) for side in sides)
        for left, right in zip(one, other, strict=False):
            if _key(left) != _key(right) or not _same(left.get("value"), right.get("value")):
                keys = left.keys() | right.keys()
                differing = ", ".join(sorted(key for key in keys if not _same(left.get(key), right.get(key))))
                return f"{differing} differ in trigger {number}: expected {left}, found {right}"
        if len(one) != len(other):
            longer = one if len(one) > len(other) else other
            extra = longer[min(len(one), len(other))]
            what = f"expected {len(one)} records, found {len(other)}; the first extra is {extra}"
            return f"the number of records differs in trigger {number}: {what}"
    return None


def _key(record: Record) -> str:
    return json.dumps({key: value for key, value in sorted(record.items()) if key != "value"})


def _same(left: object, right: object) -> bool:
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right or abs(left - right) <= 1e-9 * max(abs(left), abs(right))
    return left == right
