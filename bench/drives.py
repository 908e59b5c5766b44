"""Provides the input of all measurements: the captures beside the checkout, or the demonstration vehicle.

A `Drive` holds frames in memory and the databases that decode them.  Frames that cantools refuses (too short, or with
an unlisted multiplexer number) are left out, so that every decoder has the same work and must give the same values.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.sources.replay import read_blocks
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock, concatenate
from can_dbc.plan import BusPlan, Match
from simulator.frames import BODY_DBC, POWERTRAIN_DBC, frames

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
CLASSIC: Final = "can"
VEHICLE_S: Final = 90.0


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """Holds the frames of one drive, and the databases that decode them.

    The keys of `databases` are bus names, and the keys of `plans` are bus indices.  `kind` is the name of the folder
    that holds the capture.  The folder `can` holds captures of cars.
    """

    name: str
    kind: str
    block: FrameBlock
    databases: dict[str, list[Path]]
    match: Match
    plans: dict[int, BusPlan]

    @property
    def seconds(self) -> float:
        """Return the time from the first frame to the last."""
        return float(self.block.t_ns.max() - self.block.t_ns.min()) / 1e9

    def windows(self, seconds: float) -> list[FrameBlock]:
        """Return the frames, cut into windows of `seconds`, as views."""
        t_ns = np.maximum.accumulate(self.block.t_ns)
        starts_ns = np.arange(t_ns[0], t_ns[-1], round(seconds * 1e9))[1:]
        cuts = [0, *np.searchsorted(t_ns, starts_ns).tolist(), len(t_ns)]
        return [self.block.slice(start, stop) for start, stop in pairwise(cuts) if stop > start]


def recorded() -> Iterator[Drive]:
    """Yield every capture that captures.toml pairs with databases, or nothing if the data is absent."""
    if not DATA.is_dir():
        return
    for entry in tomllib.loads((DATA / "captures.toml").read_text())["capture"]:
        if entry["dbc"]:
            log = DATA / entry["file"]
            databases = {bus: [DATA / file for file in files] for bus, files in entry["dbc"].items()}
            yield drive(_title(log), log.parent.name, _read(log), databases, Match(entry.get("match", "exact")))


def demonstration(seconds: float = VEHICLE_S) -> Drive:
    """Return a drive of the virtual vehicle, which is the same every time."""
    block = concatenate(list(frames(1, 1_700_000_000 * 10**9, seconds)))
    databases = {"can0": [POWERTRAIN_DBC], "can1": [BODY_DBC]}
    return drive("virtual_vehicle", CLASSIC, block, databases, Match.EXACT)


def drive(name: str, kind: str, block: FrameBlock, databases: dict[str, list[Path]], match: Match) -> Drive:
    """Return a drive without the frames that the decoders refuse; frames of unknown identifiers stay."""
    plans = {
        block.buses.index(bus): compile_plan([load(file) for file in files], match)
        for bus, files in databases.items()
        if bus in block.buses
    }
    return Drive(name, kind, _accepted(block, plans), databases, match, plans)


def _accepted(block: FrameBlock, plans: dict[int, BusPlan]) -> FrameBlock:
    decoded = Decoder(plans).decode(block)
    refused = {(r.bus, r.can_id, r.extended) for r in decoded.refusals if r.message is not None}
    if not refused:
        return block
    keep = np.ones(len(block), np.bool_)
    for bus, can_id, extended in refused:
        keep &= ~((block.bus == bus) & (block.can_id == can_id) & ((block.flags & 1).astype(bool) == extended))
    keep[np.concatenate([columns.rows for columns in decoded.columns])] = True
    return chosen(block, keep)


def chosen(block: FrameBlock, keep: NDArray[np.bool_]) -> FrameBlock:
    """Return a block with only the frames that `keep` (n,) marks."""
    return FrameBlock(
        block.t_ns[keep],
        block.bus[keep],
        block.can_id[keep],
        block.flags[keep],
        block.length[keep],
        np.ascontiguousarray(block.data[keep]),
        block.buses,
    )


def _read(log: Path) -> FrameBlock:
    blocks = list(read_blocks(log))
    return concatenate([replace(block, buses=blocks[-1].buses) for block in blocks])


def _title(log: Path) -> str:
    return log.name.split(".", maxsplit=1)[0]
