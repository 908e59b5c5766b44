"""Reads the frames of a BLF log for the oracle, in another way than the agent.

The agent goes from object to object by their sizes.  This module unpacks all containers, and then searches for the
signature of an object with the number of a CAN frame.  It shares no code with the agent.  The whole log is in memory.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from agent.errors import Permanent

_CONTAINER: Final = 10
_CLASSIC, _FD, _FD_64, _ERRORS = (1, 86), 100, 101, (2, 73, 104)
_FRAME: Final = re.compile(
    rb"LOBJ[\x20-\x30]\0[\1-\3]\0....(?:%s)\0\0\0"
    % b"|".join(re.escape(bytes([n])) for n in (1, 2, 73, 86, 100, 101, 104)),
    re.DOTALL,
)


class Scanned(NamedTuple):
    """One frame.  Remote requests and error frames have no data."""

    t_s: float
    channel: int
    can_id: int
    extended: bool
    data: bytes


def scan(path: Path) -> Iterator[Scanned]:
    """Yield the frames of a BLF log.  Raises: Permanent if the log is not a BLF log, or if a part of it is missing."""
    content = path.read_bytes()
    try:
        head_bytes, claimed_bytes = struct.unpack_from("<L8xQ", content, 4)
        if not content.startswith(b"LOGG") or claimed_bytes > len(content):
            raise Permanent(f"{path}: The log has lost its end, or it is not a BLF log. Copy it again.")
        start_s = _seconds(struct.unpack_from("<8H", content, 40))
        for _, parts in groupby(_parts(content, head_bytes), lambda part: part[0]):
            yield from _frames(b"".join(part for _, part in parts), start_s)
    except (struct.error, zlib.error, EOFError) as error:
        raise Permanent(f"{path}: The log is truncated or damaged ({error}). Copy it again.") from error


def _parts(content: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield what the containers hold, with the number 0, and each object beside them, with a number of its own."""
    number = 0
    while (at := content.find(b"LOBJ", at)) >= 0:
        size, kind = struct.unpack_from("<LL", content, at + 8)
        if at + size > len(content) or size < 16:
            raise EOFError(f"the object at byte {at} has {size} bytes, more than the file")
        if kind == _CONTAINER:
            packed = content[at + 32 : at + size]
            yield 0, zlib.decompress(packed) if content[at + 16] else packed
        else:
            number += 1
            yield number, content[at : at + size]
        at += size


def _frames(objects: bytes, start_s: float) -> Iterator[Scanned]:
    for found in _FRAME.finditer(objects):
        at = found.start()
        head_bytes, _, size, kind, unit, ticks = struct.unpack_from("<HHLLL4xQ", objects, at + 4)
        if at + size > len(objects):
            raise EOFError("it ends within a frame")
        frame = _frame(kind, objects[at + head_bytes : at + size], start_s + ticks / (1e5 if unit == 1 else 1e9))
        if frame is not None:
            yield frame


def _frame(kind: int, body: bytes, t_s: float) -> Scanned | None:
    """Return the frame of an object, or None for a request to transmit one."""
    if kind in _ERRORS:
        return Scanned(t_s, (body[0] if kind == 104 else int.from_bytes(body[:2], "little")) - 1, 0, False, b"")
    if kind == _FD_64:
        channel, count, can_id, flags, direction = struct.unpack_from("<BxBxL4xL18xB", body)
        remote, request = flags & 0x10, direction == 2 or flags & 0xC0 == 0x80
        data = body[40 : 40 + count].ljust(count, b"\0")
    else:
        channel, way, count, can_id = struct.unpack_from("<HBBL", body)
        remote, request = way & 0x80, way & 0x0F == 2
        data = body[20 : 20 + body[14]] if kind == _FD else body[8 : 8 + min(count, 8)]
    if request:
        return None
    return Scanned(t_s, channel - 1, can_id & 0x1FFF_FFFF, can_id >> 31 == 1, b"" if remote else data)


def _seconds(start: tuple[int, ...]) -> float:
    year, month, _, day, hour, minute, second, millisecond = start
    if not year:
        return 0.0
    return datetime(year, month, day, hour, minute, second, millisecond * 1000, UTC).timestamp()
