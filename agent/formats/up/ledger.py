"""Explain every sequence number: which batches are here (stored or waiting), lost or not explained yet.  Pure.

The lake knows which batches it has stored, and the vehicle knows which batches wait.  Both explain all other numbers by
the same loss records, so their answers can be compared number by number.

Invariant: `explain` returns each number from 1 to `last` in exactly one span.

If the acknowledgement of a stored batch does not arrive, the vehicle may later discard the batch and record a loss.  A
batch that is here therefore never counts as lost, even if a loss record names it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from agent.formats.up.losses import Reason

Range = tuple[int, int]
"""A range of sequence numbers: the first and the last, both included."""


class State(StrEnum):
    """The fate of a batch."""

    STORED = "stored"
    # The batch is in the vehicle, and not acknowledged yet.
    WAITING = "waiting"
    LOST = "lost"
    # The batch is neither here nor explained.  The batch, or its loss record, is on the way.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Record:
    """A loss record as a reader sees it.

    `batches` is the number of lost batches, all of one epoch.  Their sequence numbers are in the range from `first_seq`
    to `last_seq`.  The range may also contain numbers of batches that were not lost.

    Reason and lane are text, because a vehicle with newer software may name a reason that the reader does not know.
    Times are microseconds since the Unix epoch.  A record of losses before sealing, such as lost frames, has no
    sequence numbers and explains no batch.
    """

    reason: str
    lane: str | None = None
    batches: int = 0
    samples: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    first_t_us: int | None = None
    last_t_us: int | None = None


class Span(msgspec.Struct, frozen=True):
    """Says what happened to the batches with the sequence numbers `first` to `last`, both included.

    If the batches are lost, `record` is the loss record that explains the loss.  Otherwise it is None.  `exact` is
    False if it is uncertain which batches are lost.  This has two causes:

    - The vehicle merges records when it has too many.  The range of a merged record may include numbers of batches that
      were not lost.
    - The index of the spool was damaged, and its records were lost with it.
    """

    first: int
    last: int
    state: State
    record: Record | None = None
    exact: bool = True

    @property
    def batches(self) -> int:
        """Return how many sequence numbers the span has."""
        return self.last - self.first + 1


def ranges(numbers: Iterable[int]) -> list[Range]:
    """Return `numbers` as ascending ranges of consecutive numbers."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [(first, last) for first, last in found]


def explain(
    last: int, here: Mapping[State, Sequence[Range]], records: Sequence[Record], *, rest: State = State.OPEN
) -> list[Span]:
    """Return the spans of the numbers 1 to `last` of one epoch, in order.

    The ranges in `here` must not overlap.  Numbers that neither `here` nor a record explains get the state `rest`,
    or count as lost if a record says that the index was damaged.
    """
    spans = [Span(*each, state) for state, found in here.items() for each in found]
    free = _without((1, last), [each for found in here.values() for each in found])
    by_width = sorted((r for r in records if _width(r)), key=lambda record: (_width(record), record.first_seq or 0))
    # Narrow records come first, because they name their numbers exactly.  A merged record gets numbers that are left.
    for record in by_width:
        assert record.first_seq is not None
        assert record.last_seq is not None
        taken, free = _take(free, (record.first_seq, record.last_seq), record.batches)
        exact = _width(record) == record.batches
        spans += [Span(*each, State.LOST, record, exact) for each in taken]
    damaged = [record for record in records if record.reason == Reason.INDEX_DAMAGED]
    # The records that would have explained the remaining numbers were lost with the index.
    if damaged:
        spans += [Span(*each, State.LOST, damaged[0], exact=False) for each in free]
    else:
        spans += [Span(*each, rest) for each in free]
    return sorted(spans, key=lambda span: span.first)


def _width(record: Record) -> int:
    """Return how many numbers are in the range of the record, or 0 if the record has no range or counts no batches."""
    if record.first_seq is None or record.last_seq is None or not record.batches:
        return 0
    return record.last_seq - record.first_seq + 1


def _without(whole: Range, taken: Iterable[Range]) -> list[Range]:
    free = []
    start, end = whole
    for first, last in sorted(taken):
        if first > start:
            free.append((start, min(first - 1, end)))
        start = max(start, last + 1)
    if start <= end:
        free.append((start, end))
    return free


def _take(free: list[Range], within: Range, count: int) -> tuple[list[Range], list[Range]]:
    """Take the first `count` numbers of `free` that are in the range `within`.

    Return the ranges taken, and the ranges of `free` that are left.
    """
    taken: list[Range] = []
    begin = bisect_left(free, within[0], key=lambda each: each[1])
    end = begin
    left: list[Range] = []
    while end < len(free) and free[end][0] <= within[1]:
        first, last = free[end]
        end += 1
        from_, to = max(first, within[0]), min(last, within[1])
        to = min(to, from_ + count - 1)
        count -= max(to - from_ + 1, 0)
        if to < from_:
            left.append((first, last))
            continue
        taken.append((from_, to))
        left += [each for each in ((first, from_ - 1), (to + 1, last)) if each[0] <= each[1]]
    return taken, free[:begin] + left + free[end:]
