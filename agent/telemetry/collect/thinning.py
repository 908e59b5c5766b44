"""Chooses the samples of a signal table that a campaign's rules keep.  This file is pure.

Samples of a signal come in the order of their frames on the bus.  They come in blocks of any size, and the choice does
not depend on the size of the blocks.

With `onChange`, a sample is a candidate if its raw value differs from the one before.  The first sample always is a
candidate.  Without `onChange`, every sample is a candidate.

Without a minimum interval, every candidate is kept.  With an interval, the first candidate is kept, and then each one
that is at least the interval after the last kept one.  If the time steps back by more than CLOCK_SET_BACK_NS, the clock
was set.  Then the next candidate is kept, because otherwise the signal would stay silent until the clock has caught up.

Signals whose kept samples have the same times are handled together.  The cost thus grows with the number of tables and
rules, not with the number of signals and samples.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.up.signals import SignalBlock

CLOCK_SET_BACK_NS: Final = 60 * 10**9  # frames of one bus are never that far out of order (real frames: 24 ms)
Rows = NDArray[np.intp]


class Rule(msgspec.Struct, frozen=True, eq=False):
    """A rule and the signals that it applies to.

    `members` has the indices of these signals among the signals that the campaign collects from the table.
    """

    interval_ns: int
    on_change: bool
    members: Rows

    @property
    def keeps_all(self) -> bool:
        """Return whether every sample is kept."""
        return self.interval_ns == 0 and not self.on_change


class Thinning:
    """Chooses among the samples of one table and sender, and remembers across blocks what the rules need.

    `count` is the number of signals that the campaign collects from the table.
    """

    def __init__(self, rules: Sequence[Rule], count: int) -> None:
        self._rules = tuple(rules)
        self._kept_ns = np.zeros(count, np.int64)  # time of the last kept sample of each signal
        self._seen = np.zeros(count, np.int64)  # last raw value of each signal
        self._has_seen = np.zeros(count, np.bool_)  # whether each signal had a sample; the first one is always kept

    def choose(self, block: SignalBlock, rows: Rows, active: Rows) -> Iterator[tuple[tuple[int, ...], Rows]]:
        """Yield each set of signals that keep the same samples, with the ascending indices of these samples.

        `rows` (count,) has the row of each signal in the block.  `active` has the indices of the samples that lie
        within the campaign's time.
        """
        kept: dict[bytes, tuple[Rows, list[int]]] = {}  # by the kept samples; several rules may keep the same ones
        for rule in self._rules:
            for members, samples in _present(rule.members, rows, block, active):
                for same, chosen in self._apply(rule, members, samples, block, rows):
                    kept.setdefault(chosen.tobytes(), (chosen, []))[1].extend(same.tolist())
        for samples, indices in kept.values():
            yield tuple(indices), samples

    def _apply(
        self, rule: Rule, members: Rows, samples: Rows, block: SignalBlock, rows: Rows
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield each set of `members` that keep the same samples, with these samples.

        The time of the last kept sample of each signal is remembered.  All `members` must be present in `samples`.
        """
        for same, among in self._candidates(rule, members, samples, block, rows):
            if rule.interval_ns == 0:
                chosen = [(same, among)]
            else:
                chosen = [
                    (one, among[spaced(block.t_ns[among], last_ns, rule.interval_ns)])
                    for one, last_ns in self._by_last_kept(same)
                ]
            for one, kept in chosen:
                self._has_seen[one] = True
                if len(kept):
                    self._kept_ns[one] = block.t_ns[kept[-1]]
                    yield one, kept

    def _candidates(
        self, rule: Rule, members: Rows, samples: Rows, block: SignalBlock, rows: Rows
    ) -> list[tuple[Rows, Rows]]:
        if not rule.on_change:
            return [(members, samples)]
        raw = block.raw[rows[members][:, None], samples]
        changed = np.empty(raw.shape, np.bool_)
        changed[:, 1:] = raw[:, 1:] != raw[:, :-1]
        changed[:, 0] = (raw[:, 0] != self._seen[members]) | ~self._has_seen[members]
        self._seen[members] = raw[:, -1]
        return [(members[indices], samples[mask]) for indices, mask in _alike(changed)]

    def _by_last_kept(self, members: Rows) -> Iterator[tuple[Rows, int | None]]:
        """Yield `members` grouped by the time of their last kept sample, which is None if there is none yet."""
        seen = self._has_seen[members]
        if not seen.all():
            yield members[~seen], None
        members = members[seen]
        for last_ns in np.unique(self._kept_ns[members]).tolist():
            yield members[self._kept_ns[members] == last_ns], last_ns


def _present(members: Rows, rows: Rows, block: SignalBlock, active: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield each set of `members` that are present in the same active samples, with the indices of these samples."""
    if not len(active):
        return
    if block.valid is None:
        yield members, active
        return
    for indices, mask in _alike(block.valid[rows[members]][:, active]):
        if mask.any():
            yield members[indices], active[mask]


def spaced(t_ns: NDArray[np.int64], last_ns: int | None, interval_ns: int) -> list[int]:
    """Return the indices of the times to keep.

    Each time to keep is the first that lies `interval_ns` or more after the time kept before it.  `last_ns` is the time
    kept last in earlier blocks, or None.
    """
    if not len(t_ns):
        return []
    reached = np.maximum.accumulate(t_ns)
    if last_ns is not None and last_ns > reached[0]:
        reached = np.maximum(reached, last_ns)
    if (reached - t_ns).max() > CLOCK_SET_BACK_NS:
        return _spaced_by_a_clock_that_was_set(t_ns, last_ns, interval_ns)
    # The running maximum reaches a threshold at the same index at which a time first reaches it.
    place = 0 if last_ns is None else int(reached.searchsorted(last_ns + interval_ns))
    kept = []
    while place < len(t_ns):
        kept.append(place)
        place = int(reached.searchsorted(int(t_ns[place]) + interval_ns))
    return kept


def _spaced_by_a_clock_that_was_set(t_ns: NDArray[np.int64], last_ns: int | None, interval_ns: int) -> list[int]:
    kept = []
    for place, time_ns in enumerate(t_ns.tolist()):
        if last_ns is None or time_ns >= last_ns + interval_ns or time_ns < last_ns - CLOCK_SET_BACK_NS:
            kept.append(place)
            last_ns = time_ns
    return kept


def _alike(masks: NDArray[np.bool_]) -> Iterator[tuple[Rows, NDArray[np.bool_]]]:
    """Group the rows of `masks` (S, n) that are equal; yield the indices of each group and the mask that they share."""
    alike: dict[bytes, list[int]] = {}
    for index, packed in enumerate(np.packbits(masks, axis=1)):
        alike.setdefault(packed.tobytes(), []).append(index)
    for indices in alike.values():
        yield np.array(indices, np.intp), masks[indices[0]]
