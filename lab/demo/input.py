"""Provides the demonstration's input, a recorded log or the virtual vehicle, to the agent and to the oracle."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import zstandard

from agent.commands.decode import decode_log
from agent.errors import AgentError, Permanent
from agent.sources.log_readers import ZstdStream
from agent.sources.replay import read_blocks
from can_dbc.buses import file_and_bus
from can_dbc.frames import EXTENDED
from can_dbc.plan import Match
from lab.demo.log_count import Count, count_frames
from lab.demo.oracle import Frame, read_log, require_cantools
from simulator.frames import BODY_DBC, POWERTRAIN_DBC, frames

VEHICLE_S: Final = 150.0
NAMED: Final = 5
"""The greatest number of messages that an error names for each reason."""
_PACKED: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    # The reader of the package zstandard treats a truncated frame as the end of the file.
    ".zst": lambda log: io.BufferedReader(ZstdStream(log.open("rb"))),
}


@dataclass(frozen=True, slots=True)
class DriveInput:
    """Holds the input of one drive.

    `databases` are the database files of each bus.  `settings` is the agent's `[[sources]]` table without `speed`.
    `frames` yields the frames for the oracle.  Each call starts again at the first frame.  `count` is the number of
    frames in the input, counted without the agent (`log_count`).
    """

    name: str
    seconds: float
    databases: dict[str, tuple[Path, ...]]
    match: str
    settings: dict[str, Any]
    frames: Callable[[], Iterator[Frame]]
    count: Count

    def agent_sources(self, speed: float) -> str:
        """Return the `[[sources]]` and `[bus.*]` tables of agent.toml.  `speed` 2 plays the drive twice as fast."""
        lines = ["[[sources]]", *(f"{key} = {json.dumps(value)}" for key, value in self.settings.items())]
        lines.append(f"speed = {speed}")
        for bus, files in self.databases.items():
            lines += [f"[bus.{json.dumps(bus)}]", f"dbc = {json.dumps([str(file) for file in files])}"]
            lines.append(f'match = "{self.match}"')
        return "\n".join(lines)


def virtual_vehicle(seed: int, seconds: float = VEHICLE_S) -> DriveInput:
    """Return a drive of the virtual vehicle.  Agent and oracle make the same frames, because they use the same seed."""
    start = datetime.now(UTC).replace(microsecond=0)
    start_ns = int(start.timestamp()) * 1_000_000_000

    def again() -> Iterator[Frame]:
        for block in frames(seed, start_ns, seconds):
            columns = zip(block.t_ns.tolist(), block.bus.tolist(), block.can_id.tolist(), strict=True)
            for row, (t_ns, bus, can_id) in enumerate(columns):
                data = bytes(block.data[row, : block.length[row]])
                yield Frame(t_ns, block.buses[bus], can_id, bool(block.flags[row] & EXTENDED), data)

    return DriveInput(
        f"virtual vehicle, seed {seed}, {seconds:g} s",
        seconds,
        {"can0": (POWERTRAIN_DBC,), "can1": (BODY_DBC,)},
        "exact",
        {"kind": "virtual_vehicle", "seed": seed, "start": start.isoformat(), "duration_s": seconds},
        again,
        Count(sum(len(block) for block in frames(seed, start_ns, seconds)), "made by the simulator"),
    )


def recorded(log: Path, databases: Sequence[tuple[str | None, Path]], match: str, folder: Path) -> DriveInput:
    """Return a drive from a recorded log.  A compressed log is unpacked into `folder` for the oracle.

    `databases` are pairs (bus, file).  If the bus is None, the file is for every bus of the log.

    Raises: Permanent if a file is missing, if the log has no frames, or if it has none on a bus that `databases` names.
    """
    for file in (log, *(file_and_bus(file)[0] for _, file in databases)):
        if not file.is_file():
            raise Permanent(f"{file}: There is no such file. Check --log and --dbc.")
    # cantools is asked before the drive, which takes minutes.
    require_cantools((file for _, file in databases), match)
    plain = _unpacked(log, folder)
    count = count_frames(plain)
    times, buses = _times_and_buses(log, plain)
    if not times:
        raise Permanent(f"{log}: The log contains no frames. Give another --log.")
    unknown = [bus for bus, _ in databases if bus is not None and bus not in buses]
    if unknown:
        raise Permanent(
            f"{log}: The log contains no frames on {', '.join(unknown)}. It has the buses {', '.join(buses)}; "
            "correct --dbc."
        )
    _require_decoded(log, databases, match)
    by_bus = {bus: tuple(f.resolve() for named, f in databases if named in (bus, None)) for bus in buses}
    return DriveInput(
        log.name,
        max((max(times) - min(times)) / 1e9, 0.001),
        {bus: files for bus, files in by_bus.items() if files},
        match,
        {"kind": "replay", "log": str(log.resolve())},
        lambda: read_log(plain),
        count,
    )


def _times_and_buses(log: Path, plain: Path) -> tuple[list[int], dict[str, None]]:
    """Return the times of all frames, and the buses in the order of their first frames.

    Raises: Permanent that names the place if a part of the log is missing or damaged.
    """
    times, buses = [], dict[str, None]()
    try:
        for frame in read_log(plain):
            times.append(frame.t_ns)
            buses[frame.bus] = None
    except Permanent:
        raise
    # python-can has no exception of its own for a damaged log.
    except Exception as error:
        _require_whole(log)
        raise Permanent(
            f"{log}: python-can, which reads the log independently of the agent, cannot read it ({error}). "
            "Export the log again, or give another one with --log."
        ) from error
    return times, buses


def _require_whole(log: Path) -> None:
    """Read the log as the agent does, because the agent names the damaged line.  Raises: Permanent."""
    try:
        for _ in read_blocks(log):
            pass
    except AgentError as error:
        raise Permanent(f"{error}. A log that is not whole cannot be compared.") from error


def _require_decoded(log: Path, databases: Sequence[tuple[str | None, Path]], match: str) -> None:
    """Check that the databases decode a frame of the log.

    Raises: Permanent that names the frames and messages which are not decoded, or the line of a damage.
    """
    by_bus: dict[str | None, list[Path]] = {}
    for bus, file in databases:
        by_bus.setdefault(bus, []).append(file)
    found = decode_log(log, by_bus, match=Match(match))
    if found.truncated:
        raise Permanent(f"{found.truncated}. A log that has lost its end cannot be compared.")
    if found.decoded or not by_bus:
        return
    reasons = {
        reason: sorted({name for frames in buses.values() for name in frames})
        for reason, buses in {"unknown": found.unknown, **found.errors}.items()
    }
    listed = "; ".join(f"{reason}: {_some(names)}" for reason, names in reasons.items() if names)
    raise Permanent(
        f"{log}: The databases decode none of its {found.frames:,} frames ({listed}). Check --dbc and --match "
        "(DBC and MATCH of make demo)."
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _unpacked(log: Path, folder: Path) -> Path:
    if log.suffix not in _PACKED:
        return log
    plain = folder / log.name.removesuffix(log.suffix)
    try:
        with _PACKED[log.suffix](log) as packed, plain.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise Permanent(f"{log}: The log is truncated or damaged ({error}). Copy it again.") from error
    return plain
