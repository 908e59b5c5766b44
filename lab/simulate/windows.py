"""Makes the windows that the virtual vehicles send, from drives of the demonstration vehicle.

A window holds the samples from one frame a second of every message on the body bus.  These are some 130 signals.  A
campaign that observes one domain of a car collects about as many.  All vehicles send the same values, but each batch
has its own times, and is encoded and sealed separately.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.catalogue import Catalogue, catalogue_of
from agent.formats.up.columns import Clock, ClockQuality, ColumnGroup, SignalInfo, Window
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.decoder import Decoder, SignalColumns
from can_dbc.frames import concatenate
from can_dbc.plan import Match, SignalPlan
from simulator.frames import BODY_DBC, frames

CAMPAIGN: Final = "simulation"
REVISION: Final = "000000000001"
DRIVES: Final = 4  # the number of different drives; a vehicle sends them in turn
_SAMPLING_US: Final = 1_000_000
_BUS: Final = 1  # the body bus, in the blocks of the virtual vehicle
_NO_CLOCK: Final = Clock(ClockQuality.RECORDED, "", 0, 0)


@dataclass(frozen=True, slots=True)
class Recording:
    """Holds recorded windows that start at time 0, and the catalogue that describes all their signals."""

    windows: tuple[Window, ...]
    catalogue: Catalogue

    def window(self, number: int, end_us: int, clock: Clock) -> Window:
        """Return window `number` (modulo the number of windows), moved so that it ends at `end_us` (Unix epoch, µs)."""
        window = self.windows[number % len(self.windows)]
        start_us = end_us - window.end_us
        groups = tuple(replace(group, t_us=group.t_us + start_us) for group in window.groups)
        return replace(window, start_us=start_us, end_us=end_us, clock=clock, groups=groups)


def record(seconds: float) -> Recording:
    """Record a window of `seconds` from each of DRIVES different drives of the virtual vehicle.

    Raises: DatabaseError if the databases are not installed.
    """
    plan = compile_plan([load(BODY_DBC)], Match.EXACT)
    decoder = Decoder({_BUS: plan})
    windows = []
    for seed in range(1, DRIVES + 1):
        block = concatenate(list(frames(seed, 0, seconds)))
        groups = tuple(group for columns in decoder.decode(block).columns for group in _groups(columns, block.buses))
        windows.append(Window(CAMPAIGN, REVISION, 0, round(seconds * 1e6), _NO_CLOCK, groups))
    described = [
        (_info(f"{message.name}.{signal.name}", block.buses[_BUS], signal), signal.texts)
        for message in plan.messages
        for signal in message.signals
    ]
    return Recording(tuple(windows), catalogue_of(CAMPAIGN, REVISION, described))


def _groups(columns: SignalColumns, buses: Sequence[str]) -> Iterator[ColumnGroup]:
    """Yield the samples of one message, taken from its first frame in each second.

    The signals of a message share one group, but in a multiplexed message each signal gets its own group.
    """
    t_us = columns.t_ns // 1_000
    _, first = np.unique(t_us // _SAMPLING_US, return_index=True)
    members = range(len(columns.signals))
    # Without a multiplexer all signals of a message share the times of one frame.
    if columns.valid is None:
        yield _group(columns, buses, list(members), t_us, first)
        return
    for row in members:
        chosen = first[columns.valid[row, first]]
        if chosen.size:
            yield _group(columns, buses, [row], t_us, chosen)


def _group(
    columns: SignalColumns, buses: Sequence[str], rows: list[int], t_us: NDArray[np.int64], chosen: NDArray[np.int64]
) -> ColumnGroup:
    plans = [columns.message.signals[columns.signals[row]] for row in rows]
    infos = tuple(_info(f"{columns.message.name}.{plan.name}", buses[columns.bus], plan) for plan in plans)
    raw = np.ascontiguousarray(columns.raw[rows][:, chosen])
    return ColumnGroup(t_us[chosen], infos, raw, tuple(plan.texts for plan in plans))


def _info(name: str, bus: str, plan: SignalPlan) -> SignalInfo:
    return SignalInfo(name, bus, plan.unit, plan.kind, plan.bits, plan.scale, plan.offset)
