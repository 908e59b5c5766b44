"""Bounds the work of evaluating rules, when a document is read and again while a rule runs.  Pure.

A few hundred bytes of nested `map` can cause hours of work.  If a rule depends on the time, it may cause this work only
long after the trial of its release.

The unit of work is the *operation*: a node of a rule that is evaluated, an element of a list that an operator looks at,
or 16 characters of a text.  On a PC, an operation takes 0.3 to 3.4 µs (the slowest is `sem_ver`).

`worst_case` estimates the operations from the rule alone.  The estimate assumes that every branch is taken, and that a
list which is not written in the rule has LIST_ITEMS elements.  When a document is read, a rule whose estimate is too
high is refused.

`Meter` counts the operations while a rule runs.  A rule can still exceed its limit then, if an app sends a longer list,
or if `reduce` builds one up.  In this case, the rule fails for that request only.
"""

from collections.abc import Mapping
from typing import Any, Final

from agent.errors import Permanent

OPERATIONS: Final = 100_000
"""The limit of evaluating one flag once.

A rule without loops stays below the limit, even with all nodes of a document, unless it has very long texts.
"""
DOCUMENT_OPERATIONS: Final = 200_000
"""The limit of evaluating all flags for one request: some 0.5 s on a PC, in which other apps wait.

2,000 flags with a rule of 20 nodes each take 50,000 operations.
"""
LIST_ITEMS: Final = 100
"""The assumed length of a list that an app sends or that an operator makes; lists of features are shorter."""
NESTING: Final = 100
"""The greatest depth of a value that an operator looks at, because operators recurse into lists."""
REMEDY: Final = "use shorter lists and texts, or nest fewer of 'map', 'filter', 'reduce', 'all', 'none' and 'some'"
_TEXT_SHIFT: Final = 4  # 16 characters count as one operation
_WORD_SHIFT: Final = 6  # bits of a machine word
_LOOPS: Final = frozenset(("map", "filter", "reduce", "all", "none", "some"))


class Meter:
    """Counts operations down from `limit`, and in the meter `whole` as well, if there is one.

    `of` says in messages what is counted.
    """

    def __init__(self, limit: int = OPERATIONS, *, whole: "Meter | None" = None, of: str = "the rule") -> None:
        self._limit = self._left = limit
        self._whole = whole
        self._of = of

    def count(self, operations: int = 1) -> None:
        """Count operations.  Raises: Permanent if the count exceeds the limit."""
        self._left -= operations
        if self._left < 0:
            raise Permanent(f"{self._of} takes more than {self._limit:,} operations; {REMEDY}")
        if self._whole is not None:
            self._whole.count(operations)

    def count_value(self, value: object) -> None:
        """Count a value that an operator looks at, with everything in it.

        If a list contains another list several times, the inner list counts each time, because operators look at it
        each time.

        Raises: Permanent if the count exceeds the limit, or if the value nests too deeply.
        """
        waiting = [(value, 0)]
        while waiting:
            one, depth = waiting.pop()
            self.count(_size(one))
            if isinstance(one, list | dict):
                if depth >= NESTING:
                    raise Permanent(f"the rule makes lists that nest deeper than {NESTING}; nest them less")
                self.count(len(one))
                waiting += [(item, depth + 1) for item in (one.values() if isinstance(one, dict) else one)]


def _size(value: object) -> int:
    if isinstance(value, str):
        return 1 + (len(value) >> _TEXT_SHIFT)
    if isinstance(value, int):
        # An integer may have any number of digits, and the time of a multiplication grows with their square.
        return 1 + (value.bit_length() >> _WORD_SHIFT) ** 2
    return 1


def all_flags() -> Meter:
    """Return a meter for evaluating all flags for one request."""
    return Meter(DOCUMENT_OPERATIONS, of="evaluating all flags")


def check_costs(rules: Mapping[str, Any], source: str) -> None:
    """Check the estimates for the rules of a document, which `rules` has by flag.

    Raises: Permanent if an estimate exceeds its limit; the message names `source` and the flag.
    """
    total = 0
    for key, rule in rules.items():
        cost = worst_case(rule)
        total += cost
        if cost > OPERATIONS:
            raise Permanent(
                f"{source}: flag {key!r}: the targeting rule can take {cost:,} operations; "
                f"at most {OPERATIONS:,} are allowed; {REMEDY}"
            )
    if total > DOCUMENT_OPERATIONS:
        raise Permanent(
            f"{source}: the rules of all flags can take {total:,} operations; "
            f"at most {DOCUMENT_OPERATIONS:,} are allowed; {REMEDY}"
        )


def worst_case(rule: Any) -> int:
    """Return an estimate of the operations that `rule` takes.

    Each `$ref` in the rule must be resolved, and the arguments of each operator must be a list.
    """
    if isinstance(rule, list):
        return 1 + sum(worst_case(item) for item in rule)
    if not isinstance(rule, dict):
        return 1 + _size(rule)
    ((operator, arguments),) = rule.items()
    if operator not in _LOOPS:
        return 1 + worst_case(arguments)
    items, body, *rest = arguments
    return 1 + worst_case(items) + worst_case(rest) + _most_items(items) * worst_case(body)


def _most_items(rule: Any) -> int:
    """Return the greatest length of the list that `rule` results in."""
    if isinstance(rule, list):
        return len(rule)
    if not isinstance(rule, Mapping):
        return 1
    ((operator, arguments),) = rule.items()
    match operator:
        case "map" | "filter":
            return _most_items(arguments[0])
        case "merge":
            return sum(_most_items(argument) for argument in arguments)
        case "if" | "and" | "or":
            return max(_most_items(argument) for argument in arguments)
    return LIST_ITEMS
