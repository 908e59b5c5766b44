"""Layouts: what of a batch follows from the signals of its groups alone, whatever their values.  Pure.

The windows of a campaign mostly hold the same groups of the same signals, so that one layout serves many of them
(`Catalogue.layout`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import ColumnGroup
from agent.formats.up.descriptions import Described, wraps_of


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """`wraps` (S,): what the values of each signal wrap at, see `delta`; `described`: the signals that the batch
    describes itself, in order; `columns`: a serialised `Columns` with sizes, signals and senders."""

    wraps: NDArray[np.uint8]
    described: Sequence[Described]
    columns: bytes


def self_described(groups: Sequence[ColumnGroup]) -> Layout:
    """Of a batch that describes all of its signals itself."""
    described = [entry for group in groups for entry in zip(group.signals, group.texts, strict=True)]
    return Layout(wraps_of(signal for signal, _ in described), described, _columns(groups).SerializeToString())


def referring(
    groups: Sequence[ColumnGroup], numbers: NDArray[np.int64], wraps: NDArray[np.uint8], described: Sequence[Described]
) -> Layout:
    """Of a batch whose signals have `numbers` (S,): of entries of a catalogue, or behind them in `described`."""
    columns = _columns(groups)
    ascent = numbers.copy()
    ascent[1:] -= numbers[:-1] + 1
    columns.signals.extend(ascent.tolist())
    return Layout(wraps, described, columns.SerializeToString())


def _columns(groups: Sequence[ColumnGroup]) -> pb.Columns:
    columns = pb.Columns(sizes=[len(group.signals) for group in groups])
    if any(group.source_address is not None for group in groups):
        columns.senders.extend(0 if group.source_address is None else group.source_address + 1 for group in groups)
    return columns
