"""Cut a window that is too large for one batch into fragments.  Pure.

Events and samples go into different fragments.  Events are halved.  Samples are cut by time, so that each fragment has
about the same number of samples.  Samples that all have the same time are halved by groups, rows or signals.

Invariant: the fragments hold exactly the samples and events of the window, and each signal's samples keep their order
within a fragment.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.columns import ColumnGroup, Window


def cut(window: Window, count: int) -> list[Window]:
    """Return two to `count` fragments that together hold the content of `window`.

    Fragments with samples are in order of time.  Equal arguments give equal fragments.

    Raises: ValueError if the window has only a single sample or event, which cannot be cut.
    """
    if window.events and window.groups:
        return [replace(window, groups=()), replace(window, events=())]
    if len(window.events) > 1:
        middle = len(window.events) // 2
        return [
            replace(window, events=window.events[:middle]),
            replace(window, events=window.events[middle:]),
        ]
    moments = _moments(window.groups, count)
    if len(moments):
        return _cut_at(window, moments)
    return [replace(window, groups=groups) for groups in _halves(window.groups)]


def _moments(groups: tuple[ColumnGroup, ...], count: int) -> NDArray[np.int64]:
    """Return at most `count - 1` ascending times at which to cut the samples into fragments of about equal size.

    The result is empty if all samples have the same time.
    """
    if not groups:
        return np.empty(0, np.int64)
    times = np.concatenate([group.t_us for group in groups])
    weights = np.concatenate([np.full(len(group.t_us), len(group.signals)) for group in groups])
    order = np.argsort(times, kind="stable")
    times, reached = times[order], np.cumsum(weights[order])
    goals = reached[-1] * np.arange(1, count) // count
    moments = np.unique(times[np.searchsorted(reached, goals, side="right")])
    if moments[0] > times[0]:
        return moments
    later = times[times > times[0]]  # many samples are at the first moment, so the first cut comes right after it
    return np.union1d(moments[1:], later[:1])


def _cut_at(window: Window, moments: NDArray[np.int64]) -> list[Window]:
    starts = [window.start_us, *moments.tolist()]
    ends = [*moments.tolist(), window.end_us]
    fragments: list[list[ColumnGroup]] = [[] for _ in starts]
    for group in window.groups:
        fragment_of = np.searchsorted(moments, group.t_us, side="right")
        ascending = bool((fragment_of[1:] >= fragment_of[:-1]).all())
        for i in np.unique(fragment_of).tolist():
            rows = np.flatnonzero(fragment_of == i)
            # If no time steps back across a cut, a view of the columns saves a copy.
            fragments[i].append(_rows(group, slice(int(rows[0]), int(rows[-1]) + 1) if ascending else rows))
    return [
        replace(window, start_us=start, end_us=end, groups=tuple(groups))
        for start, end, groups in zip(starts, ends, fragments, strict=True)
    ]


def _rows(group: ColumnGroup, rows: NDArray[np.int64] | slice) -> ColumnGroup:
    return replace(group, t_us=group.t_us[rows], raw=group.raw[:, rows])


def _halves(groups: tuple[ColumnGroup, ...]) -> list[tuple[ColumnGroup, ...]]:
    """Divide samples that all have the same time into two halves.  Raises: ValueError for a single sample."""
    if len(groups) > 1:
        middle = len(groups) // 2
        return [groups[:middle], groups[middle:]]
    if groups and len(groups[0].t_us) > 1:
        rows = np.arange(len(groups[0].t_us))
        middle = len(rows) // 2
        return [(_rows(groups[0], rows[:middle]),), (_rows(groups[0], rows[middle:]),)]
    if groups and len(groups[0].signals) > 1:
        return [(_signals(groups[0], slice(None, None, 2)),), (_signals(groups[0], slice(1, None, 2)),)]
    raise ValueError("A single sample or event does not fit into a batch: raise the size limit of batches.")


def _signals(group: ColumnGroup, chosen: slice) -> ColumnGroup:
    numbers = None if group.numbers is None else group.numbers[chosen]
    return replace(
        group, signals=group.signals[chosen], raw=group.raw[chosen], tables=group.tables[chosen], numbers=numbers
    )
