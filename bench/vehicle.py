"""Prepares an enrolled vehicle, with the demonstration's databases and traffic, to measure the running agent."""

from pathlib import Path
from typing import Final

import numpy as np

from bench.drives import demonstration
from can_dbc.frames import BRS, EXTENDED, FD, FrameBlock
from lab.fleet import enrol_vehicle, make_fleet
from lab.vehicle import Vehicle, collect_everything
from simulator.frames import BODY_DBC, POWERTRAIN_DBC

BUSES: Final = ("can0", "can1")
FRAMES_PER_S: Final = 4_000  # on each bus
LOG_S: Final = 8
_SHIPPED: Final = Path(__file__).parents[1] / "config" / "campaigns"
_BUSES: Final = f"""\
[bus.can0]
dbc = ["{POWERTRAIN_DBC}"]
[bus.can1]
dbc = ["{BODY_DBC}"]
"""


def prepare(folder: Path, *, traffic: bool) -> None:
    """Enrol a vehicle in `folder`, unless that is done already.

    With `traffic`, also write `traffic.log` in the format of candump.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "identity").is_dir():
        enrol_vehicle(make_fleet(folder / "fleet"), folder / "identity")
    if traffic:
        write_candump(_at_full_rate(), folder / "traffic.log")


def configure(folder: Path, state: Path, sources: str, *, everything: bool = False) -> Vehicle:
    """Return a vehicle that is configured for one run; `sources` are `[[sources]]` tables.

    `prepare` must have enrolled the vehicle in `folder`.  The vehicle keeps its state in `state`.  It collects by the
    campaigns in config/campaigns.  With `everything`, it collects each signal at its native rate instead.
    """
    vehicle = Vehicle(
        state,
        sources=sources,
        buses=_BUSES,
        broker_port=1,  # Nothing listens on this port.
        identity=f'folder = "{folder}/identity"',
        state='folder = "."\nruntime_folder = "run"',
        telemetry=f'campaigns = "{state / "campaigns" if everything else _SHIPPED}"',
        uplink="",
    )
    vehicle.write_campaigns(collect_everything(30_000))
    vehicle.write()
    return vehicle


def write_candump(block: FrameBlock, file: Path) -> None:
    """Write the frames in the format of `candump -L`."""
    lines = []
    columns = (block.t_ns, block.bus, block.can_id, block.flags, block.length)
    for row, (t_ns, bus, can_id, flags, length) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        identifier = f"{can_id:08X}" if flags & EXTENDED else f"{can_id:03X}"
        mark = f"##{1 if flags & BRS else 0}" if flags & FD else "#"
        data = block.data[row, :length].tobytes().hex().upper()
        t_us = t_ns // 1_000
        lines.append(f"({t_us // 1_000_000}.{t_us % 1_000_000:06d}) {block.buses[bus]} {identifier}{mark}{data}\n")
    file.write_text("".join(lines))


def _at_full_rate() -> FrameBlock:
    """Return LOG_S seconds of frames, in which each bus carries FRAMES_PER_S frames a second.

    The demonstration's frames are repeated to reach this rate.
    """
    block = demonstration(seconds=120.0).block
    by_bus = []
    for bus in range(len(BUSES)):
        rows = np.flatnonzero(block.bus == bus)
        rows = np.resize(rows, FRAMES_PER_S * LOG_S)
        by_bus.append((np.arange(len(rows)) * (10**9 // FRAMES_PER_S), rows))
    times = np.concatenate([t for t, _ in by_bus])
    order = np.argsort(times, kind="stable")
    rows = np.concatenate([rows for _, rows in by_bus])[order]
    return FrameBlock(
        times[order] + 10**18,
        block.bus[rows],
        block.can_id[rows],
        block.flags[rows],
        block.length[rows],
        block.data[rows],
        block.buses,
    )
