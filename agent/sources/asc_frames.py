"""Convert the events of an ASC log that are CAN frames, and tell them from other events.

A classic frame follows the number of its channel, and a frame of CAN FD follows the word CANFD.  Newer tools write all
frames after the word CANXL, with the kind of the frame: CBFF and CEFF are classic, FBFF and FEFF are CAN FD, and XLFF
is CAN XL, which is not read.  can-utils' asc2log.c quotes the fields from Vector's description of the format.
"""

import re
from typing import Final

import can

from agent.sources.log_lines import DAMAGED, REQUESTS, XL_FRAMES, Lines, Notes, Unreadable, data_bytes, quoted
from can_dbc.frames import CLASSIC_BYTES, FD_BYTES

_HEX: Final = 16
_STANDARD_IDS: Final = 1 << 11
_EXTENDED_IDS: Final = 1 << 29
_MOST_CODE: Final = 15  # of a length code (DLC)
_BYTE: Final = 255
_REQUEST: Final = "TXRQ"
_DIRECTIONS: Final = ("RX", "TX", _REQUEST)
_FRAME_LIKE: Final = re.compile(r"\s(?:Rx|Tx|TxRq)\s+[dr]\b", re.IGNORECASE)
_IDENTIFIER_LIKE: Final = re.compile(r"[0-9A-F]+x?$", re.IGNORECASE)
# Events of a CAN channel that are not frames: its load, its state, and messages that J1939 has joined from frames.
_CHANNEL_EVENTS: Final = ("statistic", "overrun", "overloadframe", "j1939tp")
# The first words of events of the measurement itself ("Start of measurement", "log trigger event", "CAN 1 Status:...").
_MEASUREMENT_EVENTS: Final = ("start", "stop", "end", "log", "can", "//", "triggerevent")
_OTHER_EVENTS: Final = "events of other kinds (other networks, variables, diagnostics)"
_FLAG_REMOTE: Final = 0x10  # flags of CANFD and CANXL lines
_FLAG_FD: Final = 0x1000
_FLAG_BRS: Final = 0x2000
_FLAG_ESI: Final = 0x4000


class AscFrames:
    """Converts events to python-can messages, whose time the caller sets."""

    def __init__(self, lines: Lines, notes: Notes) -> None:
        self._lines, self._notes = lines, notes
        self.base = _HEX

    def message(self, fields: list[str], line: str) -> can.Message | None:
        """Return the frame of an event, or None for an event that is not a frame.  `fields` are those of `line`.

        Raises: Unreadable if the event looks like a frame, but is not one.
        """
        try:
            kind = fields[1]
            if kind.isdecimal():
                return self._on_channel(fields, line)
            if kind.upper() == "CANFD":
                return self._fd_line(fields)
            if kind.upper() == "CANXL":
                return self._xl_line(fields)
        except IndexError as error:
            raise Unreadable(f"too few fields in {quoted(line)}; {DAMAGED}") from error
        if _FRAME_LIKE.search(line):
            raise Unreadable(f"{quoted(line)} looks like a frame, but {kind!r} is not a channel number; {DAMAGED}")
        if not kind.lower().startswith(_MEASUREMENT_EVENTS):
            self._notes.leave_out(_OTHER_EVENTS)
        return None

    def _on_channel(self, fields: list[str], line: str) -> can.Message | None:
        word = fields[2].lower()
        if word.startswith("errorframe"):
            return _error_on(fields[1])
        if word.startswith(_CHANNEL_EVENTS):
            return None
        if not _IDENTIFIER_LIKE.match(word) and not _FRAME_LIKE.search(line):
            self._notes.leave_out(_OTHER_EVENTS)
            return None
        direction, kind = fields[3].upper(), fields[4].lower()
        if direction not in _DIRECTIONS or kind not in ("d", "r"):
            raise Unreadable(f"{quoted(line)} is not a frame of ASC; {DAMAGED}")
        if direction == _REQUEST:
            self._notes.leave_out(REQUESTS)
            return None
        message = self._identified(fields[2], fields[1], self.base)
        if kind == "r":
            message.is_remote_frame = True
            return message
        count = min(self._length_code(fields[5]), CLASSIC_BYTES)
        _put_data(message, self._data(fields[6:], count))
        return message

    def _fd_line(self, fields: list[str]) -> can.Message | None:
        """Convert `time CANFD channel direction identifier [name] BRS ESI code bytes data... duration length flags`."""
        if fields[4].lower() == "errorframe":
            return _error_on(fields[2])
        if self._is_request(fields[3]):
            return None
        rest = fields[5:] if fields[5] in ("0", "1") and fields[6] in ("0", "1") else fields[6:]
        if not {rest[0], rest[1]} <= {"0", "1"}:
            raise Unreadable(f"{quoted(' '.join(fields))} has no BRS and ESI (0 or 1) after its identifier; {DAMAGED}")
        message = self._identified(fields[4], fields[2], self.base)
        code, count = self._length_code(rest[2]), _count(rest[3])
        data = self._data(rest[4:], count)
        behind = rest[4 + count :]
        flags = _flags(behind[2]) if len(behind) > 2 else None
        # The word CANFD only means that the channel supports CAN FD.  The flags say whether the frame is a classic one.
        message.is_fd = flags is None or bool(flags & _FLAG_FD) or count > CLASSIC_BYTES
        message.is_remote_frame = not count and (bool(code) if flags is None else bool(flags & _FLAG_REMOTE))
        if message.is_fd and not message.is_remote_frame:
            message.bitrate_switch, message.error_state_indicator = rest[0] == "1", rest[1] == "1"
        _put_data(message, data)
        return message

    def _xl_line(self, fields: list[str]) -> can.Message | None:
        """Convert `time CANXL channel direction kind duration bits identifier [name] code bytes data... ... flags`."""
        if "errorframe" in (fields[3].lower(), fields[4].lower()):
            return _error_on(fields[2])
        if self._is_request(fields[3]):
            return None
        kind = fields[4].upper()
        if kind == "XLFF":
            self._notes.leave_out(XL_FRAMES)
            return None
        if kind not in ("CBFF", "CEFF", "FBFF", "FEFF"):
            raise Unreadable(f"{kind!r} is not a kind of frame (CBFF, CEFF, FBFF, FEFF, XLFF); {DAMAGED}")
        mark = "x" if kind[1] == "E" else ""
        message = self._identified(fields[7].rstrip("xX") + mark, fields[2], _HEX)
        message.is_fd = kind[0] == "F"
        rest = fields[8:] if len(fields[8]) == 1 and fields[9].isdecimal() else fields[9:]
        count = _count(rest[1])
        _put_data(message, data_bytes(rest[2:], count))
        # The checksum stands before the flags, and before the checksum of CAN FD the number of stuff bits.
        flags = _flags(rest[2 + count + (2 if message.is_fd else 1)])
        message.is_remote_frame = not message.is_fd and bool(flags & _FLAG_REMOTE)
        message.bitrate_switch = message.is_fd and bool(flags & _FLAG_BRS)
        message.error_state_indicator = message.is_fd and bool(flags & _FLAG_ESI)
        return message

    def _is_request(self, direction: str) -> bool:
        if direction.upper() not in _DIRECTIONS:
            raise Unreadable(f"{direction!r} is not a direction (Rx, Tx, TxRq); {DAMAGED}")
        if direction.upper() == _REQUEST:
            self._notes.leave_out(REQUESTS)
        return direction.upper() == _REQUEST

    def _identified(self, text: str, channel: str, base: int) -> can.Message:
        extended = text[-1] in "xX"
        try:
            number = int(text[:-1] if extended else text, base)
        except ValueError as error:
            what = "hexadecimal" if base == _HEX else "decimal (the log has base dec)"
            raise Unreadable(f"the identifier {text!r} is not a {what} number; export the log with numbers") from error
        if not extended and number >= _STANDARD_IDS:
            self._notes.say("identifiers above 7FF have no mark x; they are read as identifiers of 29 bits")
            extended = True
        if not 0 <= number < _EXTENDED_IDS:
            raise Unreadable(f"the identifier {text!r} has more than 29 bits; {DAMAGED}")
        return can.Message(arbitration_id=number, is_extended_id=extended, channel=_channel(channel))

    def _length_code(self, text: str) -> int:
        """Convert a length code: one hex digit, or two decimal digits in a log with base dec."""
        try:
            code = int(text, self.base if len(text) > 1 else _HEX)
        except ValueError as error:
            raise Unreadable(f"the length code {text!r} is not a number; {DAMAGED}") from error
        if not 0 <= code <= _MOST_CODE:
            raise Unreadable(f"the length code {text!r} is above {_MOST_CODE}; {DAMAGED}")
        return code

    def _data(self, tokens: list[str], count: int) -> bytes:
        if self.base == _HEX:
            return data_bytes(tokens, count)
        if len(tokens) < count:
            raise Unreadable(
                f"too few data bytes: the frame has {count}, the line {len(tokens)}, so it was cut; {DAMAGED}"
            )
        for token in tokens[:count]:
            # "07" in a log with base dec could be hexadecimal, as some tools write CAN FD: it is not guessed.
            if not token.isdecimal() or int(token) > _BYTE or (len(token) > 1 and token[0] == "0"):
                raise Unreadable(f"{token!r} is not a decimal byte, but the log has base dec; export the log again")
        # The last byte of a line that was cut may have lost a digit.
        if tokens[count:] == [] and count and not self._lines.ended:
            raise Unreadable(f"the line ends within its frame; {DAMAGED}")
        return bytes(map(int, tokens[:count]))


def _channel(text: str) -> int:
    # Channels count from 1 in ASC, and from 0 in the names of buses.
    if not text.isdecimal() or int(text) < 1:
        raise Unreadable(f"{text!r} is not the number of a channel; ASC counts channels from 1: correct it in the log")
    return int(text) - 1


def _error_on(channel: str) -> can.Message:
    return can.Message(is_error_frame=True, channel=_channel(channel))


def _count(text: str) -> int:
    """Convert the number of data bytes, which is decimal whatever the base is."""
    if not text.isdecimal() or int(text) > FD_BYTES:
        raise Unreadable(f"{text!r} is not a number of data bytes up to {FD_BYTES}; {DAMAGED}")
    return int(text)


def _flags(text: str) -> int:
    try:
        return int(text, _HEX)
    except ValueError as error:
        raise Unreadable(f"{text!r} stands in the place of the frame's flags; {DAMAGED}") from error


def _put_data(message: can.Message, data: bytes) -> None:
    message.data, message.dlc = bytearray(data), len(data)
