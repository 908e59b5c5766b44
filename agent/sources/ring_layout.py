"""Read and write the bytes of a packet ring of CAN frames as a numpy array.  Pure.

One slot of a TPACKET_V2 ring (<linux/if_packet.h>, packet_mmap(7)), native byte order, SLOT_BYTES:

     0  status    u32   0: free, owned by the kernel; bit 0: holds a frame, owned by the reader
     4  size      u32   bytes of the frame: 16 classic, 72 CAN FD
     8  captured  u32   bytes of the frame in the slot, set by the kernel; the reader writes 0 to mark the frame as read
    16  seconds   u32   kernel timestamp, Unix epoch
    20  nanoseconds u32
    32  sockaddr_ll     20 bytes, not needed
    56  cursor    u64   slot 0 only: the position to read next; the kernel writes nothing between 52 and 80
    64  marked    u64   slot 0 only: the position before which every frame has been marked, or is being marked now
    80  can_id    u32   struct can_frame or canfd_frame: identifier and EFF, RTR, ERR in the upper three bits
    84  length    u8
    85  fd_flags  u8    bit 0 BRS, bit 1 ESI; meaningless in classic frames
    88  data      8 or 64 bytes; bytes beyond `length` have no meaning

The position of a frame is its running number.  The kernel fills slots in order and stops at a slot that is not free.
The frame at position p is therefore in slot p modulo the number of slots.  The oldest frames are *held*: they have been
read, but not released.  All later frames are unread.  Slots without a held or unread frame are free.

A reader marks frames as read before it moves the cursor past them.  The kernel removes the mark of a slot when it
writes a new frame there.  Marked frames before the cursor are therefore held, and frames from the cursor on are unread.
Invariant: at whatever moment a reader is killed, `recover` tells its successor exactly which frames are held and which
are unread.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.frames import BRS, ERROR, ESI, EXTENDED, FD, FD_BYTES, REMOTE, FrameBlock

SLOT_BYTES: Final = 160  # 80 before the frame, 72 for the largest frame, rounded up to TPACKET_ALIGNMENT (16).
SLOT: Final = np.dtype(
    {
        "names": [
            "status",
            "size",
            "captured",
            "seconds",
            "nanoseconds",
            "cursor",
            "marked",
            "can_id",
            "length",
            "fd_flags",
            "data",
            "fd_data",
        ],
        "formats": ["u4", "u4", "u4", "u4", "u4", "u8", "u8", "u4", "u1", "u1", "u8", "8u8"],
        "offsets": [0, 4, 8, 16, 20, 56, 64, 80, 84, 85, 88, 88],
        "itemsize": SLOT_BYTES,
    }
)
FREE: Final = 0
_USER: Final = 1  # TP_STATUS_USER
_FD_SIZE: Final = 72
_CLASSIC_SIZE: Final = 16
# Slots never cross the end of a block (packet_mmap(7)).  A block of a multiple of 5 pages of 4 KiB holds slots of 160
# bytes without a gap at its end, so that all blocks together are one array.
_BLOCK_PAGES: Final = 15
_LOOK_AHEAD: Final = 256  # Slots looked at first: some 100 ms of a busy bus.

# These tables are indexed by the upper three bits of can_id (ERR, RTR, EFF from bit 29 on).
_FLAGS: Final = np.array(
    [(bits & 1 and ERROR) | (bits & 2 and REMOTE) | (bits & 4 and EXTENDED) for bits in range(8)], np.uint8
)
_ID_MASK: Final = np.array([0x7FF if bits in {0, 2} else 0x1FFF_FFFF for bits in range(8)], np.uint32)
_FD_FLAGS: Final = np.array([FD | (bits & 1 and BRS) | (bits & 2 and ESI) for bits in range(4)], np.uint8)
# The masks are indexed by length, and have ones in the bytes that hold data.
_BYTES: Final = np.where(np.arange(FD_BYTES) < np.arange(FD_BYTES + 1)[:, None], 255, 0).astype(np.uint8)
_FD_MASK: Final = _BYTES.view(np.uint64)
_CLASSIC_MASK: Final = np.ascontiguousarray(_FD_MASK[:9, 0])

Slots = NDArray[np.void]


def geometry(ring_bytes: int, page_bytes: int) -> tuple[int, int, int, int]:
    """Return the fields of struct tpacket_req for a ring of about `ring_bytes`.

    They are block size (bytes), number of blocks, slot size (bytes) and number of slots.
    """
    block_bytes = _BLOCK_PAGES * page_bytes
    blocks = max(1, ring_bytes // block_bytes)
    return block_bytes, blocks, SLOT_BYTES, blocks * block_bytes // SLOT_BYTES


def frame_filter() -> bytes:
    """Return a socket filter (classic BPF) that accepts whole CAN and CAN FD frames only.

    Packets of other sizes (CAN XL) and frames with impossible lengths never reach the ring, so every slot that is
    filled holds a frame.
    """
    ld_size, ld_byte, equal, above, ret = 0x80, 0x30, 0x15, 0x25, 0x06
    program: Sequence[tuple[int, int, int, int]] = (
        (ld_size, 0, 0, 0),
        (equal, 0, 3, _CLASSIC_SIZE),
        (ld_byte, 0, 0, 4),
        (above, 4, 0, 8),
        (ret, 0, 0, 0xFFFF),
        (equal, 0, 2, _FD_SIZE),
        (ld_byte, 0, 0, 4),
        (above, 0, 1, FD_BYTES),
        (ret, 0, 0, 0),
        (ret, 0, 0, 0xFFFF),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def unread(slots: Slots, position: int, held: int) -> int:
    """Return the number of unread frames, which begin at `position`.  `held` is the number of held frames."""
    # A drain finds few frames in a large ring, so the status words are examined in growing steps.
    most = len(slots) - held
    status = slots["status"]
    found, ahead = 0, _LOOK_AHEAD
    while found < most:
        start = (position + found) % len(slots)
        ready = (status[start : start + min(ahead, most - found)] & _USER).astype(bool)
        if not ready.all():
            return found + int(ready.argmin())
        found += len(ready)
        ahead *= 4
    return found


def read(slots: Slots, position: int, count: int, buses: tuple[str]) -> FrameBlock:
    """Return a copy of the `count` frames from `position` on, and mark these frames as read in the ring."""
    runs = _runs(slots, position, count)
    block = _columns(runs[0] if len(runs) == 1 else np.concatenate(runs), buses, position)
    # The order of these writes matters: `recover` finds the right result even if the reader is killed between them.
    slots["marked"][0] = max(int(slots["marked"][0]), position + count)
    for run in runs:
        run["captured"] = 0
    slots["cursor"][0] = position + count
    return block


def release(slots: Slots, start: int, stop: int) -> None:
    """Give the slots of positions `start` to `stop`-1 back to the kernel."""
    for run in _runs(slots, start, stop - start):
        run["status"] = FREE


def recover(slots: Slots) -> tuple[int, int]:
    """Return two positions in a ring that another reader left: the oldest held frame, and the frame to read next.

    Both are the same if no frame is held.
    """
    cursor, marked = int(slots["cursor"][0]), int(slots["marked"][0])
    carries = ((slots["status"] & _USER) != 0) & (slots["captured"] == 0)
    # The search runs from the cursor backwards, and ends before the `marked - cursor` slots from the cursor on.  These
    # slots count as unread.  Their marks come from a reader that went back (`rewind`) or was killed before it moved the
    # cursor.
    backwards = np.roll(carries, -(cursor % len(slots)))[::-1][: len(slots) - (marked - cursor)]
    held = len(backwards) if backwards.all() else int(backwards.argmin())
    return cursor - held, cursor


def counted(slots: Slots) -> int:
    """Return the position before which every frame was read at least once, by this reader or an earlier one."""
    return max(int(slots["cursor"][0]), int(slots["marked"][0]))


def rewind(slots: Slots, position: int) -> None:
    """Move the cursor back to the held frame at `position`, so that this frame and all later ones are read again."""
    slots["cursor"][0] = position


def number(slots: Slots, position: int) -> int:
    """Give the next frame to be read a new position of at least `position`, and return the new position.

    The slot of the frame is fixed, and the position must belong to this slot.  The result is therefore the lowest
    such position that is not below `position`.

    All frames in the ring count as new from now on.  Call this function only after a `rewind` to the oldest held frame.
    """
    # `recover` would mistake a mark of an earlier reader for a mark of this reader.  Free slots are left alone, because
    # they belong to the kernel, which may write there at any moment.
    slots["captured"][(slots["status"] & _USER) != 0] = _CLASSIC_SIZE
    cursor = int(slots["cursor"][0])
    position += (cursor - position) % len(slots)
    slots["cursor"][0] = position
    slots["marked"][0] = position
    return position


def _runs(slots: Slots, position: int, count: int) -> tuple[Slots, ...]:
    start = position % len(slots)
    stop = start + count
    if stop <= len(slots):
        return (slots[start:stop],)
    return slots[start:], slots[: stop - len(slots)]


def _columns(run: Any, buses: tuple[str], position: int) -> FrameBlock:
    # The upper three bits are CAN_ERR_FLAG, CAN_RTR_FLAG and CAN_EFF_FLAG (<linux/can.h>).
    kind = run["can_id"] >> 29
    flags = _FLAGS[kind]
    # A remote request has a length code but no data (ISO 11898-1).
    length = np.where(flags & REMOTE, np.uint8(0), run["length"])
    fd = run["size"] == _FD_SIZE
    if fd.any():
        flags = np.where(fd, flags | _FD_FLAGS[run["fd_flags"] & 3], flags)
        data = run["fd_data"] & _FD_MASK[length]
    else:
        data = run["data"] & _CLASSIC_MASK[length]
    return FrameBlock(
        t_ns=run["seconds"].astype(np.int64) * 1_000_000_000 + run["nanoseconds"],
        bus=np.zeros(len(run), np.uint8),
        can_id=run["can_id"] & _ID_MASK[kind],
        flags=flags,
        length=length,
        data=data.view(np.uint8).reshape(len(run), -1),
        buses=buses,
        first=position,
    )
