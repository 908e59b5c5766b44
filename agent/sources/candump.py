"""Read what candump of can-utils writes.

    (1700000000.000001) can0 123#1122                     a log: candump -l and -L
    (1700000000.000001)  can0  123   [2]  11 22           the console, with times: candump -ta
    (2026-11-25 10:00:00.000001)  can0  123   [2]  11 22  the console, with dates in local time: candump -tA

The console's other times (-td, -tz) and an output without times do not say when a frame came, so they are refused.
can-utils' lib.h defines the notation of a frame: identifiers have 3 hex digits (11 bits) or 8 (29 bits, or the class
of an error frame); `##` and a digit of flags begin CAN FD data; `R` is a remote request; `_9` to `_F` is a raw length
code.

python-can's reader is not used, because it pads an odd number of digits, reads no console output, and gives error
frames no bus (docs/decisions/0027-text-logs.md).
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import can

from agent.sources.log_lines import DAMAGED, XL_FRAMES, Lines, Notes, Unreadable, data_bytes, quoted
from agent.sources.log_times import WallClock
from can_dbc.frames import CLASSIC_BYTES, FD_BYTES

# time, bus, identifier; R for a remote request, or flags and data of CAN FD, or data of classic CAN; direction.
# The direction means nothing here: a frame that the recording machine sent was on the bus as well.
_LOGGED: Final = re.compile(
    r"\s*\((\d+\.\d+)\)\s+(\S+)\s+([0-9A-Fa-f]{1,8})#(?:"
    r"([Rr])[0-9A-Fa-f]?(?:_[9A-Fa-f])?"
    r"|#([0-9A-Fa-f])([0-9A-Fa-f.]*)"
    r"|([0-9A-Fa-f.]*)(?:_[9A-Fa-f])?"
    r")(?:\s+[RT])?\s*$"
)
_XL_FRAME: Final = re.compile(
    r"\(\d+\.\d+\)\s+\S+\s+[0-9A-F]+#[0-9A-F]{2}:[0-9A-F]{2}:[0-9A-F]{8}#[0-9A-F.]*(?:\s+[RT])?$", re.IGNORECASE
)
_DROPPED: Final = re.compile(r"DROPCOUNT: dropped (\d+) CAN frames? on '(.*)' socket \(total drops \d+\)$")

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONSOLE: Final = re.compile(
    r"(?:\((?P<time>[^)]*)\)\s+)?(?P<bus>\S+)\s+(?:[RT]X\s+(?P<brs>[B-])\s+(?P<esi>[E-])\s+)?"
    r"(?P<id>[0-9A-F]{3}|[0-9A-F]{8})\s+(?:\[(?P<length>\d{1,4})\]|\{[9A-F]\})(?P<rest>.*)$"
)
# Seconds since 1970.  The times of -td and -tz have fewer digits, because they count from another start.
_SECONDS: Final = re.compile(r"\d{9,}\.\d+$")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$")
_XL_DIGITS: Final = (
    4  # The console shows the length of a CAN XL frame in so many digits, that of a CAN FD frame in two.
)
_FD_DIGITS: Final = 2

_ERROR_FLAG: Final = 0x2000_0000  # CAN_ERR_FLAG of <linux/can.h>
_REMOTE_FLAG: Final = 0x4000_0000
_ID_BITS: Final = 0x1FFF_FFFF
_STANDARD_DIGITS: Final = 3
_STANDARD_BITS: Final = 0x7FF
_BRS: Final = 0x01  # CANFD_BRS and CANFD_ESI of <linux/can.h>
_ESI: Final = 0x02
_REMEDY: Final = "record with candump -L or -l"


def messages(lines: Lines, clock: WallClock, notes: Notes) -> Iterator[can.Message]:
    """Yield the frames of the log.  Raises: Unreadable for a line that candump does not write."""
    for line in lines:
        if found := _LOGGED.match(line):
            yield _logged(found)
        elif not line.isspace() and (message := _other(line, clock, notes)):
            yield message


def _logged(found: re.Match[str]) -> can.Message:
    """Return the frame of a line of a log."""
    time, bus, identifier, remote, fd_flags, fd_data, data = found.groups()
    digits = (data or fd_data or "").replace(".", "")
    if len(digits) % 2:
        raise Unreadable(f"the data {digits} has an odd number of hex digits, so the line was cut; {DAMAGED}")
    content = bytes.fromhex(digits)
    is_fd = fd_flags is not None
    if len(content) > (FD_BYTES if is_fd else CLASSIC_BYTES):
        most = "CAN FD has at most 64" if is_fd else "classic CAN has at most 8"
        raise Unreadable(f"the frame has {len(content)} data bytes; {most}; {DAMAGED}")
    number, extended, error = _identifier(identifier)
    flags = int(fd_flags, 16) if is_fd else 0
    return can.Message(
        timestamp=float(time),
        arbitration_id=number,
        is_extended_id=extended,
        is_remote_frame=remote is not None,
        is_error_frame=error,
        is_fd=is_fd,
        bitrate_switch=bool(flags & _BRS),
        error_state_indicator=bool(flags & _ESI),
        channel=_bus(bus),
        dlc=len(content),
        data=content,
    )


def _other(line: str, clock: WallClock, notes: Notes) -> can.Message | None:
    """Return the frame of a line of the console, or None for what is not read.  Raises: Unreadable."""
    text = _COLOUR.sub("", line).strip()
    if _XL_FRAME.match(text):
        notes.leave_out(XL_FRAMES)
        return None
    if dropped := _DROPPED.match(text):
        notes.leave_out(f"frames of {dropped[2]} that candump lost while recording (DROPCOUNT)", int(dropped[1]))
        return None
    # candump -e explains an error frame in further lines, which begin with a tab.
    if line.startswith("\t"):
        return None
    if found := _CONSOLE.match(text):
        return _shown(found, text, clock, notes)
    raise _no_frame(text)


def _shown(found: re.Match[str], text: str, clock: WallClock, notes: Notes) -> can.Message | None:
    # The time is checked first, because a log without times is refused whatever else its lines hold.
    timestamp = _time_of(found["time"], clock, notes)
    length = found["length"] or str(CLASSIC_BYTES)  # "{9}" is a raw length code, which has 8 bytes.
    if len(length) == _XL_DIGITS:
        notes.leave_out(XL_FRAMES)
        return None
    rest = found["rest"].split()
    remote = rest[:2] == ["remote", "request"]
    count = 0 if remote else int(length)
    if any(len(token) != 2 for token in rest[:count]):
        raise Unreadable(f"{quoted(text)} has no data in hex, so it was made with candump -i or -S; {_REMEDY}")
    content = data_bytes(rest, count)
    behind = " ".join(rest[count:])
    if behind and behind[0] != "'" and behind != "ERRORFRAME" and not remote:
        raise _no_frame(text)
    number, extended, error = _identifier(found["id"])
    return can.Message(
        timestamp=timestamp,
        arbitration_id=number,
        is_extended_id=extended,
        is_remote_frame=remote,
        is_error_frame=error,
        is_fd=len(length) == _FD_DIGITS,
        bitrate_switch=found["brs"] == "B",
        error_state_indicator=found["esi"] == "E",
        channel=_bus(found["bus"]),
        dlc=count,
        data=content,
    )


def _time_of(text: str | None, clock: WallClock, notes: Notes) -> float:
    if text is None:
        raise Unreadable(f"this is candump's console output without times; {_REMEDY}")
    if _SECONDS.match(text):
        return float(text)
    if _DATE.match(text):
        return clock.unix_ns(datetime.fromisoformat(text), notes) / 1e9
    raise Unreadable(
        f"the time ({text}) of candump's console output (-td or -tz) does not say when the frame came; {_REMEDY}"
    )


def _identifier(digits: str) -> tuple[int, bool, bool]:
    """Return an identifier, whether it has 29 bits, and whether its frame is an error frame.

    The identifier of an error frame tells the classes of the error (<linux/can/error.h>).
    """
    number = int(digits, 16)
    if len(digits) <= _STANDARD_DIGITS:
        if number <= _STANDARD_BITS:
            return number, False, False
    elif number & _ERROR_FLAG or not number & _REMOTE_FLAG:
        return number & _ID_BITS, True, bool(number & _ERROR_FLAG)
    raise Unreadable(f"{digits} is not an identifier of 11 bits (3 hex digits) or 29 bits (8 hex digits); {DAMAGED}")


def _bus(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


def _no_frame(text: str) -> Unreadable:
    return Unreadable(f"{quoted(text)} is not a line of candump; {DAMAGED}")
