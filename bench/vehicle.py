"""A vehicle to measure the running agent with: enrolled, with the demonstration's databases and its traffic."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.drives import demonstration
from can_dbc.frames import BRS, EXTENDED, FD, FrameBlock
from simulator.frames import BODY_DBC, POWERTRAIN_DBC

BUSES: Final = ("can0", "can1")
FRAMES_PER_S: Final = 4_000  # on each bus
LOG_S: Final = 8
_SHIPPED: Final = Path(__file__).parents[1] / "config" / "campaigns"
_EVERYTHING: Final = {
    "name": "everything",
    "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 30_000}},
    "signalsToCollect": [{"name": "*"}],
}
_CONFIGURATION: Final = """\
{sources}
[bus.can0]
dbc = ["{powertrain}"]
[bus.can1]
dbc = ["{body}"]
[identity]
folder = "{folder}/identity"
[state]
folder = "{state}"
runtime_folder = "{state}/run"
[telemetry]
campaigns = "{campaigns}"
[uplink]
broker = "localhost:1"
[serve]
port = {port}
[log]
format = "json"
"""


def prepare(folder: Path, *, traffic: bool) -> None:
    """Enrol a vehicle into `folder`; with `traffic`, write `traffic.log` (candump) as well."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "identity").is_dir():
        _fleet("init", "--fleet", str(folder / "fleet"))
        _fleet("enrol", "--fleet", str(folder / "fleet"), "--out", str(folder / "identity"), "--brand", "Aria")
    (folder / "everything").mkdir(exist_ok=True)
    (folder / "everything" / "everything.json").write_text(json.dumps(_EVERYTHING))
    if traffic:
        write_candump(_at_full_rate(), folder / "traffic.log")


def configure(folder: Path, state: Path, sources: Sequence[str], port: int, *, everything: bool = False) -> Path:
    """The configuration of an agent that keeps its state in `state`; `sources` are `[[sources]]` tables.

    Collected is what the campaigns of config/campaigns ask for, or `everything`: each signal at its native rate.
    """
    campaigns = folder / "everything" if everything else _SHIPPED
    file = state / "agent.toml"
    file.write_text(
        _CONFIGURATION.format(
            sources="\n".join(sources),
            powertrain=POWERTRAIN_DBC,
            body=BODY_DBC,
            folder=folder,
            state=state,
            campaigns=campaigns,
            port=port,
        )
    )
    return file


def write_candump(block: FrameBlock, file: Path) -> None:
    """The frames as `candump -L` writes them."""
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
    """LOG_S seconds of the demonstration vehicle, run through so fast that each bus carries FRAMES_PER_S."""
    block = demonstration(seconds=120.0).block
    parts = []
    for bus in range(len(BUSES)):
        rows = np.flatnonzero(block.bus == bus)
        rows = np.resize(rows, FRAMES_PER_S * LOG_S)
        parts.append((np.arange(len(rows)) * (10**9 // FRAMES_PER_S), rows))
    times = np.concatenate([t for t, _ in parts])
    order = np.argsort(times, kind="stable")
    rows = np.concatenate([rows for _, rows in parts])[order]
    return FrameBlock(
        times[order] + 10**18,
        block.bus[rows],
        block.can_id[rows],
        block.flags[rows],
        block.length[rows],
        block.data[rows],
        block.buses,
    )


def _fleet(*arguments: str) -> Any:
    command = [sys.executable, "-m", "fleet", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"fleet {arguments[0]}: {done.stderr or done.stdout}")
    return json.loads(done.stdout)
