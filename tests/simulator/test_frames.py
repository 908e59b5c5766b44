"""The frames of the virtual vehicle are reproducible, decode with cantools, and look like those of a real bus."""

from functools import cache
from itertools import pairwise

import cantools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.frames import EXTENDED, FD, FrameBlock, concatenate
from simulator import body, powertrain
from simulator.frames import BODY_DBC, POWERTRAIN_DBC, frames

START_NS = 1_767_225_599_123_456_000  # crosses into a new year after one second
DATABASES = (cantools.database.load_file(POWERTRAIN_DBC), cantools.database.load_file(BODY_DBC))
MESSAGES = {(bus, message.frame_id): message for bus, database in enumerate(DATABASES) for message in database.messages}


@cache
def recorded(seed: int = 5, duration_s: float = 30.0) -> FrameBlock:
    return concatenate(list(frames(seed, START_NS, duration_s, chunk_s=5)))


def same(left: FrameBlock, right: FrameBlock) -> bool:
    columns = ("t_ns", "bus", "can_id", "flags", "length", "data")
    return left.buses == right.buses and all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in columns
    )


def of(name: str, block: FrameBlock) -> tuple[FrameBlock, list[dict]]:
    """Return the frames of one message, and their values as cantools decodes them."""
    (key,) = [key for key, message in MESSAGES.items() if message.name == name]
    rows = np.flatnonzero((block.bus == key[0]) & (block.can_id == key[1]))
    message = MESSAGES[key]
    return (
        FrameBlock(
            *(getattr(block, column)[rows] for column in ("t_ns", "bus", "can_id", "flags", "length", "data")),
            block.buses,
        ),
        [message.decode(block.data[row, : block.length[row]].tobytes(), decode_choices=False) for row in rows],
    )


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31), st.integers(1, 7), st.floats(0.2, 9.0))
def test_any_chunking_gives_the_same_frames(seed: int, chunk_s: int, duration_s: float) -> None:
    one = list(frames(seed, START_NS, duration_s))
    other = list(frames(seed, START_NS, duration_s, chunk_s=chunk_s))
    assert same(concatenate(one), concatenate(other))
    for blocks in (one, other):
        assert all(len(block) for block in blocks)
        assert [block.first for block in blocks] == [0, *np.cumsum([len(block) for block in blocks])[:-1]]


def test_a_longer_drive_begins_with_the_shorter_one() -> None:
    short = recorded(duration_s=12.345)
    assert same(short, recorded().slice(0, len(short)))
    assert recorded().t_ns[len(short)] >= START_NS + 12_345_000_000


def test_a_drive_without_duration_goes_on() -> None:
    endless = frames(5, START_NS, None)
    assert same(next(endless), next(frames(5, START_NS, 2.0)))
    assert len(next(endless)) > 1_000


def test_times_are_whole_microseconds_that_do_not_fall_and_rise_on_each_bus() -> None:
    block = recorded()
    assert (block.t_ns % 1_000 == 0).all()
    assert (np.diff(block.t_ns) >= 0).all()
    for bus in (0, 1):
        assert (np.diff(block.t_ns[block.bus == bus]) > 0).all()
    assert block.t_ns[0] >= START_NS
    assert block.t_ns[-1] < START_NS + 30_000_000_000


def test_a_start_between_microseconds_is_cut() -> None:
    assert same(concatenate(list(frames(5, START_NS + 999, 2.0))), concatenate(list(frames(5, START_NS, 2.0))))


def test_every_message_comes_at_its_period() -> None:
    block = recorded()
    for (bus, can_id), message in MESSAGES.items():
        t_ns = block.t_ns[(block.bus == bus) & (block.can_id == can_id)]
        expected = 30_000 / message.cycle_time
        assert abs(len(t_ns) - expected) <= 1, message.name
        # A frame has jitter, and waits for a few frames of other messages.
        assert np.abs(np.diff(t_ns) / 1e6 - message.cycle_time).max() < 4.0, message.name
    assert 1_000 < len(block) / 30 < 1_500


def test_every_frame_has_the_form_of_its_message() -> None:
    block = recorded()
    assert block.data.shape == (len(block), 64)
    for bus, can_id, flags, length, data in zip(
        block.bus.tolist(), block.can_id.tolist(), block.flags.tolist(), block.length.tolist(), block.data, strict=True
    ):
        message = MESSAGES[bus, can_id]
        assert length == message.length
        assert bool(flags & EXTENDED) == message.is_extended_frame
        assert bool(flags & FD) == message.is_fd
        assert not data[length:].any()


def test_physical_values_come_back_within_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """cantools reads the values that the samplers put in.  No value saturates or wraps."""
    put_in: dict[str, list[dict]] = {}

    def recording(name, sampler):
        def sample(drive, sending):
            signals = dict(sampler(drive, sending))
            for row in range(len(sending.index)):
                frame = {k: float(np.broadcast_to(v, len(sending.index))[row]) for k, v in signals.items()}
                put_in.setdefault(name, []).append(frame)
            return signals

        return sample

    for module in (powertrain, body):
        wrapped = {name: recording(name, sampler) for name, sampler in module.SAMPLERS.items()}
        monkeypatch.setattr(module, "SAMPLERS", wrapped)
    block = concatenate(list(frames(11, START_NS, 20.0)))
    compared = 0
    for message in MESSAGES.values():
        _, decoded = of(message.name, block)
        for expected, frame in zip(put_in[message.name], decoded, strict=False):
            for name, value in frame.items():
                if name in ("AliveCounter", "Crc8", "Checksum"):
                    continue
                signal = message.get_signal_by_name(name)
                step = abs(expected[name]) * 2**-23 if signal.is_float else signal.conversion.scale
                assert abs(value - expected[name]) <= step * 0.501, (message.name, name)
                compared += 1
    assert compared > 50_000


@pytest.mark.parametrize(
    "name", [m.name for m in MESSAGES.values() if any(s.name == "AliveCounter" for s in m.signals)]
)
def test_counters_count_and_checksums_hold(name: str) -> None:
    block, decoded = of(name, recorded())
    counters = [frame["AliveCounter"] for frame in decoded]
    assert counters[0] == 0
    assert all(after == (before + 1) % 16 for before, after in pairwise(counters))
    for data, length, can_id in zip(block.data, block.length.tolist(), block.can_id.tolist(), strict=True):
        content = data[: length - 1].tobytes()
        if "Crc8" in decoded[0]:
            crc = 0xFF
            for byte in bytes([can_id & 0xFF]) + content:
                crc ^= byte
                for _ in range(8):
                    crc = (crc << 1 ^ 0x1D) & 0xFF if crc & 0x80 else crc << 1
            assert data[length - 1] == crc ^ 0xFF
        else:
            assert data[length - 1] == (sum(content) + (can_id & 0xFF) + (can_id >> 8) + length) & 0xFF


def test_multiplexed_messages_take_their_groups_in_turn() -> None:
    _, cells = of("BatteryCells", recorded())
    assert [frame["CellGroup"] for frame in cells] == [n % 24 for n in range(len(cells))]
    _, diagnostics = of("EmissionDiagnostics", recorded())
    assert [frame["DiagnosticBlock"] for frame in diagnostics] == [n % 6 for n in range(len(diagnostics))]
    assert {frame["MonitorPage"] for frame in diagnostics if "MonitorPage" in frame} == {0, 1}


def test_the_calendar_follows_the_frames() -> None:
    block, decoded = of("GnssTime", recorded())
    for t_ns, frame in zip(block.t_ns.tolist(), decoded, strict=True):
        calendar = (
            f"{frame['Year']:04.0f}-{frame['Month']:02.0f}-{frame['Day']:02.0f}T{frame['Hour']:02.0f}:"
            f"{frame['Minute']:02.0f}:{frame['Second']:02.0f}.{frame['Millisecond']:03.0f}"
        )
        # The message has the time when it was composed, the timestamp the end of its transmission.
        assert 0 <= t_ns // 1_000_000 - int(np.datetime64(calendar, "ms").astype(np.int64)) <= 3
    assert {frame["Year"] for frame in decoded} == {2025, 2026}


def test_buses_can_be_named() -> None:
    block = next(frames(1, START_NS, 1.0, ("chassis", "comfort")))
    assert block.buses == ("chassis", "comfort")
