"""Convert python-can messages to columns of frames.

Nothing here waits or does I/O, but importing python-can loads its drivers and its configuration.
"""

from collections.abc import Sequence

import can
import numpy as np

from can_dbc.frames import BRS, CLASSIC_BYTES, ERROR, ESI, EXTENDED, FD, FD_BYTES, REMOTE, FrameBlock

_STANDARD_IDS = 1 << 11
_EXTENDED_IDS = 1 << 29


def is_frame(message: can.Message) -> bool:
    """Whether a message is one that a CAN bus can carry; adapters on noisy serial lines deliver others."""
    most = FD_BYTES if message.is_fd else CLASSIC_BYTES
    ids = _EXTENDED_IDS if message.is_extended_id else _STANDARD_IDS
    whole = message.is_remote_frame or len(message.data) == message.dlc
    return message.is_error_frame or (whole and message.dlc <= most and 0 <= message.arbitration_id < ids)


def block_of(messages: Sequence[can.Message], buses: tuple[str], first: int) -> FrameBlock:
    """Convert messages of one bus to a frame block.

    The float timestamps of python-can are exact to the microsecond, so times are rounded to whole microseconds.
    """
    data = [bytes(message.data[:FD_BYTES]) for message in messages]
    width = CLASSIC_BYTES if max(map(len, data), default=0) <= CLASSIC_BYTES else FD_BYTES
    times = np.array([message.timestamp for message in messages], np.float64)
    return FrameBlock(
        t_ns=np.rint(times * 1e6).astype(np.int64) * 1_000,
        bus=np.zeros(len(messages), np.uint8),
        can_id=np.array([message.arbitration_id for message in messages], np.uint32),
        flags=np.array([flags_of(message) for message in messages], np.uint8),
        length=np.array([len(content) for content in data], np.uint8),
        data=np.frombuffer(b"".join(content.ljust(width, b"\0") for content in data), np.uint8).reshape(-1, width),
        buses=buses,
        first=first,
    )


def flags_of(message: can.Message) -> int:
    """The flags of `can_dbc.frames`."""
    flags = EXTENDED if message.is_extended_id else 0
    flags |= REMOTE if message.is_remote_frame else 0
    flags |= ERROR if message.is_error_frame else 0
    if message.is_fd:
        flags |= FD | (BRS if message.bitrate_switch else 0) | (ESI if message.error_state_indicator else 0)
    return flags
