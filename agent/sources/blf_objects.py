"""Convert the objects of a BLF log that hold one CAN frame each.

There is no public specification of BLF.  The layouts here follow the structures of Vector's `binlog` interface, as
Wireshark (wiretap/blf.c), vector_blf and vblf read them; tests compare this module with python-can and vblf.  All
numbers are little-endian.  An object begins with a header:

    offset  size  content
         0     4  "LOBJ"
         4     2  size of the header: 32 bytes in versions 1 and 3, 40 in version 2
         6     2  version of the header
         8     4  size of the object with its header; up to 3 bytes of padding follow, which are not counted
        12     4  type of the object
        16     4  flags: 1 if the unit of the time is 10 µs, 2 if it is 1 ns
        24     8  time since the start of the measurement

Versions differ only in fields that no frame needs.  After the header comes what the type defines.  Channels count
from 1.
"""

import struct
from collections.abc import Callable
from typing import Final

import can

from can_dbc.frames import CLASSIC_BYTES, FD_BYTES

SIGNATURE: Final = b"LOBJ"
BASE: Final = struct.Struct("<4sHHLL")
"""The beginning of the header, which objects of all versions have."""

LOG_CONTAINER: Final = 10
HEADER_BYTES: Final = 32
_VERSIONS: Final = (1, 2, 3)
_COMMON: Final = struct.Struct("<L4xQ")  # flags and time, after the beginning of the header
_TEN_MICROSECONDS: Final = 1
_NANOSECOND: Final = 2

_MESSAGE: Final = struct.Struct("<HBBL")  # channel, flags, length code, identifier; then 8 bytes of data
_FD_MESSAGE: Final = struct.Struct("<HBBL5xBB5x")  # as above, then FD flags and number of bytes; then 64 bytes of data
# channel, length code, number of bytes, identifier, flags, direction, place of the extension; then the data
_FD_MESSAGE_64: Final = struct.Struct("<BBBxL4xL18xBB4x")
_ERROR: Final = struct.Struct("<H2x")  # channel
_ERROR_EXT: Final = struct.Struct("<H8xB5xL4x")  # channel, length code, identifier; then 8 bytes of data
_FD_ERROR_64: Final = struct.Struct("<B11xL")  # channel, identifier

_EXTENDED: Final = 0x8000_0000
_ID_BITS: Final = 0x1FFF_FFFF
_REMOTE: Final = 0x80
_DIRECTION: Final = 0x0F
_RECEIVED, _SENT, _REQUESTED = range(3)  # the values of a direction
_EDL, _BRS, _ESI = 0x01, 0x02, 0x04
_REMOTE_64, _SENT_64, _REQUESTED_64 = 0x10, 0x40, 0x80
_EDL_64, _BRS_64, _ESI_64 = 0x1000, 0x2000, 0x4000

REQUESTS: Final = "transmit requests (TxRq), which are not frames of the bus"

# The objects that logs of CAN buses often have besides the frames.  Others are named by their number.
_NAMES: Final = {
    3: "CAN_OVERLOAD",
    4: "CAN_STATISTIC",
    5: "APP_TRIGGER",
    6: "ENV_INTEGER",
    7: "ENV_DOUBLE",
    8: "ENV_STRING",
    9: "ENV_DATA",
    11: "LIN_MESSAGE",
    31: "CAN_DRIVER_ERROR",
    44: "CAN_DRIVER_SYNC",
    50: "FR_RCVMESSAGE",
    51: "REALTIMECLOCK",
    57: "LIN_MESSAGE2",
    65: "APP_TEXT",
    66: "FR_RCVMESSAGE_EX",
    71: "ETHERNET_FRAME",
    72: "SYS_VARIABLE",
    74: "CAN_DRIVER_ERROR_EXT",
    90: "SERIAL_EVENT",
    91: "OVERRUN_ERROR",
    92: "EVENT_COMMENT",
    96: "GLOBAL_MARKER",
    115: "RESTORE_POINTS",
    120: "ETHERNET_FRAME_EX",
    125: "DATA_LOST_BEGIN",
    126: "DATA_LOST_END",
}


class NoFrame(Exception):
    """Says why an object of a sound log gives no frame.  `oddity` counts as a kind of objects in a note."""

    def __init__(self, oddity: str) -> None:
        super().__init__(oddity)
        self.oddity = oddity


def message_of(content: bytes, start_s: float, oddities: Callable[[str], None]) -> can.Message:
    """Return the frame in `content`, which is one whole object.  `start_s` is the start of the measurement.

    `oddities` is called with what is unusual about an object whose frame can be read nevertheless.

    Raises: NoFrame if the object holds no frame, and ValueError if the object is too short for what its type defines.
    """
    _, header_bytes, version, size, kind = BASE.unpack_from(content)
    if (convert := _KINDS.get(kind)) is None:
        raise NoFrame(f"objects of type {kind}" + (f" ({_NAMES[kind]})" if kind in _NAMES else ""))
    if version not in _VERSIONS:
        raise NoFrame(f"objects of type {kind} with the unknown header version {version}")
    if version == 3:
        oddities("frames with header version 3, which were read like version 1")
    try:
        flags, ticks = _COMMON.unpack_from(content, BASE.size)
        message = convert(content, max(header_bytes, HEADER_BYTES))
    except struct.error as error:
        raise ValueError(f"an object of type {kind} has only {size} bytes") from error
    if flags & (_TEN_MICROSECONDS | _NANOSECOND) == 0:
        oddities("frames that do not say the unit of their time, which was read as 1 ns")
    message.timestamp = start_s + ticks * (1e-5 if flags & _TEN_MICROSECONDS else 1e-9)
    if message.channel == -1:
        oddities("frames with channel 0, although BLF counts from 1; their bus is can-1")
    return message


def _message(content: bytes, at: int) -> can.Message:
    channel, flags, code, identifier = _MESSAGE.unpack_from(content, at)
    remote = bool(flags & _REMOTE)
    _refuse_request(flags & _DIRECTION)
    data = _data(content, at + _MESSAGE.size, 0 if remote else min(code, CLASSIC_BYTES))
    return _frame(channel, identifier, data, dlc=code, is_remote_frame=remote)


def _fd_message(content: bytes, at: int) -> can.Message:
    channel, flags, _, identifier, fd_flags, count = _FD_MESSAGE.unpack_from(content, at)
    remote = bool(flags & _REMOTE)
    _refuse_request(flags & _DIRECTION)
    return _frame(
        channel,
        identifier,
        _data(content, at + _FD_MESSAGE.size, 0 if remote else count),
        dlc=count,
        is_remote_frame=remote,
        is_fd=bool(fd_flags & _EDL),
        bitrate_switch=bool(fd_flags & _BRS),
        error_state_indicator=bool(fd_flags & _ESI),
    )


def _fd_message_64(content: bytes, at: int) -> can.Message:
    channel, _, count, identifier, flags, direction, extension = _FD_MESSAGE_64.unpack_from(content, at)
    remote = bool(flags & _REMOTE_64)
    # A frame that was sent may still have the mark of its request.
    _refuse_request(_REQUESTED if flags & (_REQUESTED_64 | _SENT_64) == _REQUESTED_64 else direction)
    begin, wanted = at + _FD_MESSAGE_64.size, 0 if remote else min(count, FD_BYTES)
    # Vector's tools leave out bytes at the end of the data, and read them as zero
    # (https://github.com/hardbyte/python-can/issues/1905).
    data = content[begin : min(begin + wanted, extension or len(content))].ljust(wanted, b"\0")
    return _frame(
        channel,
        identifier,
        data,
        dlc=count,
        is_remote_frame=remote,
        is_fd=bool(flags & _EDL_64),
        bitrate_switch=bool(flags & _BRS_64),
        error_state_indicator=bool(flags & _ESI_64),
    )


def _error(content: bytes, at: int) -> can.Message:
    (channel,) = _ERROR.unpack_from(content, at)
    return _frame(channel, 0, b"", is_error_frame=True)


def _error_ext(content: bytes, at: int) -> can.Message:
    channel, code, identifier = _ERROR_EXT.unpack_from(content, at)
    data = _data(content, at + _ERROR_EXT.size, min(code, CLASSIC_BYTES))
    return _frame(channel, identifier, data, dlc=code, is_error_frame=True)


def _fd_error_64(content: bytes, at: int) -> can.Message:
    channel, identifier = _FD_ERROR_64.unpack_from(content, at)
    return _frame(channel, identifier, b"", is_error_frame=True, is_fd=True)


def _refuse_request(direction: int) -> None:
    if direction == _REQUESTED:
        raise NoFrame(REQUESTS)


def _data(content: bytes, begin: int, count: int) -> bytes:
    end = begin + min(count, FD_BYTES)
    if end > len(content):
        raise struct.error
    return content[begin:end]


def _frame(channel: int, identifier: int, data: bytes, *, dlc: int = 0, **flags: bool) -> can.Message:
    return can.Message(
        arbitration_id=identifier & _ID_BITS,
        is_extended_id=bool(identifier & _EXTENDED),
        data=data,
        dlc=dlc,
        channel=channel - 1,
        **flags,
    )


_KINDS: Final[dict[int, Callable[[bytes, int], can.Message]]] = {
    1: _message,  # CAN_MESSAGE
    2: _error,  # CAN_ERROR
    73: _error_ext,  # CAN_ERROR_EXT
    86: _message,  # CAN_MESSAGE2, which has more fields after the data
    100: _fd_message,  # CAN_FD_MESSAGE
    101: _fd_message_64,  # CAN_FD_MESSAGE_64
    104: _fd_error_64,  # CAN_FD_ERROR_64
}
