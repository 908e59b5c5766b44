"""Generates the frames of the virtual vehicle, encoded with the databases of the demonstration vehicle.

Only this file of the package reads the disk, because it loads the two databases.  The same arguments always give the
same frames, bit for bit, however the drive is cut into blocks.  A verifier can therefore regenerate the frames that a
vehicle sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import cantools.database
import numpy as np
from cantools.database.can import Database, Message

import can_dbc
from can_dbc.frames import FrameBlock, concatenate
from simulator import body, powertrain
from simulator.sender import Bus
from simulator.urban_cycle import UrbanCycle

POWERTRAIN_DBC: Final = Path(can_dbc.__file__).parent / "dbc" / "demo_powertrain.dbc"
BODY_DBC: Final = Path(can_dbc.__file__).parent / "dbc" / "demo_body.dbc"


def frames(
    seed: int,
    start_ns: int,
    duration_s: float | None,
    buses: tuple[str, str] = ("can0", "can1"),
    *,
    chunk_s: int = 1,
) -> Iterator[FrameBlock]:
    """Yield the frames of a drive of `duration_s` seconds in blocks.  If `duration_s` is None, the drive never ends.

    The drive starts at the Unix time `start_ns`, rounded down to a microsecond.  `buses` names the powertrain bus and
    the body bus.  The frames are ordered by their timestamps, which are whole microseconds.  Timestamps rise strictly
    on each bus, but both buses may have a frame at the same time.  A block holds about `chunk_s` seconds, but the
    frames themselves do not depend on `chunk_s`.

    Raises: OSError if the installation lacks the databases.
    """
    start_us = start_ns // 1_000
    # Times are whole microseconds, because sums of floats would differ between one long drive and its chunks.
    end_us = None if duration_s is None else round(duration_s * 1_000_000)
    cycle = UrbanCycle(seed)
    senders = [
        Bus(0, seed, start_us, _messages(POWERTRAIN_DBC), powertrain.SAMPLERS),
        Bus(1, seed, start_us, _messages(BODY_DBC), body.SAMPLERS),
    ]
    begin_us, position = 0, 0
    waiting: FrameBlock | None = None
    while end_us is None or begin_us < end_us:
        until_us = begin_us + chunk_s * 1_000_000
        drive = cycle.advance(chunk_s)
        sent = [bus.send(drive, begin_us, until_us, buses) for bus in senders]
        block = _in_time_order([*([waiting] if waiting else []), *sent])
        # A frame whose transmission ends after this chunk may follow frames of the next chunk, so it waits.
        cut_us = until_us if end_us is None else min(until_us, end_us)
        through = int(np.searchsorted(block.t_ns, (start_us + cut_us) * 1_000))
        waiting = block.slice(through, len(block))
        if through:
            yield replace(block.slice(0, through), first=position)
        position += through
        begin_us = until_us


def _messages(database: Path) -> Sequence[Message]:
    # The simulator needs the cycle times and limits of cantools' objects, which our reader of databases leaves out.
    loaded = cantools.database.load_string(database.read_text(encoding="utf-8"), "dbc")
    assert isinstance(loaded, Database)
    return loaded.messages


def _in_time_order(blocks: list[FrameBlock]) -> FrameBlock:
    block = concatenate(blocks)
    order = np.argsort(block.t_ns, kind="stable")
    return FrameBlock(
        block.t_ns[order],
        block.bus[order],
        block.can_id[order],
        block.flags[order],
        block.length[order],
        block.data[order],
        block.buses,
    )
