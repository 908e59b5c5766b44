"""Counts the frames of a log without the agent's readers, and in text formats also without the oracle's, python-can.

If both readers skipped the same frames, agent and oracle would agree, and the demonstration would say that nothing was
lost.  This count shows such a loss.  It takes from each format what marks a frame: the form of a line, what the groups
of an MF4 log say about themselves, the signature of a BLF object.
"""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import Permanent
from lab.demo.blf_scan import scan
from lab.demo.mf4_rows import KINDS

# A frame of candump has an identifier of 3 or 8 digits before `#` (-L, -l) or before the length in brackets (console).
_CANDUMP: Final = re.compile(rb"(?:^|\s)(?:[0-9A-F]{3}|[0-9A-F]{8})(?:#|\s+\[\d+\])", re.I)
# A frame of ASC has a time, and then a channel with an identifier and a direction, or `CANFD`, or `ErrorFrame`.
_ASC: Final = re.compile(
    rb"^\s*-?[\d.]+\s+(?:CANFD\s+\d+\s+(?:Rx|Tx)\s|\d+\s+[0-9A-F]+x?\s+(?:Rx|Tx)\s|(?:CANFD\s+)?\d+\s+ErrorFrame)", re.I
)
# A frame of TRC has a number, and is not a warning, status, error counter or event of the user.
_TRC: Final = re.compile(rb"^\s*\d+\)?\s")
_TRC_OTHERS: Final = re.compile(rb"\s(?:Warng|ST|EC|EV)\s|^\s*\d+\)\s+[\d.]+\s+FFFFFFFF\s")


@dataclass(frozen=True, slots=True)
class Count:
    """The number of frames in the input, and the way in which they were counted."""

    frames: int
    how: str


def count_frames(log: Path) -> Count:
    """Count the frames of an unpacked log.

    Raises: Permanent if the format is unknown, or if a part of a BLF or MF4 log is missing.
    """
    if log.suffix.lower() not in _COUNTS:
        raise Permanent(f"{log}: The format is unknown. Name the log by its format: {' '.join(_COUNTS)}.")
    how, count = _COUNTS[log.suffix.lower()]
    return Count(count(log), how)


def _lines(frame: re.Pattern[bytes], others: re.Pattern[bytes] | None = None) -> Callable[[Path], int]:
    def count(log: Path) -> int:
        with log.open("rb") as lines:
            return sum(1 for line in lines if frame.search(line) and not (others and others.search(line)))

    return count


def _csv(log: Path) -> int:
    with log.open("rb") as lines:
        return sum(1 for line in lines if line.strip()) - 1


def _db(log: Path) -> int:
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])


def _mf4(log: Path) -> int:
    # asammdf is only needed for this format, and takes a second to import.
    from asammdf import MDF  # noqa: PLC0415

    try:
        with log.open("rb") as file, MDF(file) as mdf:
            groups = [group for group in mdf.groups if {channel.name for channel in group.channels} & set(KINDS)]
            return sum(int(group.channel_group.cycles_nr) for group in groups)
    except Exception as error:
        raise Permanent(f"{log}: The log is truncated or damaged ({error}). Copy it again.") from error


_COUNTS: Final[dict[str, tuple[str, Callable[[Path], int]]]] = {
    ".log": ("lines with an identifier and data", _lines(_CANDUMP)),
    ".asc": ("lines with a time, a channel and a frame", _lines(_ASC)),
    ".trc": ("numbered lines that are frames", _lines(_TRC, _TRC_OTHERS)),
    ".csv": ("lines after the first", _csv),
    ".db": ("rows of the table", _db),
    ".blf": ("objects found by their signature", lambda log: sum(1 for _ in scan(log))),
    ".mf4": ("records that the channel groups say they have", _mf4),
}
