"""Which samples of a signal table a campaign's rules keep.  Pure.

Samples of a signal come in the order of the bus, in blocks of any size; what is kept does not depend on how they were
cut.  With `onChange` a sample is a candidate if its raw value differs from the one before (the first always is), else
every sample is.  Without a minimum interval every candidate is kept; with one the first is, then each that is at least
the interval after the last kept one.  A time that stepped back is not after, unless by more than CLOCK_SET_BACK_NS:
then the clock was set, and the sample is kept, so that a signal does not stay silent until the clock has caught up.

Signals that keep the same rows are handled together, so the cost is per table and rule, not per signal and sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.signals import SignalBlock

CLOCK_SET_BACK_NS: Final = 60 * 10**9  # frames of one bus are never that far out of order (real ones: 24 ms)
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the signals at `members` are collected (indices into the signals that the campaign collects of the table)."""

    interval_ns: int
    on_change: bool
    members: Rows

    @property
    def keeps_all(self) -> bool:
        """Return whether every sample is kept."""
        return self.interval_ns == 0 and not self.on_change


class Thinning:
    """Chooses among the samples of one table and sender, and remembers across blocks what the rules need.

    `count` is the number of signals that the campaign collects of the table.
    """

    def __init__(self, rules: Sequence[Rule], count: int) -> None:
        self._rules = tuple(rules)
        self._kept_ns = np.zeros(count, np.int64)  # time of the last kept sample of each signal
        self._seen = np.zeros(count, np.int64)  # its last raw value
        self._has_seen = np.zeros(count, np.bool_)  # whether there was one: the first is always kept

    def choose(self, block: SignalBlock, rows: Rows, active: Rows) -> Iterator[tuple[tuple[int, ...], Rows]]:
        """Yield sets of signals that are kept at the same samples, and these samples, ascending.

        `rows` (count,) says in which row of the block each signal stands; `active` are the samples that lie within the
        campaign's time.
        """
        kept: dict[bytes, tuple[Rows, list[int]]] = {}  # by samples, whichever rule led to them
        for rule in self._rules:
            for members, samples in _present(rule.members, rows, block, active):
                for same, chosen in self._apply(rule, members, samples, block, rows):
                    kept.setdefault(chosen.tobytes(), (chosen, []))[1].extend(same.tolist())
        for samples, indices in kept.values():
            yield tuple(indices), samples

    def _apply(
        self, rule: Rule, members: Rows, samples: Rows, block: SignalBlock, rows: Rows
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield which of `members`, all present in `samples`, keep the same samples; remember what they kept."""
        for same, among in self._candidates(rule, members, samples, block, rows):
            if rule.interval_ns == 0:
                chosen = [(same, among)]
            else:
                chosen = [
                    (one, among[_spaced(block.t_ns[among], last_ns, rule.interval_ns)])
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
        """Yield `members` by the time of their last kept sample; None where there is none yet."""
        seen = self._has_seen[members]
        if not seen.all():
            yield members[~seen], None
        members = members[seen]
        for last_ns in np.unique(self._kept_ns[members]).tolist():
            yield members[self._kept_ns[members] == last_ns], last_ns


def _present(members: Rows, rows: Rows, block: SignalBlock, active: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield which of `members` are present in the same active samples, and these samples."""
    if not len(active):
        return
    if block.valid is None:
        yield members, active
        return
    for indices, mask in _alike(block.valid[rows[members]][:, active]):
        if mask.any():
            yield members[indices], active[mask]


def _spaced(t_ns: NDArray[np.int64], last_ns: int | None, interval_ns: int) -> list[int]:
    """Return the indices to keep: each the first that is at least `interval_ns` after the one kept before."""
    if not len(t_ns):
        return []
    reached = np.maximum.accumulate(t_ns)
    if last_ns is not None and last_ns > reached[0]:
        reached = np.maximum(reached, last_ns)
    if (reached - t_ns).max() > CLOCK_SET_BACK_NS:
        return _spaced_by_a_clock_that_was_set(t_ns, last_ns, interval_ns)
    # The first time at or above a threshold is the first place at which the running maximum is.
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
    """Yield rows of (S, n) masks by content: the indices of equal ones, and their mask."""
    alike: dict[bytes, list[int]] = {}
    for index, packed in enumerate(np.packbits(masks, axis=1)):
        alike.setdefault(packed.tobytes(), []).append(index)
    for indices in alike.values():
        yield np.array(indices, np.intp), masks[indices[0]]
