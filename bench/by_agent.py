"""Decodes with our own decoder, to the raw integers of all signals or to their physical values."""

from collections.abc import Sequence

import numpy as np

from bench.columns import Columns, key
from bench.conversions import Conversions
from bench.drives import Drive
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock


class AgentDecoder:
    """Decodes the windows of a drive with plans that are compiled beforehand."""

    def __init__(self, drive: Drive, windows: Sequence[FrameBlock]) -> None:
        self._buses = drive.block.buses
        self._windows = windows
        self._decoder = Decoder(drive.plans)
        self._conversions = Conversions()

    def raw(self) -> int:
        """Decode all raw values, and return how many there are."""
        return sum(columns.raw.size for window in self._windows for columns in self._decoder.decode(window).columns)

    def physical(self) -> int:
        """Decode all physical values as float64, as the other decoders do, and return how many there are.

        The count includes values of multiplexed signals in frames that do not carry them.
        """
        return sum(
            self._conversions.physical(columns).size
            for window in self._windows
            for columns in self._decoder.decode(window).columns
        )

    def columns(self) -> Columns:
        """Return the physical values of all signals, for each signal only from the frames that carry it."""
        parts: dict[tuple[str, str, str], list[np.ndarray]] = {}
        for window in self._windows:
            for columns in self._decoder.decode(window).columns:
                for row, (index, values) in enumerate(
                    zip(columns.signals, self._conversions.physical(columns), strict=True)
                ):
                    shown = values if columns.valid is None else values[columns.valid[row]]
                    signal = columns.message.signals[index]
                    if len(shown):
                        bus, sender = self._buses[columns.bus], columns.source_address
                        name = key(bus, columns.message.name, signal.name, sender)
                        parts.setdefault(name, []).append(shown)
        return {name: np.concatenate(values) for name, values in parts.items()}
