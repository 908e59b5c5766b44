"""Represents sets of whole numbers as intervals that include both ends.  Pure.

The receiver remembers every sequence number for ever.  Intervals need one row for each gap instead of one row for each
batch.
"""

Interval = tuple[int, int]


def joined(number: int, before: Interval | None, after: Interval | None) -> Interval | None:
    """Return the interval that adds `number` to a set of intervals, or None if `before` contains `number` already.

    `before` is the interval with the highest start that is not above `number`.  `after` is the interval with the lowest
    start above `number`.  If one of them is adjacent to `number`, the returned interval includes it, and the caller
    replaces it by the returned interval.
    """
    if before is not None and before[1] >= number:
        return None
    first = before[0] if before is not None and before[1] == number - 1 else number
    last = after[1] if after is not None and after[0] == number + 1 else number
    return first, last
