"""Triggers travel through the collector to the spool: at once, with their numbers, and no sample twice."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.formats.down.campaign import Campaign, parse_campaign
from agent.formats.up.columns import Window
from agent.formats.up.losses import Reason
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.collector import Collector
from agent.telemetry.collect.conditions.collector import MAX_EDGES, ConditionCollector
from agent.telemetry.collect.conditions.records import Record, records_of
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.frames import FrameBlock
from can_dbc.values import physical
from tests.agent.telemetry.collect.test_collector import (
    BUSES,
    DRIVE,
    EVERYTHING,
    PLANS,
    Log,
    SmallRing,
    at_once,
    cut,
    in_event_loop,
    make,
    samples,
)
from tests.agent.telemetry.spool.depot import Depot

SPEED = "$variable.`Vehicle.VehicleMotion.Speed`"
RINGS = [{"name": "VehicleMotion.*", "maxSampleCount": 40}, {"name": "Engine.*", "minimumSamplingIntervalMs": 50}]


def document(
    name: str, expression: str, *signals: dict[str, Any], post_ms: int = 0, interval_ms: int = 0, priority: int = 0
) -> dict[str, Any]:
    scheme = {"expression": expression, "minimumTriggerIntervalMs": interval_ms}
    return {
        "name": name,
        "collectionScheme": {"conditionBasedCollectionScheme": scheme},
        "postTriggerCollectionDuration": post_ms,
        "signalsToCollect": list(signals),
        "priority": priority,
    }


def campaign(document_: dict[str, Any]) -> Campaign:
    return parse_campaign(json.dumps(document_).encode(), document_["name"])


OFTEN = document("often", f"{SPEED} >= 0", *RINGS, interval_ms=700)
LONG = document("long", f"{SPEED} >= 0", *RINGS, post_ms=2_000, interval_ms=3_000)
EDGES = document(
    "edges",
    f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {SPEED} > 0.5, 'B', {SPEED} > 9, 'Ü', {SPEED} > 30)",
    {"name": "Vehicle.MultiRisingEdgeTrigger"},
    post_ms=2_000,
)
ALL = (OFTEN, LONG, EDGES)


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path)


def records_in(windows: Iterable[Window], name: str) -> list[Record]:
    """Return the records of one campaign as the fleet could make them from its batches."""
    found: list[Record] = []
    for window in windows:
        if window.campaign != name:
            continue
        for event in window.events:
            assert event.kind == "trigger"
            assert (event.fields["campaign"], event.fields["revision"]) == (name, window.revision)
            made = {
                "k": "trigger",
                "n": event.fields["number"],
                "t_us": event.t_us,
                "until_us": event.fields["until_us"],
            }
            if "names" in event.fields:
                made["names"] = json.loads(str(event.fields["names"]))
            found.append(made)
        for group in window.groups:
            for info, raws, texts in zip(group.signals, group.raw, group.texts, strict=True):
                for t_us, raw, value in zip(
                    group.t_us.tolist(), raws.tolist(), physical(info, raws).tolist(), strict=True
                ):
                    message, _, signal = info.name.rpartition(".")
                    sample = {"k": "sample", "n": group.trigger, "t_us": t_us, "bus": info.bus, "signal": signal}
                    if not info.bus:
                        found.append(sample | {"message": "", "raw": None, "value": texts[raw]})
                    else:
                        found.append(sample | {"message": message, "raw": raw, "value": value})
    return found


def ordered(records: Iterable[Record]) -> list[str]:
    return sorted(json.dumps(record, sort_keys=True) for record in records)


def expected(document_: dict[str, Any], block: FrameBlock = DRIVE) -> list[str]:
    return ordered(records_of(document_, PLANS, [block]))


def test_the_documents_of_this_test_trigger_and_collect() -> None:
    for each in ALL:
        counts = Counter(record["k"] for record in records_of(each, PLANS, [DRIVE]))
        assert counts["trigger"] >= 2, each["name"]
        assert counts["sample"] >= 2, each["name"]


@pytest.mark.parametrize("sizes", [(1, 60), (400, 401), (10**6, 10**6 + 1)])
def test_what_triggers_send_is_in_the_spool_whatever_the_blocks(depot: Depot, sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(3)

    async def drive() -> None:
        collector = make(depot, increment_s=0.5, checkpoint_s=0.5)
        await collector.set_campaigns([EVERYTHING, *map(campaign, ALL)])
        for block in cut(DRIVE, random.integers(*sizes, len(DRIVE)).tolist()):
            await collector.feed(block)
        await collector.flush()
        assert collector.refused == {}

    asyncio.run(drive())
    windows = depot.windows()
    for each in ALL:
        assert ordered(records_in(windows, each["name"])) == expected(each), each["name"]
    everything = [window for window in windows if window.campaign == "everything"]
    assert samples(everything) == at_once([EVERYTHING], DRIVE)
    assert depot.spool.counts().checkpoints == (0, 0)
    assert depot.lost() == {}


@in_event_loop
async def test_a_batch_is_durable_when_the_frame_that_closes_its_collection_has_been_fed(depot: Depot) -> None:
    collector = make(depot, increment_s=60)
    await collector.set_campaigns([campaign(OFTEN)])
    seen = []
    for block in cut(DRIVE.slice(0, 4_000), [50] * 80):
        started_s = time.monotonic()
        await collector.feed(block)
        seen.append((block.t_ns[-1] // 1_000, depot.spool.counts().batches, time.monotonic() - started_s))
    triggers = [r["t_us"] for r in records_of(OFTEN, PLANS, [DRIVE.slice(0, 4_000)]) if r["k"] == "trigger"]
    for t_us, batches, _ in seen:
        assert batches == sum(trigger <= t_us for trigger in triggers)
    assert max(seconds for *_, seconds in seen) < 0.3


@in_event_loop
async def test_triggers_alone_travel_without_samples(depot: Depot) -> None:
    alone = document("alone", f"{SPEED} >= 0", interval_ms=2_000)
    collector = make(depot)
    await collector.set_campaigns([campaign(alone)])
    await collector.feed(DRIVE)
    await collector.flush()
    assert ordered(records_in(depot.windows(), "alone")) == expected(alone)


@in_event_loop
async def test_a_condition_goes_on_though_other_campaigns_come_and_go(depot: Depot) -> None:
    third = len(DRIVE) // 3
    collector = make(depot)
    for others, start in (([], 0), ([EVERYTHING, campaign(OFTEN)], third), ([EVERYTHING], 2 * third)):
        await collector.set_campaigns([*others, campaign(LONG)])
        await collector.feed(DRIVE.slice(start, min(start + third, len(DRIVE))))
    await collector.flush()
    fed = DRIVE.slice(0, min(3 * third, len(DRIVE)))
    assert ordered(records_in(depot.windows(), "long")) == expected(LONG, fed)
    assert ordered(records_in(depot.windows(), "often")) == expected(OFTEN, DRIVE.slice(third, 2 * third))


@in_event_loop
async def test_a_campaign_that_ends_sends_what_its_open_collection_has(depot: Depot) -> None:
    endless = document("endless", f"{SPEED} >= 0", *RINGS, post_ms=3_600_000)
    collector = make(depot)
    await collector.set_campaigns([campaign(endless)])
    await collector.feed(DRIVE.slice(0, 2_000))
    assert depot.windows() == []
    await collector.set_campaigns([])
    assert ordered(records_in(depot.windows(), "endless")) == expected(endless, DRIVE.slice(0, 2_000))


@pytest.mark.parametrize(("post_ms", "closes"), [(1_000, True), (3_600_000, False)])
def test_silence_closes_a_collection_that_would_be_over_and_checkpoints_a_longer_one(
    depot: Depot, post_ms: int, closes: bool
) -> None:
    asked = document("asked", f"{SPEED} >= 0", *RINGS, post_ms=post_ms)
    part = DRIVE.slice(0, 300)

    async def drive() -> None:
        collector = make(depot, increment_s=60, silence_s=1.5)
        await collector.set_campaigns([campaign(asked)])
        running = asyncio.create_task(collector.run())
        await collector.feed(part)
        async with asyncio.timeout(10):
            while collector.collecting:
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(drive())
    assert len(expected(asked, part)) > 1
    assert ordered(records_in(depot.windows(), "asked")) == (expected(asked, part) if closes else [])
    assert (depot.spool.counts().checkpoints[0] > 0) is not closes


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_no_sample_is_sent_twice(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    log = Log()

    async def run(*, killed: bool) -> None:
        depot = Depot(tmp_path)
        holdings = Holdings([log], depot.spool.resume_points())
        collector = make(depot, increment_s=0.5, checkpoint_s=0.5, holdings=holdings)
        await collector.set_campaigns([EVERYTHING, campaign(OFTEN), campaign(LONG)])
        rest = DRIVE.slice(log.needed, len(DRIVE))
        fed = int(random.integers(0, len(rest) + 1)) if killed else len(rest)
        for block in cut(rest.slice(0, fed), random.integers(1, 900, len(DRIVE)).tolist()):
            depot.disk.full = bool(killed and random.integers(0, 6) == 0)
            await collector.feed(block)
        if not killed:
            await collector.flush()
            check(depot.windows())
        depot.spool.close()

    def check(windows: list[Window]) -> None:
        assert samples([w for w in windows if w.campaign == "everything"]) == at_once([EVERYTHING], DRIVE)
        for name in ("often", "long"):
            sent = [r for r in records_in(windows, name) if r["k"] == "sample"]
            keys = Counter((r["bus"], r["message"], r["signal"], r["t_us"]) for r in sent)
            most = Counter((r["bus"], r["message"], r["signal"], r["t_us"]) for r in all_samples(name))
            assert sent
            assert not keys - most  # a signal may have two frames of one time

    for _ in range(5):
        asyncio.run(run(killed=True))
    asyncio.run(run(killed=False))


def all_samples(name: str) -> list[Record]:
    """Return every sample that a campaign with an endless ring would send."""
    endless = document(name, "true", *({"name": r["name"], "maxSampleCount": 10**6} for r in RINGS), post_ms=10**8)
    return [record for record in records_of(endless, PLANS, [DRIVE]) if record["k"] == "sample"]


def test_a_collection_that_is_closed_between_two_blocks_has_sent_its_samples() -> None:
    """The bus falls silent while a collection is open.  Then frames come without a new sample of the speed."""
    asked = document(
        "asked", f"!isNull({SPEED})", {"name": "VehicleMotion.Speed"}, {"name": "InertialSensors.*"}, post_ms=60_000
    )
    tables = SignalTables(BUSES, PLANS)
    collector = ConditionCollector(campaign(asked), tables)
    (speed,) = tables.names.find("VehicleMotion.Speed")
    blocks = tables.blocks(tables.decoder(collector.wants).decode(DRIVE.slice(0, 400)).columns)
    others = [block for block in blocks if block.table != speed.table]
    assert len(others) < len(blocks)
    collector.take_blocks(blocks)
    collector.close()
    collector.take_blocks(others)
    assert collector.open is None
    assert len(collector.take_closed()) == 1
    collector.take_blocks(blocks)
    assert collector.open is not None


@in_event_loop
async def test_a_collection_that_is_open_at_expiry_is_sent_a_minute_later(depot: Depot) -> None:
    expiry_s = int(DRIVE.t_ns[0]) / 1e9 + 2
    endless = document("endless", f"{SPEED} >= 0", *RINGS, post_ms=3_600_000) | {"expiryTime": expiry_s}
    collector = make(depot)
    await collector.set_campaigns([campaign(endless)])
    await collector.feed(DRIVE)
    assert depot.windows() == []
    later = DRIVE.slice(0, 100)
    await collector.feed(replace(later, t_ns=later.t_ns + 70 * 10**9))
    assert ordered(records_in(depot.windows(), "endless")) == expected(endless)


def test_names_beyond_the_limit_of_a_collection_are_losses() -> None:
    toggling = f"custom_function('MULTI_RISING_EDGE_TRIGGER', 'A', {SPEED} < 0.005)"
    named = document("named", toggling, {"name": "Vehicle.MultiRisingEdgeTrigger"}, post_ms=10**9)
    tables = SignalTables(BUSES, PLANS)
    collector = ConditionCollector(campaign(named), tables)
    (place,) = tables.names.find("VehicleMotion.Speed")
    count = 2 * MAX_EDGES + 20
    raw = np.arange(count)[None, :] % 2 * 100
    collector.take_blocks([SignalBlock(place.table, np.arange(count) * 10**6, (place.signal,), raw)])
    (loss,) = collector.take_losses()
    collector.close()
    (sent,) = collector.take_closed()
    assert (len(sent.edges), loss.reason, loss.samples) == (MAX_EDGES, Reason.MEMORY_FULL, 9)
    assert collector.take_losses() == ()


@in_event_loop
async def test_a_ring_that_fills_while_a_collection_is_open_is_emptied(depot: Depot) -> None:
    endless = document("endless", f"{SPEED} >= 0", *RINGS, post_ms=3_600_000)
    ring = SmallRing()
    collector = make(depot, increment_s=5, checkpoint_s=5, holdings=Holdings([ring], {}))
    await collector.set_campaigns([campaign(endless)])
    for block in cut(DRIVE, [100] * len(DRIVE)):
        ring.take(block.first + len(block))
        await collector.feed(block)
        assert not ring.pressed
    await collector.flush()
    assert ordered(records_in(depot.windows(), "endless")) == expected(endless)


# ---------------------------------------------------------------- what a vehicle refuses


async def refused_by(collector: Collector, depot: Depot, *documents: dict[str, Any]) -> dict[str, str]:
    await collector.set_campaigns([*map(campaign, documents)])
    depot.outbox.flush()
    events = [event for window in depot.windows() for event in window.events if event.kind == "campaign_refused"]
    return {str(event.fields["campaign"]): str(event.fields["reason"]) for event in events}


@in_event_loop
async def test_a_condition_that_could_never_be_true_is_refused_and_the_fleet_hears_why(depot: Depot) -> None:
    misspelt = document("misspelt", "$variable.`VehicleMotion.Sped` > 1", *RINGS)
    collector = make(depot)
    refused = await refused_by(collector, depot, misspelt, OFTEN)
    assert [each.name for each in collector.campaigns] == ["often"]
    assert list(refused) == ["misspelt"]
    assert "expression, character 1: " in refused["misspelt"]
    assert "did you mean 'VehicleMotion.Speed'?" in refused["misspelt"]


@in_event_loop
async def test_rings_that_do_not_fit_are_refused_the_least_important_first(depot: Depot) -> None:
    def asking(name: str, priority: int, samples_: int) -> dict[str, Any]:
        ring = {"name": "VehicleMotion.Speed", "maxSampleCount": samples_}
        return document(name, f"{SPEED} > 1", ring, priority=priority)

    collector = make(depot)
    documents = [asking("a", 2, 500_000), asking("b", 0, 600_000), asking("c", 1, 900_000), asking("d", 3, 10)]
    refused = await refused_by(collector, depot, *documents)
    assert {each.name for each in collector.campaigns} == {"a", "b", "d"}
    assert list(refused) == ["c"]
    assert "its rings take up to 14,404,000 bytes of memory, and 10,396,000 are left beside b;" in refused["c"]
