"""Test consumers beside campaigns, and sources of values beside buses."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.formats.up.columns import SignalInfo
from agent.formats.up.signals import SignalBlock, SignalTable, float_signal, raw_of_floats
from agent.sources.feeder import State, ValueFeeder
from agent.telemetry.collect.signal_tables import SignalTables, Wants
from can_dbc.frames import FrameBlock
from can_dbc.values import Kind, physical
from tests.agent.telemetry.collect.test_collector import (
    BUSES,
    DRIVE,
    EVERYTHING,
    PLANS,
    TABLES,
    at_once,
    campaign,
    cut,
    make,
    samples,
)
from tests.agent.telemetry.spool.depot import Depot

SPEED = TABLES.names.find_matching("*Speed*")
Kept = dict[tuple[int, int, int | None], list[tuple[int, int]]]


class Recorder:
    """A consumer that keeps every wanted sample, by table, signal and sender."""

    def __init__(self, wants: Wants, *, eager: bool) -> None:
        self.wants = wants
        self.eager = eager
        self.calls: list[int] = []
        self.kept: Kept = defaultdict(list)

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> None:
        self.calls.append(sum(len(block) for block in blocks))
        for block in blocks:
            assert block.rows is not None
            assert (np.diff(block.rows) >= 0).all()
            for signal in self.wants[block.table]:
                row = block.signals.index(signal)
                present = slice(None) if block.valid is None else block.valid[row]
                values = zip(block.t_ns[present].tolist(), block.raw[row, present].tolist(), strict=True)
                self.kept[block.table, signal, block.source_address] += values


def wants_of(places: Sequence[tuple[int, int]]) -> Wants:
    found: dict[int, list[int]] = {}
    for table, signal in places:
        found.setdefault(table, []).append(signal)
    return {table: tuple(signals) for table, signals in found.items()}


def recorded(block: FrameBlock, wants: Wants) -> Kept:
    """Return what a consumer keeps if all frames are decoded at once."""
    recorder = Recorder(wants, eager=False)
    recorder.take_blocks(TABLES.blocks(TABLES.decoder(wants).decode(block).columns))
    return recorder.kept


def with_depot(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(test(Depot(tmp_path)))

    run.__name__ = test.__name__
    return run


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("size", [1, 70, 900, 10**6])
def test_a_consumer_gets_each_sample_once_in_order_whatever_the_blocks(tmp_path: Path, size: int, eager: bool) -> None:
    """The consumer also does not change what the campaigns collect."""
    drive = DRIVE.slice(0, 1_500) if size == 1 else DRIVE
    recorder = Recorder(wants_of(SPEED), eager=eager)
    depot = Depot(tmp_path)

    async def run() -> None:
        collector = make(depot, consumers=[recorder])
        await collector.set_campaigns([EVERYTHING])
        for block in cut(drive, [size] * len(drive)):
            await collector.feed(block)
        await collector.flush()
        assert collector.refused == {}

    asyncio.run(run())
    assert recorder.kept == recorded(drive, recorder.wants)
    assert samples(depot.windows()) == at_once([EVERYTHING], drive)


@with_depot
async def test_an_eager_consumer_is_served_with_each_block_of_a_source_and_others_with_the_increment(
    depot: Depot,
) -> None:
    eager, late = (Recorder(wants_of(SPEED), eager=eager) for eager in (True, False))
    collector = make(depot, increment_s=60, consumers=[late, eager])
    for number, block in enumerate(cut(DRIVE, [400] * 5), start=1):
        await collector.feed(block)
        assert len(eager.calls) == number
    assert late.calls == []
    await collector.flush()
    assert len(late.calls) == 1
    assert late.kept == eager.kept


@with_depot
async def test_frames_that_do_not_decode_are_counted_once_though_they_are_decoded_twice(depot: Depot) -> None:
    (first, *_) = [place.table for place in SPEED]
    wanted = TABLES.blocks(TABLES.decoder({first: (0,)}).decode(DRIVE).columns)[0].rows
    assert wanted is not None
    chosen = [getattr(DRIVE, name)[wanted[:7]] for name in ("t_ns", "bus", "can_id", "flags", "length", "data")]
    chosen[4] = np.zeros(7, np.uint8)
    collector = make(depot, consumers=[Recorder({first: (0,)}, eager=True)])
    await collector.set_campaigns([EVERYTHING])
    await collector.feed(FrameBlock(*chosen, BUSES))
    await collector.flush()
    assert collector.refused == {"short": 7}


# ---------------------------------------------------------------- values that are not CAN frames

FIX = SignalTable(
    "Gnss",
    (
        float_signal("Gnss.Latitude", "gnss", "deg"),
        float_signal("Gnss.Altitude", "gnss", "m"),
        (SignalInfo("Gnss.Quality", "gnss", None, Kind.UINT, 4, 1.0, 0.0), {0: "none", 1: "GNSS", 4: "RTK"}),
    ),
)
WITH_FIX = SignalTables(BUSES, PLANS, [FIX])
LATITUDES = np.array([48.137154, -0.0, 5e-324, np.inf, np.nan, 1e308])
QUALITIES = [0, 1, 1, 4, 4, 2]


class Receiver:
    """A source of values with a fix every two seconds of the drive.  Every second fix has no altitude."""

    name = "gnss"
    tables = (FIX,)

    def __init__(self) -> None:
        t_ns = DRIVE.t_ns[0] + np.arange(6) * 2 * 10**9
        raw = np.stack([raw_of_floats(LATITUDES), raw_of_floats(np.arange(6) / 3), np.array(QUALITIES)])
        valid = np.ones((3, 6), np.bool_)
        valid[1, 1::2] = False
        self.block = SignalBlock(0, t_ns, (0, 1, 2), raw, valid)

    async def blocks(self) -> AsyncIterator[SignalBlock]:
        for number in range(6):
            yield self.block.slice(number, number + 1)
            await asyncio.sleep(0)


@with_depot
async def test_values_of_a_source_reach_the_lake_bit_for_bit_beside_the_frames(depot: Depot) -> None:
    collector = make(depot, increment_s=1, tables=WITH_FIX)
    await collector.set_campaigns(
        [EVERYTHING, campaign("fix", {"name": "Gnss.Quality", "onChange": True}, {"name": "Vehicle.Gnss.Lat*"})]
    )
    receiver = Receiver()
    feeder = ValueFeeder(receiver, WITH_FIX.first_of_values, collector.feed)
    feeding = asyncio.create_task(feeder.run())
    for block in cut(DRIVE, [700] * len(DRIVE)):
        await collector.feed(block)
        await asyncio.sleep(0)
    await feeding
    await collector.flush()
    assert feeder.state is State.FINISHED
    assert collector.values == {"Gnss": 6}
    found = samples(depot.windows())
    times = (receiver.block.t_ns // 1_000).tolist()
    latitudes = raw_of_floats(LATITUDES).tolist()
    assert found["everything", "gnss", "Gnss.Latitude"] == list(zip(times, latitudes, strict=True))
    assert [t for t, _ in found["everything", "gnss", "Gnss.Altitude"]] == times[::2]
    assert found["fix", "gnss", "Gnss.Quality"] == [(times[i], QUALITIES[i]) for i in (0, 1, 3, 5)]
    assert found["fix", "gnss", "Gnss.Latitude"] == found["everything", "gnss", "Gnss.Latitude"]
    (info,) = {info for w in depot.windows() for g in w.groups for info in g.signals if info.name == "Gnss.Latitude"}
    numbers = physical(info, np.array(latitudes))
    assert numbers.tobytes() == LATITUDES.tobytes()
    texts = [g.texts for w in depot.windows() for g in w.groups if g.signals[-1].name == "Gnss.Quality"]
    assert {text for of_group in texts for text in of_group[-1].values()} == {"none", "GNSS", "RTK"}
    frames = {key: kept for key, kept in found.items() if key[1] != "gnss"}
    assert frames == at_once([EVERYTHING], DRIVE)


@with_depot
async def test_values_wake_eager_consumers_and_close_windows_without_any_frame(depot: Depot) -> None:
    table = WITH_FIX.first_of_values
    eager = Recorder({table: (0,)}, eager=True)
    collector = make(depot, increment_s=1, tables=WITH_FIX, consumers=[eager])
    await collector.set_campaigns([campaign("fix", {"name": "Gnss.*"}, period_ms=4_000)])
    await ValueFeeder(Receiver(), table, collector.feed).run()
    assert eager.calls == [1] * 6
    await collector.flush()
    assert [window.samples for window in depot.windows()] == [5, 5, 5]
