"""Writes logs for tests as plain text, and reads them into plain values."""

from pathlib import Path
from typing import NamedTuple

from agent.sources.replay import read_blocks
from can_dbc.frames import BRS, ERROR, ESI, EXTENDED, FD, REMOTE


class Logged(NamedTuple):
    """One frame: Unix time in microseconds, bus, identifier, data in hex, and flags as letters of "xfrebs".

    The letters stand for a 29-bit identifier (x), CAN FD (f), a remote request (r), an error frame (e), the bit-rate
    switch (b) and the error state indicator (s).
    """

    t_us: int
    bus: str
    can_id: int
    data: str
    flags: str = ""


_LETTERS = {"x": EXTENDED, "f": FD, "r": REMOTE, "e": ERROR, "b": BRS, "s": ESI}


def read(path: Path, zone: str = "UTC") -> tuple[list[Logged], list[str]]:
    """Return all frames of a log, and its notes without the name of the file."""
    notes: list[str] = []
    frames = [
        Logged(
            int(block.t_ns[row]) // 1000,
            block.buses[block.bus[row]],
            int(block.can_id[row]),
            block.data[row, : block.length[row]].tobytes().hex(),
            "".join(letter for letter, flag in _LETTERS.items() if block.flags[row] & flag),
        )
        for block in read_blocks(path, tell=notes.append, zone=zone)
        for row in range(len(block))
    ]
    return frames, [note.removeprefix(f"{path.name}: ") for note in notes]


def read_text(folder: Path, name: str, text: str, zone: str = "UTC") -> tuple[list[Logged], list[str]]:
    """Write `text` to a log of the given name and read it."""
    path = folder / name
    path.write_text(text)
    return read(path, zone)
