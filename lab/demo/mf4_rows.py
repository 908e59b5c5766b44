"""Reads the frames of an MF4 log for the oracle: row by row from asammdf, and without the agent's code.

Only the members that the oracle needs are read, in the forms that asammdf gives them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent

KINDS: Final = ("CAN_DataFrame", "CAN_RemoteFrame", "CAN_ErrorFrame")
_FD_LENGTHS: Final = (12, 16, 20, 24, 32, 48, 64)

Row = tuple[float, int, int, bool, bytes]
"""Seconds, number of the bus, identifier, whether it has 29 bits, data."""


def rows(log: Path) -> Iterator[Row]:
    """Yield the frames of all groups in the order of their times.  Raises: Permanent if asammdf cannot read the log."""
    # asammdf is only needed for this format, and takes a second to import.
    from asammdf import MDF  # noqa: PLC0415

    try:
        with log.open("rb") as file, MDF(file) as mdf:
            groups: list[Any] = mdf.groups
            start_s = mdf.header.start_time.timestamp()
            found = [row for number, group in enumerate(groups) for row in _group(mdf, number, group, start_s)]
    except Exception as error:
        raise Permanent(f"{log}: The log is truncated or damaged ({error}). Copy it again.") from error
    yield from sorted(found, key=lambda row: row[0])


def _group(mdf: Any, number: int, group: Any, start_s: float) -> Iterator[Row]:
    kind = next((name for name in KINDS if any(channel.name == name for channel in group.channels)), None)
    if kind is None or not group.channel_group.cycles_nr:
        return
    signal = mdf.get(kind, number)
    columns = {name.removeprefix(f"{kind}."): signal.samples[name] for name in signal.samples.dtype.names}
    for n, t_s in enumerate(signal.timestamps):
        row = {name: column[n] for name, column in columns.items() if name != "DataBytes"}
        can_id = int(row.get("ID", 0))
        extended = bool(row["IDE"]) if "IDE" in row else can_id >= 1 << 31
        can_id &= 0x1FFF_FFFF
        data = b""
        if kind == "CAN_DataFrame":
            # A slice of one row keeps the byte order of a number.
            data = columns["DataBytes"][n : n + 1].tobytes()[: _length(row)]
        yield start_s + float(t_s), int(row.get("BusChannel", 0)), can_id, extended or can_id > 0x7FF, data


def _length(row: dict[str, Any]) -> int:
    if "DataLength" in row:
        return int(row["DataLength"])
    code = int(row["DLC"])
    return _FD_LENGTHS[code - 9] if code > 8 and row.get("EDL") else min(code, 8)
