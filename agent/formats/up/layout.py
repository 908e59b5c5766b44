"""Layouts: how the signals of a window's groups are described in its batch.  Pure.

A batch refers by number to the signals that its catalogue describes.  It describes all others itself, numbered from
the end of the catalogue on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.catalogue import Catalogue
from agent.formats.up.columns import ColumnGroup, Described, occurring
from agent.formats.up.descriptions import wraps_of


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How the S signals of all groups, one after another, are described.

    `numbers` (S,) int64: of entries of the catalogue, or behind them in `described`; None where the batch describes
    all of them in order.  `wraps` (S,) uint8: what their values wrap at, see `delta`.  `described`: what the batch
    describes itself.
    """

    numbers: NDArray[np.int64] | None
    wraps: NDArray[np.uint8]
    described: Sequence[Described]


def layout_of(groups: Sequence[ColumnGroup], catalogue: Catalogue | None) -> Layout:
    """Return the layout of a batch of `groups`, of which there is at least one."""
    if catalogue is None:
        described = [_own(group, row) for group in groups for row in range(len(group.signals))]
        return Layout(None, wraps_of(signal for signal, _ in described), described)
    numbers = catalogue.entries_of(groups)
    missing = np.flatnonzero(numbers < 0)
    if not len(missing):
        return Layout(numbers, catalogue.wraps.take(numbers), ())
    places = [(group, row) for group in groups for row in range(len(group.signals))]
    described = [_own(*places[place]) for place in missing.tolist()]
    numbers[missing] = len(catalogue.described) + np.arange(len(missing))
    wraps = np.concatenate((catalogue.wraps, wraps_of(signal for signal, _ in described)))
    return Layout(numbers, wraps.take(numbers), described)


def _own(group: ColumnGroup, row: int) -> Described:
    """Return the description that travels in the batch itself: only the texts that occur are worth their bytes."""
    signal = group.signals[row]
    return signal, occurring(signal, group.tables[row], group.raw[row])
