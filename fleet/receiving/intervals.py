"""Represents sets of whole numbers as intervals that include both ends.  Pure.

The receiver remembers every sequence number for ever.  Intervals need one row for each gap instead of one row for each
batch.
"""

Interval = tuple[int, int]


def joined(number: int, before: Interval | None, after: Interval | None) -> Interval | None:
    """Return the interval that `number` forms with its neighbours, or None if `before` contains `number` already.

    `before` is the last interval that begins at or before `number`.  `after` is the first interval that begins after
    `number`.  The caller replaces the neighbours that the result contains.
    """
    if before is not None and before[1] >= number:
        return None
    first = before[0] if before is not None and before[1] == number - 1 else number
    last = after[1] if after is not None and after[0] == number + 1 else number
    return first, last
