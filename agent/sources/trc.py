"""Read TRC, the trace file of PEAK's tools (PCAN-View, PCAN-Explorer), in all its versions.

    ;$FILEVERSION=2.1                       absent in version 1.0
    ;$STARTTIME=46351.5                     days since 30 December 1899, in local time
    ;$COLUMNS=N,O,T,B,I,d,R,L,D             since version 2.0; earlier versions have fixed columns
    ;   Start time: 25.11.2026 12:00:00.000.0
    1      1059.900 DT 1      0123 Rx -  8    10 27 01 00 00 00 00 00

The columns are: N number of the line, O milliseconds since the start, T kind of the line, B bus, I identifier (4 digits
for 11 bits, 8 for 29), d direction, R reserved (or the destination of a J1939 message), l number of data bytes, L
length code, D data.  The format is described in PEAK's document "PEAK CAN TRC File Format".

python-can's reader is not used: it knows neither version 1.2 nor all lines of 1.0, and takes FB, FE and BI for one
another (docs/decisions/0027-text-logs.md).
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

import can

from agent.sources.log_lines import DAMAGED, Lines, Notes, Unreadable, quoted
from agent.sources.log_times import WallClock, wall_time
from can_dbc.frames import CLASSIC_BYTES, FD_BYTES

_COLUMNS: Final = {"1.0": "NOILD", "1.1": "NOTILD", "1.2": "NOBTILD", "1.3": "NOBTIRLD", "2.0": "", "2.1": ""}
_KEYWORD: Final = re.compile(r";\s*\$(\w+)\s*=\s*(.*)$")
_START: Final = re.compile(r";\s*Start time:\s*(.*)$", re.IGNORECASE)
_OFFSET_OF_ZONE: Final = re.compile(r"(.*\d)([+-]\d\d:\d\d)$")
_ONLY_BUS: Final = 1  # the number of the bus in logs that have no column for it
_DAY_ZERO: Final = datetime(1899, 12, 30)
_PEAK_DIGITS: Final = 10
"""The number of decimals (9 µs) with which PEAK's tools write the start, although their clock counts milliseconds."""

_FD_LENGTHS: Final = (*range(CLASSIC_BYTES + 1), 12, 16, 20, 24, 32, 48, 64)  # by length code
_STANDARD_DIGITS: Final = 4
_STANDARD_IDS: Final = 1 << 11
_EXTENDED_IDS: Final = 1 << 29
_WARNING_ID: Final = "FFFFFFFF"  # marks a change of the bus's state in version 1.0
# By the kind of the line (or the direction, up to version 1.3): CAN FD, bit-rate switch, error state indicator.
_FRAMES: Final = {
    "": (False, False, False),  # version 1.0
    "Rx": (False, False, False),
    "Tx": (False, False, False),
    "DT": (False, False, False),
    "RR": (False, False, False),
    "FD": (True, False, False),
    "FB": (True, True, False),
    "FE": (True, False, True),
    "BI": (True, True, True),
}
_ERRORS: Final = ("Error", "ER")
_STATES: Final = ("Warng", "ST", "EC", "EV")  # bus state, error counters, the user's events
_J1939_MESSAGES: Final = "J1939 messages of more than 8 bytes, which PEAK's tools have put together from frames"


def messages(lines: Lines, clock: WallClock, notes: Notes) -> Iterator[can.Message]:
    """Yield the frames of the log.  Raises: Unreadable for a line that TRC does not define."""
    header = _Header(clock, notes)
    body: _Body | None = None
    for line in lines:
        text = line.strip()
        if text.startswith(";"):
            header.read(text)
            body = None
        elif text:
            body = body or _Body(header.columns(), header.start_ns(), notes)
            if message := body.message(text):
                yield message


class _Header:
    """Reads the lines that begin with a semicolon."""

    def __init__(self, clock: WallClock, notes: Notes) -> None:
        self._clock, self._notes = clock, notes
        self._keywords: dict[str, str] = {}
        self._start_text = ""

    def read(self, line: str) -> None:
        """Read one line.  A line without a keyword and without a start time is a comment."""
        if found := _KEYWORD.match(line):
            self._keywords[found[1].upper()] = found[2].strip()
        elif found := _START.match(line):
            self._start_text = found[1]

    def columns(self) -> str:
        """Return the letters of the columns, in their order.  Raises: Unreadable if they are not known."""
        version = self._keywords.get("FILEVERSION", "1.0")
        if version not in _COLUMNS:
            raise Unreadable(f"TRC version {version} is unknown; export the log in one of {', '.join(_COLUMNS)}")
        if fixed := _COLUMNS[version]:
            return fixed
        columns = self._keywords.get("COLUMNS", "").replace(" ", "").replace(",", "")
        known = set(columns) <= set("NOTBIdRlLD") and len(set(columns)) == len(columns)
        if not known or not {*"OTID"} <= set(columns) or columns[-1] != "D" or not {"l", "L"} & set(columns):
            raise Unreadable(
                f"the columns {columns!r} do not tell time (O), kind (T), identifier (I), length (l or L) and, at the "
                "end, data (D); export the log with all columns"
            )
        return columns

    def start_ns(self) -> int:
        """Return the Unix time of the start, or 0 if the log has none, which is noted.  Raises: Unreadable."""
        # python-can's writer names the zone (UTC) in the comment, but not in $STARTTIME.
        if found := _OFFSET_OF_ZONE.match(self._start_text):
            return WallClock(found[2]).unix_ns(wall_time(found[1]))
        if days := self._keywords.get("STARTTIME"):
            return self._clock.unix_ns(_day_of(days), self._notes)
        if self._start_text:
            return self._clock.unix_ns(wall_time(self._start_text), self._notes)
        self._notes.say("the log has no start time, so its times count from 1970")
        return 0


def _day_of(text: str) -> datetime:
    try:
        days = Decimal(text.replace(",", "."))
        span = timedelta(microseconds=round(days * 86_400_000_000))
        if -int(days.as_tuple().exponent) <= _PEAK_DIGITS:
            span = timedelta(milliseconds=round(span / timedelta(milliseconds=1)))
        return _DAY_ZERO + span
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise Unreadable(f"$STARTTIME={text} is not a number of days; correct it in the log") from error


class _Body:
    """Converts the lines after a header."""

    def __init__(self, columns: str, start_ns: int, notes: Notes) -> None:
        self._notes, self._start_ns = notes, start_ns
        self._at = {letter: columns.find(letter) for letter in "NOTBID"}
        self._length_at = max(columns.find("l"), columns.find("L"))
        self._has_codes = "l" not in columns

    def message(self, line: str) -> can.Message | None:
        """Return the frame of a line, or None if the line tells something else.  Raises: Unreadable."""
        at = self._at
        fields = line.split(maxsplit=at["D"])
        try:
            fd, brs, esi = _FRAMES[kind := fields[at["T"]] if at["T"] >= 0 else ""]
            identifier, data = fields[at["I"]], fields[at["D"]] if len(fields) > at["D"] else ""
            number, length = int(identifier, 16), int(fields[self._length_at])
            bus = int(fields[at["B"]]) if at["B"] >= 0 else _ONLY_BUS
            time_s = self._time(fields)
            remote = kind == "RR" or data == "RTR"
            content = b"" if remote else bytes.fromhex(data)
        except (KeyError, ValueError, IndexError):
            return self._no_frame(line, fields)
        extended = len(identifier) > _STANDARD_DIGITS
        if number >= (_EXTENDED_IDS if extended else _STANDARD_IDS) or len(identifier) < _STANDARD_DIGITS:
            return self._no_frame(line, fields)
        count = 0 if remote else self._count(length, len(content), fd=fd)
        if len(content) != count:
            which = "few" if len(content) < count else "many"
            raise Unreadable(f"too {which} data bytes: the frame has {count}, the line {len(content)}; {DAMAGED}")
        if count > CLASSIC_BYTES and not fd:
            self._notes.leave_out(_J1939_MESSAGES)
            return None
        message = can.Message(time_s, number, extended, remote, channel=bus, dlc=count, data=bytearray(content))
        message.is_fd, message.bitrate_switch, message.error_state_indicator = fd, brs, esi
        return message

    def _count(self, length: int, data_bytes: int, *, fd: bool) -> int:
        """Return the number of data bytes of a frame with the length `length`, whose line has `data_bytes` of them."""
        if fd:
            count = _FD_LENGTHS[length] if self._has_codes and length < len(_FD_LENGTHS) else length
            if count > FD_BYTES:
                raise Unreadable(f"the frame has {count} data bytes; CAN FD has at most {FD_BYTES}; {DAMAGED}")
            return count
        # The length of a classic frame may be a raw length code.
        return CLASSIC_BYTES if data_bytes == CLASSIC_BYTES < length < len(_FD_LENGTHS) else length

    def _time(self, fields: list[str]) -> float:
        """Return the Unix time of a line.  Raises: ValueError or IndexError if it does not begin as a line of TRC."""
        number, offset = self._at["N"], fields[self._at["O"]]
        # A number ends with a digit, unlike "nan" and "inf", which `float` would accept.
        if not offset[-1].isdecimal() or (number >= 0 and not fields[number].rstrip(")").isdecimal()):
            raise ValueError
        # The start has microseconds, and the time of a line is milliseconds with up to three decimals.
        return (self._start_ns + round(float(offset) * 1e6)) / 1e9

    def _no_frame(self, line: str, fields: list[str]) -> can.Message | None:
        """Return the error frame of a line, or None for a state of the bus.  Raises: Unreadable for anything else."""
        kind_at, bus_at = self._at["T"], self._at["B"]
        try:
            time_s = self._time(fields)
        except (ValueError, IndexError) as error:
            raise Unreadable(f"{quoted(line)} does not begin with a number and a time; {DAMAGED}") from error
        if kind_at >= 0:
            kind = fields[kind_at] if len(fields) > kind_at else ""
        elif "ERROR" in line:  # Version 1.0 has no column for it.
            kind = "Error"
        else:
            kind = "Warng" if _WARNING_ID in line else ""
        if kind in _STATES:
            return None
        bus = fields[bus_at] if 0 <= bus_at < len(fields) else str(_ONLY_BUS)
        if kind in _ERRORS and bus.isdecimal():
            return can.Message(timestamp=time_s, is_error_frame=True, channel=int(bus))
        if kind in _FRAMES or not kind:
            raise Unreadable(f"{quoted(line)} is not a frame, or has too few fields; {DAMAGED}")
        raise Unreadable(f"{quoted(line)} is of the unknown kind {kind!r}; export the log again")
