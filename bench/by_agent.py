"""Decoding with our own decoder: raw integers of every signal, and their physical values."""

from collections.abc import Sequence

import numpy as np

from bench.columns import Columns, key
from bench.conversions import Conversions
from bench.drives import Drive
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock


class AgentDecoder:
    """Decodes the windows of a drive; compiled once."""

    def __init__(self, drive: Drive, windows: Sequence[FrameBlock]) -> None:
        self._buses = drive.block.buses
        self._windows = windows
        self._decoder = Decoder(drive.plans)
        self._conversions = Conversions()

    def raw(self) -> int:
        """Every raw value; how many."""
        return sum(columns.raw.size for window in self._windows for columns in self._decoder.decode(window).columns)

    def physical(self) -> int:
        """Every physical value as float64, which is what the other decoders give; how many places."""
        return sum(
            self._conversions.physical(columns).size
            for window in self._windows
            for columns in self._decoder.decode(window).columns
        )

    def columns(self) -> Columns:
        """All values."""
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
