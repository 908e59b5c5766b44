"""Writes BLF logs byte by byte, so that tests can choose each object, its header and where it stands."""

import struct
import zlib
from pathlib import Path

START_S = 1_709_978_400  # 2024-03-09 10:00:00 UTC
SYSTEMTIME = struct.pack("<8H", 2024, 3, 6, 9, 10, 0, 0, 0)
NANOSECONDS, TEN_MICROSECONDS = 2, 1
EXTENDED = 0x8000_0000


def an_object(kind: int, body: bytes, *, ticks: int = 0, unit: int = NANOSECONDS, version: int = 1) -> bytes:
    """Return an object without the padding after it."""
    extra = bytes(8) if version == 2 else b""
    size = 32 + len(extra) + len(body)
    head = struct.pack("<4sHHII", b"LOBJ", 32 + len(extra), version, size, kind)
    return head + struct.pack("<IHHQ", unit, 0, 0, ticks) + extra + body


def message(
    identifier: int = 0x123, data: bytes = b"\1\2", *, channel: int = 1, flags: int = 0, code: int | None = None
) -> bytes:
    """Return the body of a CAN_MESSAGE."""
    length = len(data) if code is None else code
    return struct.pack("<HBBI8s", channel, flags, length, identifier, data)


def fd_message(identifier: int, data: bytes, *, channel: int = 1, flags: int = 0, fd_flags: int = 1) -> bytes:
    """Return the body of a CAN_FD_MESSAGE."""
    head = struct.pack("<HBBIIBBB5x", channel, flags, 15, identifier, 0, 0, fd_flags, len(data))
    return head + data.ljust(64, b"\0") + bytes(4)


def fd_message_64(
    identifier: int, data: bytes, *, channel: int = 1, flags: int = 0x1000, direction: int = 0, valid: int | None = None
) -> bytes:
    """Return the body of a CAN_FD_MESSAGE_64.  It claims `valid` bytes of data, if given."""
    count = len(data) if valid is None else valid
    numbers = (channel, 15, count, 0, identifier, 0, flags, 0, 0, 0, 0, 0, direction, 0, 0)
    return struct.pack("<BBBBIIIIIIIHBBI", *numbers) + data


def padded(content: bytes) -> bytes:
    """Return an object with the padding that Vector's tools write: the remainder of its size, not what is lacking."""
    return content + bytes(len(content) % 4)


def container(content: bytes, *, method: int = 2) -> bytes:
    """Return a log container."""
    packed = zlib.compress(content) if method == 2 else content
    head = struct.pack("<4sHHII", b"LOBJ", 16, 1, 32 + len(packed), 10)
    return head + struct.pack("<H6xI4x", method, len(content)) + packed


def write(path: Path, content: bytes, *, objects: int = 0, claimed: int | None = None) -> Path:
    """Write a log whose header says `objects`, and the right size or `claimed` bytes."""
    size = 144 + len(content) if claimed is None else claimed
    head = struct.pack("<4sI8BQQII", b"LOGG", 144, 5, 0, 0, 0, 2, 6, 8, 1, size, size, objects, objects)
    path.write_bytes((head + SYSTEMTIME * 2).ljust(144, b"\0") + content)
    return path
