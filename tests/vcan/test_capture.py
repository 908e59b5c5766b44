"""The packet ring delivers the frames that can-utils and python-can put on the bus."""

import asyncio
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import can
import numpy as np
import pytest
import zstandard

from agent.sources import BusLoss
from agent.sources.messages import block_of
from agent.sources.packet_ring import PacketRingSource
from can_dbc.frames import ERROR, EXTENDED, FD, REMOTE, FrameBlock, concatenate
from lab import can_interfaces
from tests import shared_data

SECONDS = float(os.environ.get("VCAN_SECONDS", "60" if os.environ.get("REQUIRE_VCAN") == "1" else "3"))
EVERY = os.environ.get("REQUIRE_VCAN") == "1"
QUICK = (
    "ford_mustang",
    "css_fd_all_dlc",
    "css_boat",
)  # a short selection: classic, FD, extended identifiers
LOGS = [
    log
    for log in (sorted((shared_data.DATA / "open").rglob("*.log.zst")) if shared_data.DATA.is_dir() else [])
    if EVERY or log.name.startswith(QUICK)
]


@dataclass
class Capture:
    """Reads a source to the end of the traffic.  Each frame is released `durable_after_s` after it was read."""

    bus: str
    durable_after_s: float = 0.0
    settings: dict[str, int] = field(default_factory=dict)
    blocks: list[FrameBlock] = field(default_factory=list)
    losses: list[BusLoss] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def dropped(self) -> int:
        return sum(loss.count for loss in self.losses)

    async def run(self) -> None:
        source = PacketRingSource(bus=self.bus, interface=self.bus, on_loss=self.losses.append, **self.settings)
        held: list[tuple[float, int]] = []
        async for block in source.blocks():
            self.blocks.append(block)
            held.append((time.monotonic() + self.durable_after_s, block.first + len(block)))
            while held and held[0][0] <= time.monotonic():
                source.release(held.pop(0)[1])


def capture(captures: list[Capture], traffic: Callable[[], Awaitable[None]]) -> None:
    """Run `traffic` while `captures` read, until no frame has come for a second."""

    async def scenario() -> None:
        tasks = [asyncio.create_task(each.run()) for each in captures]
        await asyncio.sleep(0.2)
        await traffic()
        before = -1
        while before != (before := sum(each.frames for each in captures)):
            await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled(), task.exception()

    asyncio.run(scenario())


async def finish(*processes: "subprocess.Popen[bytes]") -> None:
    while any(process.poll() is None for process in processes):
        await asyncio.sleep(0.02)
    assert [process.returncode for process in processes] == [0] * len(processes)


def assert_in_order(captured: Capture) -> None:
    """Check that positions have no gap, and that times do not step back."""
    whole = concatenate(captured.blocks)
    firsts = [block.first for block in captured.blocks]
    assert firsts == (np.cumsum([0, *map(len, captured.blocks)])[:-1] + firsts[0]).tolist()
    assert (np.diff(whole.t_ns) >= 0).all()
    assert abs(int(whole.t_ns[-1]) - time.time_ns()) < 60 * 10**9


@pytest.mark.timeout(300)
def test_200_000_frames_at_full_rate_on_two_interfaces_are_all_accounted_for(
    record_property: Callable[[str, object], None],
) -> None:
    async def traffic() -> None:
        await finish(
            can_interfaces.cangen("can0", "-g", "0", "-m", "-n", "100000"),
            can_interfaces.cangen("can1", "-g", "0", "-f", "-D", "i", "-n", "50000"),
            can_interfaces.cangen("can1", "-g", "0", "-e", "-D", "i", "-n", "50000"),
        )

    captures = [Capture("can0"), Capture("can1")]
    with can_interfaces.vcan("can0", "can1"):
        capture(captures, traffic)
    for each in captures:
        record_property(each.bus, f"{each.frames} read, {each.dropped} dropped")
        assert each.frames + each.dropped == 100_000
        assert_in_order(each)
    mixed = Counter(concatenate(captures[0].blocks).flags.tolist())
    assert all(mixed[kind] > 1_000 for kind in (0, EXTENDED, FD, EXTENDED | FD, REMOTE))
    if not captures[1].dropped:
        flags = concatenate(captures[1].blocks).flags
        assert ((flags & FD) != 0).sum() == 50_000


def test_what_a_full_ring_drops_is_in_the_kernels_counter_and_reported(
    record_property: Callable[[str, object], None],
) -> None:
    async def traffic() -> None:
        # The event loop waits here, so that nothing is read while the ring fills, however slowly this machine sends.
        assert can_interfaces.cangen("can0", "-g", "0", "-n", "40000").wait() == 0

    small = Capture("can0", settings={"ring_bytes": 1_000_000})
    with can_interfaces.vcan("can0"):
        before_ns = time.time_ns()
        capture([small], traffic)
    record_property("can0", f"{small.frames} read, {small.dropped} dropped")
    assert small.dropped > 1_000
    assert small.frames + small.dropped == 40_000
    for loss in small.losses:
        assert (loss.bus, loss.detail) == ("can0", "ring full")
        assert before_ns < loss.first_ns < loss.last_ns < time.time_ns()


@pytest.mark.timeout(SECONDS * 3 + 240)
def test_nothing_is_lost_at_4_000_frames_a_second_on_each_of_two_interfaces(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each frame is held for five seconds, as if its window became durable then.

    canplayer sends 4,100 frames a second.  On a busy machine the rate in the report is lower.
    """

    async def traffic() -> None:
        await finish(*(can_interfaces.canplayer(log, [bus], timed=True) for bus, log in logs.items()))

    logs = {bus: tmp_path / f"{bus}.log" for bus in ("can0", "can1")}
    for bus, log in logs.items():
        sent = can_interfaces.counting_log(log, bus, frames_per_s=4_100, seconds=SECONDS)
    captures = [Capture("can0", durable_after_s=5), Capture("can1", durable_after_s=5)]
    with can_interfaces.vcan("can0", "can1"):
        started_s = time.monotonic()
        capture(captures, traffic)
        elapsed_s = time.monotonic() - started_s
    for each in captures:
        whole = concatenate(each.blocks)
        seconds = (int(whole.t_ns[-1]) - int(whole.t_ns[0])) / 1e9
        record_property(each.bus, f"{each.frames} frames, {each.frames / seconds:.0f}/s, largest {_largest(each)}")
        assert not each.losses
        np.testing.assert_array_equal(whole.data.view("<u8").ravel(), np.arange(sent))
        assert len(each.blocks) / elapsed_s < 21  # wake-ups a second


def _largest(captured: Capture) -> int:
    return max(map(len, captured.blocks))


@pytest.mark.shared
@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name.split(".")[0])
def test_a_capture_played_by_canplayer_arrives_as_python_can_reads_it(log: Path, tmp_path: Path) -> None:
    plain = tmp_path / "capture.log"
    plain.write_bytes(zstandard.ZstdDecompressor().stream_reader(log.read_bytes()).read())
    expected: dict[str, list[can.Message]] = {}
    for message in can.LogReader(plain):
        expected.setdefault(str(message.channel), []).append(message)
    captures = [Capture(bus) for bus in expected]

    async def traffic() -> None:
        await finish(can_interfaces.canplayer(plain, list(expected)))

    with can_interfaces.vcan(*expected):
        capture(captures, traffic)
    for each in captures:
        assert not each.losses
        arrived, read = concatenate(each.blocks), block_of(expected[each.bus], (each.bus,), 0)
        assert len(arrived) == len(read)
        for column in ("can_id", "flags", "length", "data"):
            np.testing.assert_array_equal(getattr(arrived, column), getattr(read, column), err_msg=column)


def test_every_kind_of_frame_that_python_can_sends_keeps_its_form() -> None:
    sent = [
        can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b"12345678"),
        can.Message(arbitration_id=0x1FFFFFFF, data=b""),
        can.Message(arbitration_id=1, is_extended_id=False, is_remote_frame=True, dlc=4),
        can.Message(arbitration_id=0x1ABCDE, is_remote_frame=True, dlc=0),
        can.Message(arbitration_id=2, is_extended_id=False, is_fd=True, data=bytes(range(64))),
        can.Message(arbitration_id=3, is_fd=True, bitrate_switch=True, error_state_indicator=True, data=b"12"),
        can.Message(arbitration_id=4, is_error_frame=True, is_extended_id=False, dlc=8, data=bytes(range(8))),
        can.Message(arbitration_id=5, is_extended_id=False, data=b"a"),
    ]

    async def traffic() -> None:
        with can.Bus("can0", "socketcan", fd=True) as bus:
            for message in sent:
                bus.send(message)

    captured = Capture("can0")
    with can_interfaces.vcan("can0"):
        capture([captured], traffic)
    arrived, expected = concatenate(captured.blocks), block_of(sent, ("can0",), 0)
    for column in ("can_id", "flags", "length", "data"):
        np.testing.assert_array_equal(getattr(arrived, column), getattr(expected, column), err_msg=column)
    assert arrived.flags[6] == ERROR


def test_what_is_no_frame_never_reaches_the_ring() -> None:
    """A packet socket sends wrong sizes and impossible lengths past the CAN stack."""

    async def traffic() -> None:
        with can.Bus("can0", "socketcan", fd=True) as bus, _packet_socket("can0") as raw:
            bus.send(can.Message(arbitration_id=1, is_extended_id=False, data=b"first"))
            for bad in (_frame(2, 9, 8), _frame(3, 65, 64), _frame(4, 255, 64)):
                raw.send(bad)
            bus.send(can.Message(arbitration_id=5, is_extended_id=False, data=b"last"))

    captured = Capture("can0")
    with can_interfaces.vcan("can0"):
        capture([captured], traffic)
    assert concatenate(captured.blocks).can_id.tolist() == [1, 5]
    assert not captured.losses


def _frame(can_id: int, length: int, room: int) -> bytes:
    return struct.pack("IB3x", can_id, length) + bytes(room)


def _packet_socket(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.bind((interface, 0x0C))
    return raw
