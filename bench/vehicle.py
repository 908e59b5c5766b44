"""A vehicle to measure the running agent with: enrolled, with the demonstration's databases and its traffic."""

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
    """Enrol a vehicle into `folder`; with `traffic`, write `traffic.log` (candump) as well."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "identity").is_dir():
        enrol_vehicle(make_fleet(folder / "fleet"), folder / "identity")
    if traffic:
        write_candump(_at_full_rate(), folder / "traffic.log")


def configure(folder: Path, state: Path, sources: str, *, everything: bool = False) -> Vehicle:
    """Configure a vehicle that keeps its state in `state`, for one run; `sources` are `[[sources]]` tables.

    The campaigns are those of config/campaigns, or `everything`: each signal at its native rate.
    """
    vehicle = Vehicle(
        state,
        sources=sources,
        buses=_BUSES,
        broker_port=1,  # nothing listens there
        identity=f'folder = "{folder}/identity"',
        state='folder = "."\nruntime_folder = "run"',
        telemetry=f'campaigns = "{state / "campaigns" if everything else _SHIPPED}"',
        uplink="",
    )
    vehicle.write_campaigns(collect_everything(30_000))
    vehicle.write()
    return vehicle


def write_candump(block: FrameBlock, file: Path) -> None:
    """Write the frames as `candump -L` does."""
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
    """Return LOG_S seconds in which each bus carries FRAMES_PER_S, made by repeating the demonstration's frames."""
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
