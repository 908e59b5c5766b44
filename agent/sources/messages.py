"""Convert python-can messages to columns of frames.

The functions neither wait nor do I/O, but importing python-can loads its drivers and its configuration.
"""

from collections.abc import Sequence

import can
import numpy as np

from can_dbc.frames import BRS, CLASSIC_BYTES, ERROR, ESI, EXTENDED, FD, FD_BYTES, REMOTE, FrameBlock

STANDARD_IDS = 1 << 11
EXTENDED_IDS = 1 << 29


def is_frame(message: can.Message) -> bool:
    """Return whether a CAN bus can carry `message`.  Adapters on noisy serial lines also deliver other messages."""
    most = FD_BYTES if message.is_fd else CLASSIC_BYTES
    ids = EXTENDED_IDS if message.is_extended_id else STANDARD_IDS
    whole = message.is_remote_frame or len(message.data) == message.dlc
    return message.is_error_frame or (whole and message.dlc <= most and 0 <= message.arbitration_id < ids)


def block_of(
    messages: Sequence[can.Message], buses: tuple[str, ...], first: int, bus: Sequence[int] | None = None
) -> FrameBlock:
    """Convert messages to a frame block that keeps their order.  `first` is the position of the first frame.

    `bus` holds one index into `buses` for each message.  Without `bus`, all messages are of the first bus.  Each
    message must have a finite timestamp and an identifier of at most 29 bits.  Only error frames may have more than 64
    bytes of data, and the bytes beyond 64 are cut off.
    """
    data = [bytes(message.data[:FD_BYTES]) for message in messages]
    width = CLASSIC_BYTES if max(map(len, data), default=0) <= CLASSIC_BYTES else FD_BYTES
    times = np.array([message.timestamp for message in messages], np.float64)
    return FrameBlock(
        # The float seconds of python-can are exact to the microsecond, so times are rounded to whole microseconds.
        t_ns=np.rint(times * 1e6).astype(np.int64) * 1_000,
        bus=np.zeros(len(messages), np.uint8) if bus is None else np.array(bus, np.uint8),
        can_id=np.array([message.arbitration_id for message in messages], np.uint32),
        flags=np.array([flags_of(message) for message in messages], np.uint8),
        length=np.array([len(content) for content in data], np.uint8),
        data=np.frombuffer(b"".join([content.ljust(width, b"\0") for content in data]), np.uint8).reshape(-1, width),
        buses=buses,
        first=first,
    )


def flags_of(message: can.Message) -> int:
    """Return the flags of a message, as `can_dbc.frames` defines them."""
    flags = EXTENDED if message.is_extended_id else 0
    if message.is_remote_frame:
        flags |= REMOTE
    if message.is_error_frame:
        flags |= ERROR
    if message.is_fd:
        flags |= FD | (BRS if message.bitrate_switch else 0) | (ESI if message.error_state_indicator else 0)
    return flags
