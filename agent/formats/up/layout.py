"""Decide how a batch describes the signals of its window: by its catalogue or by itself.  Pure.

A batch refers by number to the signals that its catalogue describes.  The batch itself describes all other signals, and
their numbers follow the last number of the catalogue.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.up.catalogue import Catalogue
from agent.formats.up.columns import ColumnGroup, Described, occurring
from agent.formats.up.descriptions import wraps_of


class Layout(msgspec.Struct, frozen=True, eq=False):
    """Says where the description of each signal is: in the catalogue, or in the batch itself.

    The S signals are those of all groups, in order.  `described` has the descriptions in the batch itself.  `wraps`
    (S,) has the wrap of each signal, see `delta`.

    `numbers` (S,) has the number of each signal's description.  If the catalogue has m entries, numbers below m are its
    entries, and number m + i is element i of `described`.  `numbers` is None if there is no catalogue; element i of
    `described` then describes signal i.
    """

    numbers: NDArray[np.int64] | None
    wraps: NDArray[np.uint8]
    described: Sequence[Described]


def layout_of(groups: Sequence[ColumnGroup], catalogue: Catalogue | None) -> Layout:
    """Return the layout of a batch with these `groups`, of which there must be at least one."""
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
    """Return a description, for the batch itself, of the signal in row `row` of `group`.

    The value table in it has only the texts of values that occur.
    """
    signal = group.signals[row]
    return signal, occurring(signal, group.tables[row], group.raw[row])
