"""Decodes with asammdf, a vectorised decoder that measurement engineers use.

The frames are written to an MF4 file once.  The measurement covers opening the file, `extract_bus_logging`, and reading
every channel as numbers.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from asammdf import MDF, Signal, Source
from asammdf.blocks.utils import load_can_database
from asammdf.blocks.v4_constants import BUS_TYPE_CAN, SOURCE_BUS

from bench.columns import Columns
from bench.drives import Drive
from can_dbc.frames import CLASSIC_BYTES, EXTENDED, FrameBlock

logging.getLogger("asammdf").setLevel(logging.ERROR)
_FIELDS = [
    ("BusChannel", "<u1"),
    ("ID", "<u4"),
    ("IDE", "<u1"),
    ("DLC", "<u1"),
    ("DataLength", "<u1"),
]


class AsammdfDecoder:
    """Decodes one file with the whole drive, which costs asammdf less than one file for each window."""

    def __init__(self, drive: Drive, folder: Path) -> None:
        self._file = folder / f"{drive.name}.mf4"
        self._buses = drive.block.buses
        _write(drive.block, self._file)
        self._databases = [
            (load_can_database(file), self._buses.index(bus) + 1)
            for bus, files in drive.databases.items()
            for file in files
            if bus in self._buses
        ]

    def decode(self) -> int:
        """Open the file, extract and read every channel, and return the number of values."""
        return sum(len(values) for _, values in self._channels())

    def columns(self) -> Columns:
        """Return all values as float64."""
        return {key: values.astype(np.float64) for key, values in self._channels() if len(values)}

    def _channels(self) -> "list[tuple[tuple[str, str, str], np.ndarray]]":
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with MDF(self._file) as recording, recording.extract_bus_logging({"CAN": self._databases}) as extracted:
                for number, group in enumerate(cast("list[Any]", extracted.groups)):  # typed as objects by asammdf
                    places = [(channel.name, number, i) for i, channel in enumerate(group.channels) if i]
                    if not places:
                        continue
                    signals = extracted.select(places, ignore_value2text_conversions=True, copy_master=False)
                    source = group.channel_group.acq_source.comment
                    for signal in signals:
                        found.append((_key(signal, source, self._buses), signal.samples))
        return found


def _key(signal: Signal, comment: str, buses: tuple[str, ...]) -> tuple[str, str, str]:
    bus, message, _ = next(name for name, kind in signal.display_names.items() if kind == "bus").split(".", 2)
    return buses[int(bus.removeprefix("CAN")) - 1], message, signal.name


def _write(block: FrameBlock, file: Path) -> None:
    width = CLASSIC_BYTES if block.data.shape[1] == CLASSIC_BYTES else block.data.shape[1]
    fields = [(f"CAN_DataFrame.{name}", kind) for name, kind in _FIELDS]
    frames = np.zeros(len(block), np.dtype([*fields, ("CAN_DataFrame.DataBytes", f"({width},)u1")]))
    frames["CAN_DataFrame.BusChannel"] = block.bus + 1
    frames["CAN_DataFrame.ID"] = block.can_id
    frames["CAN_DataFrame.IDE"] = block.flags & EXTENDED
    frames["CAN_DataFrame.DLC"] = np.minimum(block.length, 15)
    frames["CAN_DataFrame.DataLength"] = block.length
    frames["CAN_DataFrame.DataBytes"] = block.data
    source = Source(source_type=SOURCE_BUS, bus_type=BUS_TYPE_CAN, name="CAN", path="CAN", comment="")
    t_s = np.maximum.accumulate((block.t_ns - block.t_ns[0]) / 1e9)
    with MDF(version="4.10") as recording:
        recording.append(Signal(name="CAN_DataFrame", samples=frames, timestamps=t_s, source=source))
        recording.save(file, overwrite=True)
