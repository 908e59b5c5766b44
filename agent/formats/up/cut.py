"""Cutting a window that is too large for one batch.  Pure.

Invariant: the parts hold exactly the samples and events of the window, and each names what it replaces; each signal's
samples keep their order within a part.  Cutting is by time, at moments that balance the samples; only where one
moment alone is too large is it cut by events, groups, rows and signals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.columns import ColumnGroup, TableTexts, Window

_FEW: Final = 4  # texts that are looked for one by one


def cut(window: Window, parts: int) -> list[Window]:
    """Two to `parts` windows in order of time that together are `window`.  Raises ValueError for a single
    sample.

    Equal windows are cut equally.
    """
    if window.events and window.groups:
        return [replace(window, groups=()), replace(window, events=())]
    if len(window.events) > 1:
        middle = len(window.events) // 2
        return [
            replace(window, events=window.events[:middle]),
            replace(window, events=window.events[middle:]),
        ]
    moments = _moments(window.groups, parts)
    if len(moments):
        return _cut_at(window, moments)
    return [replace(window, groups=groups) for groups in _halves(window.groups)]


def _moments(groups: tuple[ColumnGroup, ...], parts: int) -> NDArray[np.int64]:
    """At most `parts - 1` times, ascending, between which lie about equally many samples."""
    if not groups:
        return np.empty(0, np.int64)
    times = np.concatenate([group.t_us for group in groups])
    weights = np.concatenate([np.full(len(group.t_us), len(group.signals)) for group in groups])
    order = np.argsort(times, kind="stable")
    times, reached = times[order], np.cumsum(weights[order])
    goals = reached[-1] * np.arange(1, parts) // parts
    moments = np.unique(times[np.searchsorted(reached, goals, side="right")])
    if moments[0] > times[0]:
        return moments
    later = times[times > times[0]]  # most samples at the first moment: part with that
    return np.union1d(moments[1:], later[:1])


def _cut_at(window: Window, moments: NDArray[np.int64]) -> list[Window]:
    starts = [window.start_us, *moments.tolist()]
    ends = [*moments.tolist(), window.end_us]
    pieces: list[list[ColumnGroup]] = [[] for _ in starts]
    for group in window.groups:
        part = np.searchsorted(moments, group.t_us, side="right")
        ascending = bool((part[1:] >= part[:-1]).all())
        for i in np.unique(part).tolist():
            rows = np.flatnonzero(part == i)
            # Times that do not step back across a cut: the part is a view of the columns, not a copy.
            pieces[i].append(_rows(group, slice(int(rows[0]), int(rows[-1]) + 1) if ascending else rows))
    return [
        replace(window, start_us=start, end_us=end, groups=tuple(piece))
        for start, end, piece in zip(starts, ends, pieces, strict=True)
    ]


def _rows(group: ColumnGroup, rows: NDArray[np.int64] | slice) -> ColumnGroup:
    raw = group.raw[:, rows]
    return replace(group, t_us=group.t_us[rows], raw=raw, texts=_texts(group.texts, raw))


def _texts(texts: Sequence[Mapping[int, str]], raw: NDArray[np.int64]) -> Sequence[Mapping[int, str]]:
    if isinstance(texts, TableTexts):
        return texts.of(raw)
    return tuple(_occurring(table, row) if table else table for table, row in zip(texts, raw, strict=True))


def _occurring(table: Mapping[int, str], raw: NDArray[np.int64]) -> Mapping[int, str]:
    """Only the texts of values that still occur."""
    present = set(raw.tolist()) if len(table) > _FEW else {value for value in table if (raw == value).any()}
    return {value: text for value, text in table.items() if value in present}


def _halves(groups: tuple[ColumnGroup, ...]) -> list[tuple[ColumnGroup, ...]]:
    """Two halves of what happened at one moment."""
    if len(groups) > 1:
        middle = len(groups) // 2
        return [groups[:middle], groups[middle:]]
    if groups and len(groups[0].t_us) > 1:
        rows = np.arange(len(groups[0].t_us))
        middle = len(rows) // 2
        return [(_rows(groups[0], rows[:middle]),), (_rows(groups[0], rows[middle:]),)]
    if groups and len(groups[0].signals) > 1:
        return [(_signals(groups[0], slice(None, None, 2)),), (_signals(groups[0], slice(1, None, 2)),)]
    raise ValueError("a single sample or event does not fit into a batch: raise the limit of its size")


def _signals(group: ColumnGroup, chosen: slice) -> ColumnGroup:
    return replace(group, signals=group.signals[chosen], raw=group.raw[chosen], texts=group.texts[chosen])
