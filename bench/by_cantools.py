"""Decodes with cantools frame by frame, as a Python script does today.

The script calls `message.decode` with its default arguments.
"""

from collections import defaultdict
from typing import cast

import cantools.database
import numpy as np
from cantools.database.can import Database, Message

from bench.columns import Columns, key
from bench.drives import Drive
from can_dbc.frames import ERROR, EXTENDED, REMOTE
from can_dbc.plan import Match, match_key


class CantoolsDecoder:
    """Decodes the frames of a drive.

    The message of each frame is looked up beforehand, which favours cantools.
    """

    def __init__(self, drive: Drive) -> None:
        block = drive.block
        messages: dict[tuple[int, int], Message] = {}
        for bus, files in drive.databases.items():
            if bus not in block.buses:
                continue
            number = block.buses.index(bus)
            of_bus: dict[tuple[int, int], Message] = {}
            for file in files:
                database = cantools.database.load_file(file, strict=False)
                assert isinstance(database, Database)
                of_file = {
                    (number, match_key(m.frame_id, m.is_extended_frame, drive.match)): m for m in database.messages
                }
                of_bus = {**of_file, **of_bus}
            messages |= of_bus
        self._buses = block.buses
        self._frames: list[tuple[int, int | None, Message, bytes]] = []
        self._by_name: dict[str, list[tuple[Message, bytes]]] = {}
        columns = (block.bus, block.can_id, block.flags, block.length)
        for row, (bus, can_id, flags, length) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            if flags & (REMOTE | ERROR):
                continue
            message = messages.get((bus, match_key(can_id, bool(flags & EXTENDED), drive.match)))
            if message is not None:
                sender = can_id & 0xFF if drive.match is Match.PGN and flags & EXTENDED else None
                self._frames.append((bus, sender, message, block.data[row, :length].tobytes()))

    @property
    def frames(self) -> int:
        """Return the number of frames that have a message in the databases."""
        return len(self._frames)

    def decode_message(self, name: str) -> None:
        """Decode every frame of the messages that are called `name`."""
        for message, data in self._of_message(name):
            message.decode(data)

    def _of_message(self, name: str) -> list[tuple[Message, bytes]]:
        if name not in self._by_name:
            self._by_name[name] = [(message, data) for *_, message, data in self._frames if message.name == name]
        return self._by_name[name]

    def decode(self) -> None:
        """Decode every frame, with texts and scaling, as cantools does by default."""
        for _, _, message, data in self._frames:
            message.decode(data)

    def columns(self) -> Columns:
        """Return all values as numbers, without texts."""
        values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for bus, sender, message, data in self._frames:
            for signal, value in cast("dict[str, float]", message.decode(data, decode_choices=False)).items():
                values[key(self._buses[bus], message.name, signal, sender)].append(value)
        return {name: np.array(numbers, np.float64) for name, numbers in values.items()}
