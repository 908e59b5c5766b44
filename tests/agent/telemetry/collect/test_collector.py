"""The collector keeps the samples that decoding all frames at once gives, for any blocks and campaigns."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.formats.down.campaign import Campaign, parse_campaign
from agent.formats.up.columns import Window
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.collector import Collector, Limits
from agent.telemetry.collect.consumer import Consumer
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.frames import FrameBlock, concatenate
from can_dbc.plan import BusPlan
from tests.agent import car
from tests.agent.formats.up.windows import CLOCK
from tests.agent.telemetry.spool.depot import Depot

BUSES = ("can0", "can1")
PLANS: dict[str, BusPlan] = {
    bus: compile_plan([load(car.DATABASES / name)])
    for bus, name in zip(BUSES, ("demo_powertrain.dbc", "demo_body.dbc"), strict=True)
}
TABLES = SignalTables(BUSES, PLANS)
DRIVE = concatenate(car.drive(12.0))
Samples = dict[tuple[str, str, str], list[tuple[int, int]]]


def campaign(name: str, *signals: dict[str, Any], period_ms: int = 3_000, **more: Any) -> Campaign:
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    document = {"name": name, "collectionScheme": scheme, "signalsToCollect": list(signals)} | more
    return parse_campaign(json.dumps(document).encode(), name)


EVERYTHING = campaign("everything", {"name": "*"})
CHANGES = campaign(
    "changes",
    {"name": "*Speed*", "minimumSamplingIntervalMs": 700},
    {"name": "*Temperature*", "minimumSamplingIntervalMs": 1_000, "onChange": True},
    {"name": "*Door*", "onChange": True},
)
NEWEST = campaign("newest", {"name": "*Counter*", "maxSampleCount": 3}, period_ms=2_000)


def samples(windows: Iterable[Window]) -> Samples:
    found: Samples = defaultdict(list)
    for window in windows:
        for group in window.groups:
            for info, raw in zip(group.signals, group.raw.tolist(), strict=True):
                found[window.campaign, info.bus, info.name] += zip(group.t_us.tolist(), raw, strict=True)
    return dict(found)


def at_once(campaigns: Sequence[Campaign], block: FrameBlock, tables: SignalTables = TABLES) -> Samples:
    """Decode and collect all of `block` with one call each, and return the samples."""
    collectors = [CampaignCollector(each, tables) for each in campaigns]
    decoder = tables.decoder(all_wants(collector.wants for collector in collectors))
    blocks = tables.blocks(decoder.decode(block).columns)
    found: Samples = {}
    for collector in collectors:
        collector.take_blocks(blocks)
        found |= samples([collector.close(start_us=0, end_us=1, clock=CLOCK)])
    return found


def cut(block: FrameBlock, sizes: Iterable[int]) -> Iterable[FrameBlock]:
    start = 0
    for size in sizes:
        yield block.slice(start, min(start + size, len(block)))
        start += size
        if start >= len(block):
            return


def make(
    depot: Depot,
    *,
    increment_s: float = 0.5,
    silence_s: float = 10,
    max_samples: int = 10**7,
    checkpoint_s: float = 0,
    holdings: Holdings | None = None,
    tables: SignalTables = TABLES,
    consumers: Sequence[Consumer] = (),
) -> Collector:
    limits = Limits(round(increment_s * 1e9), round(silence_s * 1e9), 100_000, max_samples, round(checkpoint_s * 1e9))
    clock = MachineClock(recorded=True)
    return Collector(tables, depot.outbox, clock, limits, holdings=holdings, consumers=consumers)


class Log:
    """A source that can deliver all its frames again."""

    buses = BUSES
    position_name = "log"
    held_in = "log"
    pressed = False
    needed = 0

    def begin(self, *, used: int, needed: int) -> None:
        self.needed = needed

    def release(self, position: int) -> None:
        pass


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path)


def in_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def run(depot: Depot) -> None:
        asyncio.run(test(depot))

    run.__name__ = test.__name__
    return run


@pytest.mark.parametrize("increment_s", [0.1, 5.0])
@pytest.mark.parametrize("sizes", ["1", "any", "all"])
def test_what_is_kept_does_not_depend_on_how_frames_come_in(depot: Depot, sizes: str, increment_s: float) -> None:
    random = np.random.default_rng(7)
    block = DRIVE.slice(0, 2_000) if sizes == "1" else DRIVE
    blocks = {
        "1": lambda: [1] * len(block),
        "any": lambda: random.integers(1, 900, len(block)).tolist(),
        "all": lambda: [len(block)],
    }
    campaigns = [EVERYTHING, CHANGES]

    async def drive() -> None:
        collector = make(depot, increment_s=increment_s)
        assert await collector.set_campaigns(campaigns) == {}
        for some in cut(block, blocks[sizes]()):
            await collector.feed(some)
        await collector.flush()
        assert sum(collector.frames.values()) == len(block)

    asyncio.run(drive())
    assert samples(depot.windows()) == at_once(campaigns, block)


@in_event_loop
async def test_each_campaign_has_windows_of_its_own_period(depot: Depot) -> None:
    collector = make(depot)
    await collector.set_campaigns([EVERYTHING, NEWEST])
    await collector.feed(DRIVE)
    await collector.flush()
    windows = [window for window in depot.windows() if window.samples]
    assert {len([w for w in windows if w.campaign == name]) for name in ("everything",)} == {4}
    newest = [window for window in windows if window.campaign == "newest"]
    assert len(newest) == 6
    assert max(len(group.t_us) for window in newest for group in window.groups) == 3


@in_event_loop
async def test_a_campaign_that_stays_remembers_though_another_comes_and_goes(depot: Depot) -> None:
    """Another campaign makes the decoder deliver other signals of the same messages, in another order of rows."""
    third = len(DRIVE) // 3
    collector = make(depot)
    await collector.set_campaigns([CHANGES])
    await collector.feed(DRIVE.slice(0, third))
    before = await collector.set_campaigns([EVERYTHING, CHANGES])
    assert sum(before.values()) == third
    await collector.feed(DRIVE.slice(third, 2 * third))
    await collector.set_campaigns([CHANGES])
    await collector.feed(DRIVE.slice(2 * third, len(DRIVE)))
    await collector.flush()
    found = samples(depot.windows())
    assert {key: kept for key, kept in found.items() if key[0] == "changes"} == at_once([CHANGES], DRIVE)
    middle = at_once([EVERYTHING], DRIVE.slice(third, 2 * third))
    assert {key: kept for key, kept in found.items() if key[0] == "everything"} == middle


@in_event_loop
async def test_a_campaign_that_changed_starts_anew(depot: Depot) -> None:
    half = len(DRIVE) // 2
    collector = make(depot)
    for rules, block in (("*Speed*", DRIVE.slice(0, half)), ("*Sp*", DRIVE.slice(half, len(DRIVE)))):
        await collector.set_campaigns([campaign("speed", {"name": rules, "minimumSamplingIntervalMs": 60_000})])
        await collector.feed(block)
    await collector.flush()
    kept = [len(times) for key, times in samples(depot.windows()).items() if "VehicleSpeed" in key[2]]
    assert set(kept) == {2}


@in_event_loop
async def test_a_suspended_campaign_collects_nothing(depot: Depot) -> None:
    collector = make(depot)
    await collector.set_campaigns([campaign("later", {"name": "*"}, status="SUSPENDED")])
    assert collector.campaigns == ()
    await collector.feed(DRIVE)
    await collector.flush()
    assert depot.windows() == []
    assert sum(collector.frames.values()) == len(DRIVE)


@in_event_loop
async def test_a_feeder_that_is_cancelled_leaves_no_half_block_behind(depot: Depot) -> None:
    collector = make(depot, increment_s=0.1)
    await collector.set_campaigns([EVERYTHING])
    feeding = asyncio.create_task(collector.feed(DRIVE))
    waiting = asyncio.create_task(collector.feed(DRIVE.slice(0, 10)))  # this block is fed after the one before
    while not collector.frames:
        await asyncio.sleep(0)
    for task in (feeding, waiting):
        task.cancel()
    await asyncio.wait({feeding, waiting})
    assert feeding.cancelled()
    await collector.flush()
    assert sum(collector.frames.values()) == len(DRIVE) + 10
    expected = sum(map(len, at_once([EVERYTHING], concatenate([DRIVE, DRIVE.slice(0, 10)])).values()))
    assert sum(window.samples for window in depot.windows()) == expected


@in_event_loop
async def test_a_window_closes_when_the_bus_falls_silent(depot: Depot) -> None:
    collector = make(depot, increment_s=60, silence_s=0.05)
    await collector.set_campaigns([EVERYTHING])
    running = asyncio.create_task(collector.run())
    await collector.feed(DRIVE.slice(0, 100))
    async with asyncio.timeout(10):
        while not depot.outbox.samples:
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.wait({running})
    assert samples(depot.windows()) == at_once([EVERYTHING], DRIVE.slice(0, 100))


@in_event_loop
async def test_the_collector_is_collecting_until_the_outbox_has_everything(depot: Depot) -> None:
    collector = make(depot, increment_s=60)
    await collector.set_campaigns([EVERYTHING])
    assert not collector.collecting
    await collector.feed(DRIVE.slice(0, 100))
    assert collector.collecting
    depot.disk.free.clear()
    closing = asyncio.create_task(collector.flush())
    await asyncio.sleep(0.1)
    assert collector.collecting
    depot.disk.free.set()
    await closing
    assert not collector.collecting
    assert samples(depot.windows()) == at_once([EVERYTHING], DRIVE.slice(0, 100))


@in_event_loop
async def test_a_block_that_comes_at_the_same_time_hides_no_cancellation(depot: Depot) -> None:
    collector = make(depot)
    await collector.set_campaigns([EVERYTHING])
    for steps in range(20):  # steps of the event loop before the cancellation
        running = asyncio.create_task(collector.run())
        await asyncio.sleep(0.01)
        feeding = asyncio.create_task(collector.feed(DRIVE.slice(steps * 10, steps * 10 + 10)))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running}, timeout=2)
        assert running.cancelled(), f"after {steps} steps"
        await feeding


@in_event_loop
async def test_a_window_closes_at_its_largest_size(depot: Depot) -> None:
    collector = make(depot, increment_s=0.1, max_samples=2_000)
    await collector.set_campaigns([campaign("long", {"name": "*"}, period_ms=3_600_000)])
    await collector.feed(DRIVE)
    await collector.flush()
    sizes = [window.samples for window in depot.windows()]
    assert len(sizes) > 5
    assert max(sizes) < 2_000 + 3_000  # the limit plus one increment


@in_event_loop
async def test_frames_that_do_not_decode_are_counted_by_kind(depot: Depot) -> None:
    unknown = FrameBlock(
        *(getattr(DRIVE, name)[:5] for name in ("t_ns", "bus")),
        np.full(5, 0x7FF, np.uint32),
        *(getattr(DRIVE, name)[:5] for name in ("flags", "length", "data")),
        BUSES,
    )
    collector = make(depot)
    await collector.set_campaigns([EVERYTHING])
    await collector.feed(unknown)
    await collector.flush()
    assert collector.refused == {"unknown": 5}


@in_event_loop
async def test_the_checkpoints_of_a_window_go_with_it_and_use_up_no_number(depot: Depot) -> None:
    collector = make(depot, increment_s=0.5, checkpoint_s=1)
    await collector.set_campaigns([EVERYTHING, CHANGES])
    await collector.feed(DRIVE)
    await collector.flush()
    windows = [window for window in depot.windows() if window.samples]
    assert samples(windows) == at_once([EVERYTHING, CHANGES], DRIVE)
    counts = depot.spool.counts()
    assert [entry.seq for entry in depot.entries()] == list(range(1, counts.next_seq))
    assert (counts.checkpoints, counts.adopted, depot.lost()) == ((0, 0), 0, {})


class SmallRing(Log):
    """A ring for 400 frames.  `take` sets how many frames it has received in all."""

    def __init__(self) -> None:
        self._position = self._released = 0

    def take(self, position: int) -> None:
        self._position = position
        self._look()

    def release(self, position: int) -> None:
        self._released = max(self._released, position)
        self._look()

    def _look(self) -> None:
        self.pressed = self._position - self._released > 400


@in_event_loop
async def test_a_ring_that_fills_is_emptied_without_closing_windows(depot: Depot) -> None:
    ring = SmallRing()
    collector = make(depot, increment_s=5, checkpoint_s=5, holdings=Holdings([ring], {}))
    await collector.set_campaigns([EVERYTHING])
    most = 0  # the largest number of checkpoints at a time
    for block in cut(DRIVE, [100] * len(DRIVE)):
        ring.take(block.first + len(block))
        await collector.feed(block)
        most = max(most, depot.spool.counts().checkpoints[0])
        assert not ring.pressed
    await collector.flush()
    windows = [window for window in depot.windows() if window.samples]
    assert samples(windows) == at_once([EVERYTHING], DRIVE)
    spans_us = [window.end_us - window.start_us for window in windows]
    assert min(spans_us[:-1]) >= 3_000_000  # the campaign's period
    assert most > 2


@in_event_loop
async def test_a_ring_that_fills_while_the_disk_refuses_is_emptied_into_memory(depot: Depot) -> None:
    ring = SmallRing()
    collector = make(depot, increment_s=5, checkpoint_s=5, holdings=Holdings([ring], {}))
    await collector.set_campaigns([EVERYTHING])
    depot.disk.full = True
    for block in cut(DRIVE, [100] * len(DRIVE)):
        ring.take(block.first + len(block))
        await collector.feed(block)
        assert not ring.pressed
    depot.disk.full = False
    await collector.flush()
    assert samples(depot.windows()) == at_once([EVERYTHING], DRIVE)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_every_sample_is_stored_once(tmp_path: Path, seed: int) -> None:
    """Windows of 3 s get a checkpoint every 0.5 s, on a disk that is full at times."""
    random = np.random.default_rng(seed)
    log = Log()

    async def run(*, killed: bool) -> None:
        depot = Depot(tmp_path)
        collector = make(
            depot, increment_s=0.5, checkpoint_s=0.5, holdings=Holdings([log], depot.spool.resume_points())
        )
        await collector.set_campaigns([EVERYTHING])
        rest = DRIVE.slice(log.needed, len(DRIVE))
        fed = int(random.integers(0, len(rest) + 1)) if killed else len(rest)
        for block in cut(rest.slice(0, fed), random.integers(1, 900, len(DRIVE)).tolist()):
            depot.disk.full = bool(killed and random.integers(0, 4) == 0)
            await collector.feed(block)
        if not killed:
            await collector.flush()
            assert samples(depot.windows()) == at_once([EVERYTHING], DRIVE)
            assert depot.spool.counts().checkpoints == (0, 0)
            assert depot.lost() == {}
        depot.spool.close()

    for _ in range(5):
        asyncio.run(run(killed=True))
    asyncio.run(run(killed=False))


def test_of_the_newest_samples_a_part_holds_no_more_than_the_campaign_wants(tmp_path: Path) -> None:
    depot = Depot(tmp_path)

    async def drive() -> None:
        collector = make(depot, increment_s=0.5, checkpoint_s=0.5)
        await collector.set_campaigns([NEWEST])
        await collector.feed(DRIVE)

    asyncio.run(drive())
    depot.spool.close()
    windows = Depot(tmp_path).windows()
    assert max(len(group.t_us) for window in windows for group in window.groups) == 3


OTHER_PLANS = PLANS | {
    "can1": compile_plan(
        [parse((car.DATABASES / "demo_body.dbc").read_bytes().replace(b"Door", b"Portal"), "dbc", "other.dbc")]
    )
}
OTHER_TABLES = SignalTables(BUSES, OTHER_PLANS)


@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 0.99])
def test_other_databases_lose_no_frame_and_open_windows_keep_the_signals_of_the_earlier_ones(
    depot: Depot, share: float
) -> None:
    first, second = DRIVE.slice(0, int(share * len(DRIVE))), DRIVE.slice(int(share * len(DRIVE)), len(DRIVE))
    log = Log()
    holdings = Holdings([log], {})

    async def drive() -> None:
        collector = make(depot, increment_s=0.7, checkpoint_s=1.0, holdings=holdings)
        await collector.set_campaigns([EVERYTHING])
        for block in cut(first, [300] * 1_000) if len(first) else ():
            await collector.feed(block)
        before = await collector.set_tables(OTHER_TABLES)
        assert sum(before.values()) == len(first)
        assert [each.name for each in collector.campaigns] == ["everything"]
        for block in cut(second, [300] * 1_000):
            await collector.feed(block)
        await collector.flush()
        assert sum(collector.frames.values()) == len(DRIVE)

    asyncio.run(drive())
    found = samples(depot.windows())
    expected = at_once([EVERYTHING], first) if len(first) else {}
    for key, kept in at_once([EVERYTHING], second, OTHER_TABLES).items():
        expected[key] = expected.get(key, []) + kept
    assert found == expected
    assert any("Portal" in name for _, _, name in found)
    assert any("Door" in name for _, _, name in found) == (share > 0)


@in_event_loop
async def test_other_limits_hold_from_the_next_windows_on(depot: Depot) -> None:
    collector = make(depot, increment_s=60)
    await collector.set_campaigns([EVERYTHING])
    await collector.feed(DRIVE.slice(0, 100))
    collector.set_limits(Limits(10**8, 10**10, 100_000, 10**7))
    await collector.set_campaigns([EVERYTHING])
    await collector.feed(DRIVE.slice(100, len(DRIVE)))
    assert len([window for window in depot.windows() if window.samples]) > 3
    await collector.flush()
    assert samples(depot.windows()) == at_once([EVERYTHING], DRIVE)
