"""Test the layout of the packet ring with a model of the kernel.  Readers are killed between any two writes."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sources import ring_layout
from can_dbc.frames import BRS, ERROR, ESI, EXTENDED, FD, REMOTE

HEADER = struct.Struct("=IIIHHIIHH4x")  # struct tpacket2_hdr
EFF, RTR, ERR = 0x8000_0000, 0x4000_0000, 0x2000_0000


class Kernel:
    """Fills slots as tpacket_rcv() does, and drops a frame if no slot is free.  Frame n has identifier n."""

    def __init__(self, slots: int) -> None:
        self.memory = np.zeros(slots * ring_layout.SLOT_BYTES, np.uint8)
        self.slots = self.memory.view(ring_layout.SLOT)
        self.sent: list[int] = []
        self._frames = 0
        self._head = 0

    def receive(self, frame: bytes | None = None, seconds: int = 1, nanoseconds: int = 2) -> None:
        number, self._frames = self._frames, self._frames + 1
        if frame is None:
            frame = struct.pack("=IB3x8x", number | EFF, 0)
        slot = self.memory[self._head * ring_layout.SLOT_BYTES :][: ring_layout.SLOT_BYTES]
        if slot[:4].view("u4")[0] != ring_layout.FREE:
            return
        slot[:32] = np.frombuffer(HEADER.pack(0, len(frame), len(frame), 80, 80, seconds, nanoseconds, 0, 0), np.uint8)
        slot[32:52] = 0xAA  # sockaddr_ll
        slot[80 : 80 + len(frame)] = np.frombuffer(frame, np.uint8)
        slot[0] = 1
        self.sent.append(number)
        self._head = (self._head + 1) % len(self.slots)


def read_one(frame: bytes, **times: int) -> tuple[int, int, int, bytes, int]:
    kernel = Kernel(4)
    kernel.memory[:] = 0
    kernel.memory[80:160] = 0xFF  # bytes of an earlier frame
    kernel.receive(frame, **times)
    block = ring_layout.read(kernel.slots, 0, 1, ("can0",))
    assert block.data.flags.c_contiguous
    return (
        int(block.can_id[0]),
        int(block.flags[0]),
        int(block.length[0]),
        block.data[0].tobytes(),
        int(block.t_ns[0]),
    )


def classic(can_id: int, data: bytes, room: bytes = b"") -> bytes:
    return struct.pack("=IB3x", can_id, len(data)) + data + (room or b"\xee" * 8)[: 8 - len(data)]


def fd(can_id: int, data: bytes, flags: int) -> bytes:
    return struct.pack("=IBB2x", can_id, len(data), flags) + data + b"\xee" * (64 - len(data))


@pytest.mark.parametrize(
    ("frame", "can_id", "flags", "data"),
    [
        (classic(0x7FF, b"12345678"), 0x7FF, 0, b"12345678"),
        (classic(0x1FFF_FFFF | EFF, b"1"), 0x1FFF_FFFF, EXTENDED, b"1"),
        (classic(0x12 | RTR, b"1234"), 0x12, REMOTE, b""),
        (classic(0x12 | RTR | EFF, b""), 0x12, REMOTE | EXTENDED, b""),
        (classic(0x1000 | ERR, bytes(range(8))), 0x1000, ERROR, bytes(range(8))),
        (fd(0x123, bytes(range(64)), 0), 0x123, FD, bytes(range(64))),
        (fd(0x123 | EFF, b"123456789012", 1), 0x123, FD | EXTENDED | BRS, b"123456789012"),
        (fd(1, b"", 2), 1, FD | ESI, b""),
        (fd(1, b"a", 7), 1, FD | BRS | ESI, b"a"),  # bit 2 says "FD" in newer kernels
    ],
)
def test_a_frame_is_what_can_h_says(frame: bytes, can_id: int, flags: int, data: bytes) -> None:
    width = 64 if flags & FD else 8
    assert read_one(frame) == (can_id, flags, len(data), data.ljust(width, b"\0"), 1_000_000_002)


def test_times_are_exact_to_the_nanosecond_until_2106() -> None:
    assert read_one(classic(1, b""), seconds=2**32 - 1, nanoseconds=999_999_999)[4] == (2**32 - 1) * 10**9 + 999_999_999


def test_classic_frames_beside_fd_frames_are_zero_beyond_their_length() -> None:
    kernel = Kernel(4)
    kernel.receive(fd(1, bytes([7] * 64), 0))
    kernel.receive(classic(2, b"ab"))
    block = ring_layout.read(kernel.slots, 0, 2, ("can0",))
    assert block.data.tolist() == [[7] * 64, [97, 98] + [0] * 62]


@pytest.mark.parametrize("page", [4_096, 16_384, 65_536])
@pytest.mark.parametrize("size", [1, 1_000_000, 8_000_000])
def test_the_geometry_is_one_even_array_that_the_kernel_accepts(page: int, size: int) -> None:
    block, blocks, slot, slots = ring_layout.geometry(size, page)
    assert block % page == 0
    assert block % slot == 0
    assert slots == blocks * (block // slot)
    assert block * blocks <= max(size, block)


class Reader:
    """Reads and releases slots as the packet ring's source does.  A new reader recovers its position from the slots."""

    def __init__(self, kernel: Kernel) -> None:
        self.slots = kernel.slots
        self.held_from, self.position = ring_layout.recover(self.slots)
        ring_layout.rewind(self.slots, self.held_from)
        self.position = self.held_from

    def read(self) -> tuple[int, list[int]]:
        count = ring_layout.unread(self.slots, self.position, self.position - self.held_from)
        first = self.position
        if not count:
            return first, []
        block = ring_layout.read(self.slots, first, count, ("can0",))
        self.position += count
        return first, block.can_id.tolist()

    def release(self, position: int) -> None:
        ring_layout.release(self.slots, self.held_from, position)
        self.held_from = position


def _killed_in_read(reader: Reader, writes: int) -> None:
    """Make only the first `writes` of the writes that ring_layout.read makes, in the same order."""
    count = ring_layout.unread(reader.slots, reader.position, reader.position - reader.held_from)
    marks = [(reader.position + n) % len(reader.slots) for n in range(count)]
    if not count or not writes:
        return
    reader.slots["marked"][0] = max(int(reader.slots["marked"][0]), reader.position + count)
    for slot in marks[: writes - 1]:
        reader.slots["captured"][slot] = 0


def _killed_in_release(reader: Reader, position: int, writes: int) -> None:
    ring_layout.release(reader.slots, reader.held_from, min(position, reader.held_from + writes))


ACTION = st.one_of(
    st.tuples(st.just("frames"), st.integers(1, 14)),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("durable"), st.integers(0, 10)),
    st.tuples(st.just("killed"), st.just(0)),
    st.tuples(st.just("killed in read"), st.integers(0, 12)),
    st.tuples(st.just("killed in release"), st.integers(0, 12)),
)


@settings(max_examples=1_500, deadline=None)
@given(st.integers(2, 11), st.lists(ACTION, max_size=40))
def test_whenever_readers_are_killed_each_frame_becomes_durable_once(
    slots: int, actions: list[tuple[str, int]]
) -> None:
    kernel = Kernel(slots)
    reader = Reader(kernel)
    delivered: dict[int, int] = {}  # frames that this reader has delivered, by position
    stored: dict[int, int] = {}
    durable = 0  # every position below is stored, as the spool reports it

    def make_durable(position: int) -> None:
        nonlocal durable
        for number in range(durable, position):
            stored[number] = delivered[number]
        durable = max(durable, position)

    for action, amount in [*actions, ("read", 0), ("durable", 100)]:
        match action:
            case "frames":
                for _ in range(amount):
                    kernel.receive()
            case "read":
                first, ids = reader.read()
                delivered |= {first + n: can_id for n, can_id in enumerate(ids)}
            case "durable":
                position = min(reader.position, durable + amount)
                make_durable(position)
                if position > reader.held_from:
                    reader.release(position)
            case _:
                if action == "killed in read":
                    _killed_in_read(reader, amount)
                elif action == "killed in release":
                    position = reader.position
                    make_durable(position)
                    _killed_in_release(reader, position, amount)
                reader, delivered = Reader(kernel), {}
                assert reader.held_from <= durable  # no frame was released before it was durable
                first, ids = reader.read()
                delivered |= {first + n: can_id for n, can_id in enumerate(ids)}
    first, ids = reader.read()
    delivered |= {first + n: can_id for n, can_id in enumerate(ids)}
    make_durable(reader.position)
    assert [stored[position] for position in sorted(stored)] == kernel.sent
    assert sorted(stored) == list(range(len(kernel.sent)))


def test_positions_go_on_above_those_of_an_earlier_ring() -> None:
    kernel = Kernel(7)
    assert ring_layout.number(kernel.slots, 100) == 105  # on slot 0
    for _ in range(3):
        kernel.receive()
    assert ring_layout.recover(kernel.slots) == (105, 105)
    assert ring_layout.read(kernel.slots, 105, 3, ("can0",)).first == 105


@given(st.integers(1, 7), st.integers(0, 7), st.integers(0, 7))
def test_frames_that_another_reader_held_are_new_frames_after_a_renumbering(sent: int, held: int, again: int) -> None:
    kernel = Kernel(7)
    for _ in range(sent):
        kernel.receive()
    held = min(held, sent)
    if held:
        ring_layout.read(kernel.slots, 0, held, ("can0",))
    ring_layout.rewind(kernel.slots, 0)  # the reader begins, and finds that positions below 100 are used
    first = ring_layout.number(kernel.slots, 100)
    assert ring_layout.recover(kernel.slots) == (first, first)
    count = min(again, sent)
    if count:
        assert ring_layout.read(kernel.slots, first, count, ("can0",)).can_id.tolist() == list(range(count))
    assert ring_layout.recover(kernel.slots) == (first, first + count)  # the reader is killed here
    assert ring_layout.unread(kernel.slots, first + count, count) == sent - count


def test_the_filter_accepts_whole_can_frames_only() -> None:
    program = list(struct.iter_unpack("HBBI", ring_layout.frame_filter()))

    def accepts(packet: bytes) -> bool:
        accumulator, at = 0, 0
        while True:
            code, if_true, if_false, value = program[at]
            at += 1
            match code:
                case 0x80:
                    accumulator = len(packet)
                case 0x30:
                    accumulator = packet[value]
                case 0x15:
                    at += if_true if accumulator == value else if_false
                case 0x25:
                    at += if_true if accumulator > value else if_false
                case 0x06:
                    return value > 0

    for size in range(100):
        for length in (0, 8, 9, 12, 64, 65, 255):
            packet = (struct.pack("=IB", 1, length) + bytes(100))[:size]
            assert accepts(packet) == ((size == 16 and length <= 8) or (size == 72 and length <= 64))
