"""Sets of whole numbers as intervals, whose ends are both included.  Pure.

The receiver remembers every sequence number for ever.  As intervals they cost one row for each gap, not one for each
batch.
"""

Interval = tuple[int, int]


def joined(number: int, before: Interval | None, after: Interval | None) -> Interval | None:
    """Return the interval that `number` forms with its neighbours, or None where one of them contains it already.

    `before` is the interval that begins last at or before `number`; `after` is the one that begins first behind it.
    The caller replaces the neighbours that the result touches.
    """
    if before is not None and before[1] >= number:
        return None
    first = before[0] if before is not None and before[1] == number - 1 else number
    last = after[1] if after is not None and after[0] == number + 1 else number
    return first, last
