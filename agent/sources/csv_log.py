"""Read the CSV files that python-can writes: one frame a line, with Unix time, and data in Base64.

The column for the bus is missing, so all frames are of one bus.
"""

import binascii
import re
from collections.abc import Iterator
from typing import Final

import can

from agent.sources.log_lines import DAMAGED, Lines, Notes, Unreadable, quoted
from agent.sources.log_times import WallClock
from can_dbc.frames import FD_BYTES

_HEADER: Final = "timestamp,arbitration_id,extended,remote,error,dlc,data"
_ROW: Final = re.compile(
    r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?),0x([0-9a-f]{1,8}),([01]),([01]),([01]),(\d{1,2}),([A-Za-z0-9+/=]*)$"
)
_IDS: Final = (1 << 11, 1 << 29)  # of frames that are not extended, and of those that are


def messages(lines: Lines, clock: WallClock, notes: Notes) -> Iterator[can.Message]:
    """Yield the frames of the log.  Raises: Unreadable for a line that is not a frame; the first may be the header."""
    del clock  # The times are Unix time.
    for line in lines:
        text = line.strip()
        if not text or (lines.number == 1 and text == _HEADER):
            continue
        row = _ROW.match(text)
        if row is None:
            raise Unreadable(f"{quoted(text)} is not a row of python-can's CSV ({_HEADER}); {DAMAGED}")
        if lines.number == 1:
            notes.say("the log has no line of headings, so its first line is read as a frame")
        yield _frame(row)


def _frame(row: re.Match[str]) -> can.Message:
    extended, remote, error = (row[column] == "1" for column in (3, 4, 5))
    try:
        data = binascii.a2b_base64(row[7], strict_mode=True)
    except binascii.Error as error_of_data:
        raise Unreadable(f"the data {row[7]!r} is not Base64: {error_of_data}; {DAMAGED}") from error_of_data
    number, dlc = int(row[2], 16), int(row[6])
    if number >= _IDS[extended]:
        raise Unreadable(f"0x{row[2]} has more bits than an identifier; {DAMAGED}")
    if (len(data) != dlc and not remote) or len(data) > FD_BYTES:
        raise Unreadable(f"the frame has {dlc} data bytes, but the line {len(data)}; {DAMAGED}")
    return can.Message(
        timestamp=float(row[1]),
        arbitration_id=number,
        is_extended_id=extended,
        is_remote_frame=remote,
        is_error_frame=error,
        dlc=dlc,
        data=data,
    )
