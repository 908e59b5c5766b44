"""Represents sets of whole numbers as intervals that include both ends.  Pure.

The receiver remembers every sequence number for ever.  Intervals need one row for each gap instead of one row for each
batch.
"""

Interval = tuple[int, int]


def joined(number: int, before: Interval | None, after: Interval | None) -> Interval | None:
    """Return the interval that a set of intervals gets when `number` is added, or None if the set contains `number`.

    `before` is the last interval of the set that starts at or below `number`, and `after` is the next one.  If `number`
    is adjacent to one or both of them, the returned interval includes them, and the caller replaces them.  For example:

        joined(5, (1, 4), (6, 9)) == (1, 9)
        joined(5, (1, 3), (8, 9)) == (5, 5)
    """
    if before is not None and before[1] >= number:
        return None
    first = before[0] if before is not None and before[1] == number - 1 else number
    last = after[1] if after is not None and after[0] == number + 1 else number
    return first, last


def without(number: int, interval: Interval) -> list[Interval]:
    """Return the intervals that remain when `number` is taken out of `interval`, which contains it.  For example:

    without(5, (1, 9)) == [(1, 4), (6, 9)]
    """
    first, last = interval
    return [rest for rest in ((first, number - 1), (number + 1, last)) if rest[0] <= rest[1]]
