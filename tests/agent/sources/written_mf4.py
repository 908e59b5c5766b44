"""Writes MF4 logs byte by byte after ASAM MDF 4.1, so that tests can choose each group's members.

asammdf always writes the same members, and is the reader under test.  The records are the last block of the file.
"""

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

START = datetime(2024, 3, 9, 10, 0, tzinfo=UTC)

# Data types of channels (cn_data_type)
UNSIGNED, UNSIGNED_BIG, REAL, BYTES = 0, 1, 4, 10


@dataclass(frozen=True)
class Member:
    """A member of the structure: its name, its number of bytes, and its data type."""

    name: str
    size: int = 1
    kind: int = UNSIGNED


@dataclass(frozen=True)
class Group:
    """A channel group.  A record is (seconds, bytes of all members).  `claimed` is the number of records it says."""

    structure: str
    members: list[Member]
    records: list[tuple[float, bytes]]
    claimed: int | None = None
    bus: bool = True


@dataclass
class _Blocks:
    content: bytearray = field(default_factory=lambda: bytearray(_identification()))

    def add(self, name: str, links: list[int], data: bytes) -> int:
        """Append a block and return its place."""
        place = len(self.content)
        size = 24 + 8 * len(links) + len(data)
        self.content += struct.pack("<4s4xQQ", name.encode(), size, len(links))
        self.content += struct.pack(f"<{len(links)}Q", *links) + data
        self.content += bytes(-len(self.content) % 8)
        return place

    def text(self, text: str) -> int:
        return self.add("##TX", [], text.encode() + b"\0")

    def link(self, block: int, number: int, to: int) -> None:
        struct.pack_into("<Q", self.content, block + 24 + 8 * number, to)


def _identification() -> bytes:
    return struct.pack("<8s8s8s4xH30xHH", b"MDF     ", b"4.10    ", b"tests   ", 410, 0, 0)


def write(path: Path, *groups: Group) -> Path:
    """Write a log with these channel groups, and return its path."""
    blocks = _Blocks()
    start = struct.pack("<QhhBBBxdd", int(START.timestamp()) * 10**9, 0, 0, 0, 0, 0, 0.0, 0.0)
    header = blocks.add("##HD", [0] * 6, start)
    blocks.link(header, 1, blocks.add("##FH", [0, 0], struct.pack("<QhhB3x", 0, 0, 0, 0)))
    data_groups = [_group(blocks, group) for group in groups]
    for before, after in zip([None, *data_groups], data_groups, strict=False):
        blocks.link(header if before is None else before, 0, after)
    for place, group in zip(data_groups, groups, strict=True):
        records = b"".join(struct.pack("<d", t) + content for t, content in group.records)
        blocks.link(place, 2, blocks.add("##DT", [], records))
    path.write_bytes(blocks.content)
    return path


def _group(blocks: _Blocks, group: Group) -> int:
    members: list[int] = []
    at = 8
    for member in group.members:
        name = f"{group.structure}.{member.name}"
        members.append(_channel(blocks, name, kind=member.kind, at=at, size=member.size))
        at += member.size
    for before, after in pairwise(members):
        blocks.link(before, 0, after)
    structure = _channel(blocks, group.structure, kind=BYTES, at=8, size=at - 8, composition=members[0])
    time = _channel(blocks, "time", kind=REAL, at=0, size=8, channel_type=2, sync=1, following=structure)
    source = blocks.add("##SI", [0, 0, 0], struct.pack("<BBB5x", 2, 2, 0)) if group.bus else 0
    claimed = len(group.records) if group.claimed is None else group.claimed
    numbers = struct.pack("<QQHH4xII", 0, claimed, 6 if group.bus else 0, 0, at, 0)
    channels = blocks.add("##CG", [0, time, blocks.text("CAN"), source, 0, 0], numbers)
    return blocks.add("##DG", [0, channels, 0, 0], bytes(8))


def _channel(  # one parameter for each field that tests vary
    blocks: _Blocks,
    name: str,
    *,
    kind: int,
    at: int,
    size: int,
    channel_type: int = 0,
    sync: int = 0,
    composition: int = 0,
    following: int = 0,
) -> int:
    links = [following, composition, blocks.text(name), 0, 0, 0, 0, 0]
    numbers = struct.pack("<BBBBIIII B x H 6d", channel_type, sync, kind, 0, at, size * 8, 0, 0, 0, 0, *[0.0] * 6)
    return blocks.add("##CN", links, numbers)
