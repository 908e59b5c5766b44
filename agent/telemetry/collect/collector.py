"""The collector takes in frames and values, gives signal blocks to consumers, and gives closed windows to the outbox.

    feed -> buffer -> (tick) decode once -> each consumer takes the signals that it wants
       |                                      campaigns: samples -> (window closes) -> outbox
       |                                                         or, while it stays open, a checkpoint -> outbox
       +-> eager consumers take their signals at once
       +-> condition-based campaigns: samples -> rings -> (a trigger's collection closes) -> outbox

The collector is a thin shell around pure cores.  `Batcher` decides when to decode, `Dispatcher` decodes and gives each
consumer its signal blocks, and consumers keep what they want.

Decoding, encoding and disk access run in a thread, one tick at a time, so the event loop stays free.  Meanwhile `feed`
waits, and new frames wait in the bounded buffers of the sources.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from agent.formats.down.campaign import Campaign
from agent.formats.up.columns import Event
from agent.system.stopwatch import Stopwatch
from agent.system.tasks import whole
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.batcher import Batcher, Tick
from agent.telemetry.collect.buffer import Block, Buffer, frames_of, values_of
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.conditions.admission import CampaignRefused
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.consumer import Consumer
from agent.telemetry.collect.dispatcher import Dispatcher, Known
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.collect.triggered import Triggered
from agent.telemetry.collect.windows import Windows
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.references import Description
from can_dbc.frames import FrameBlock

WAKE_S: Final = 1.0  # how often the deadline for silence is checked; every frame postpones the deadline


class Limits(msgspec.Struct, frozen=True):
    """The collector's limits of time and memory, from `[telemetry]` in agent.toml and from `runtime/limits`."""

    increment_ns: int
    silence_ns: int
    increment_max_frames: int
    window_max_samples: int
    checkpoint_ns: int = 0
    rings_max_bytes: int = 20_000_000


class Collector:
    """Collects the signals of `tables` for campaigns and other consumers."""

    def __init__(
        self,
        tables: SignalTables,
        outbox: Outbox,
        clock: MachineClock,
        limits: Limits,
        *,
        holdings: Holdings | None = None,
        consumers: Sequence[Consumer] = (),
    ) -> None:
        """Build a collector without campaigns; `set_campaigns` sets them.

        `holdings` keeps account of sources that hold their frames until the frames are durable.  `consumers` take
        blocks in addition to the campaigns.
        """
        self._outbox = outbox
        self._clock = clock
        self._limits = limits
        self._holdings = holdings or Holdings((), {})
        self._windows = Windows(outbox, clock.read, self._holdings)
        self._triggered = Triggered(outbox, clock.read, self._holdings)
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._buffer = Buffer()
        self._dispatcher = Dispatcher(tables, consumers, self._holdings)
        self._batcher = _batcher(self._dispatcher.campaigns, self._limits)
        self.frames: Counter[str] = Counter()
        """Frames that came in, by bus."""
        self.values: Counter[str] = Counter()
        """Rows of values that came in, by name of the signal table."""
        self.decoding = self._dispatcher.decoding
        """Counts the frames that did and did not decode."""
        self.refused = self.decoding.refused
        """Frames that did not decode, by reason."""
        self.work = Stopwatch()
        """Times the present step of the worker thread."""

    @property
    def tables(self) -> SignalTables:
        """Return the signal tables in use."""
        return self._dispatcher.tables

    @property
    def collecting(self) -> bool:
        """Return whether frames are buffered or windows are open, so that the outbox does not have everything yet."""
        return self._turn.locked() or self._batcher.deadline_ns is not None

    @property
    def campaigns(self) -> tuple[Campaign, ...]:
        """Return the campaigns for which the collector collects."""
        return tuple(collector.campaign for collector in self._dispatcher.collectors.values())

    @property
    def refused_campaigns(self) -> Sequence[CampaignRefused]:
        """Return the campaigns that this vehicle does not take.  The outbox has an event for each."""
        return self._dispatcher.refused

    async def set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        """Collect for `campaigns` from the next frame on.  Return how many frames of each bus came in before it.

        Open windows are closed first.  Suspended campaigns are left out.  If the document of a campaign is unchanged,
        intervals, last values, rings and open collections carry over, so no rule of the campaign starts afresh.
        """
        return await whole(self._set_campaigns(campaigns))

    async def _set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        async with self._turn:
            await self._carry_out(self._batcher.flush())
            known = {collector.campaign.revision: collector for collector in self._dispatcher.collectors.values()}
            return await self._begin(campaigns, known)

    async def set_tables(self, tables: SignalTables) -> dict[str, int]:
        """Decode with other databases from the next frame on.  Return how many frames of each bus came in before it.

        All frames before it are decoded with the earlier databases, and the open windows close first, so each window
        has the signals of one set of databases.  All rules of campaigns start afresh.  `tables` must have the same
        buses.  The collector must have no consumers besides campaigns, because they refer to signals by number.
        """
        return await whole(self._set_tables(tables))

    async def _set_tables(self, tables: SignalTables) -> dict[str, int]:
        async with self._turn:
            await self._carry_out(self._batcher.flush())
            await asyncio.to_thread(self._triggered.close, self._dispatcher.conditions.values())
            self._dispatcher.set_tables(tables)
            return await self._begin(self.campaigns, {})

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next `set_campaigns` or `set_tables` on, which begin new windows."""
        self._limits = limits

    async def _begin(self, campaigns: Sequence[Campaign], known: Known) -> dict[str, int]:
        """Begin new windows; `known` has the collectors to go on with, by the revision of their campaign."""
        # Resolving globs over thousands of signals takes seconds, in which the event loop must go on.
        await asyncio.to_thread(self._dispatcher.set_campaigns, campaigns, known, self._limits.rings_max_bytes)
        stay = self._dispatcher.conditions.values()
        gone = [each for each in known.values() if isinstance(each, ConditionCollector) and each not in stay]
        await asyncio.to_thread(self._triggered.close, gone)
        for refused in self._dispatcher.refused:
            self._outbox.add_event(
                Event(self._clock.read().wall_us, "campaign_refused", msgspec.structs.asdict(refused))
            )
        self._holdings.put_in_force(self._dispatcher.collectors)
        self._batcher = _batcher(self._dispatcher.campaigns, self._limits)
        descriptions = [
            Description(name, collector.campaign.revision, collector.described)
            for name, collector in self._dispatcher.collectors.items()
        ]
        await asyncio.to_thread(self._outbox.describe, descriptions)
        return dict(self.frames)

    async def feed(self, block: Block) -> None:
        """Take frames or values of one source in their order, and return once they are buffered or stored.

        For values, `block.table` is the number of the signal table in the collector's `tables`.  A call that is
        cancelled still finishes its work.  Otherwise the rest of the block would be lost uncounted, and a thread would
        still use data that the next caller changes.
        """
        await whole(self._feed(block))

    async def _feed(self, block: Block) -> None:
        async with self._turn:
            self._count(block)
            if self._dispatcher.serves_early:
                await asyncio.to_thread(self._serve_early, block)
            self._buffer.append(block)
            await self._carry_out(self._batcher.add_times(block.t_ns, time.monotonic_ns()))
            if self._holdings.pressed:
                await asyncio.to_thread(self._triggered.checkpoint, self._dispatcher.conditions)
                await self._carry_out(self._batcher.checkpoint())
            if self._holdings.pressed:
                await self._carry_out(self._batcher.flush())
            if self._holdings.pressed:
                # The disk refuses to store.  Frames that are released now are lost only if the agent crashes, but a
                # full ring certainly loses new frames.
                self._holdings.release(())
        self._wake.set()

    def _count(self, block: Block) -> None:
        if isinstance(block, FrameBlock):
            for bus, count in enumerate(np.bincount(block.bus, minlength=len(self.tables.buses)).tolist()):
                self.frames[self.tables.buses[bus]] += count
        else:
            self.values[self.tables.tables[block.table].name] += len(block)

    async def flush(self) -> None:
        """Close every window and collection, and store all samples, before the agent stops."""
        await whole(self._close(silent=False))

    async def run(self) -> None:
        """Close windows when the buses have fallen silent.  Runs until cancelled."""
        while True:
            self._wake.clear()
            deadline_ns = self._batcher.deadline_ns
            timeout = None if deadline_ns is None else max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                await whole(self._close(silent=True))
            else:
                await asyncio.sleep(WAKE_S)

    async def _close(self, *, silent: bool) -> None:
        """Close windows and collections because the agent stops, or, if `silent`, because the buses may be silent."""
        async with self._turn:
            now_ns, deadline_ns = time.monotonic_ns(), self._batcher.deadline_ns
            if silent and (deadline_ns is None or now_ns < deadline_ns):
                return
            await self._carry_out(self._batcher.poll(now_ns) if silent else self._batcher.flush())
            conditions = self._dispatcher.conditions
            if silent:
                await asyncio.to_thread(self._triggered.close_silent, conditions, self._limits.silence_ns)
            else:
                await asyncio.to_thread(self._triggered.close, conditions.values())

    def _serve_early(self, block: Block) -> None:
        """Serve the eager consumers, and deliver what triggers send.  Runs in a worker thread."""
        with self.work.step():
            if isinstance(block, FrameBlock):
                self._holdings.see(block)
            self._dispatcher.serve_eager(block)
            self._triggered.deliver(self._dispatcher.conditions, self._limits.checkpoint_ns)

    async def _carry_out(self, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            blocks = self._buffer.take(tick.frames)
            for block in frames_of(blocks):
                self._holdings.take(block)
            with self.work.step():
                await asyncio.to_thread(self._work, blocks, tick)

    def _work(self, blocks: Sequence[Block], tick: Tick) -> None:
        """Serve the consumers, and carry out what the tick says about windows.  Runs in a worker thread."""
        if blocks:
            self._dispatcher.serve(frames_of(blocks), values_of(blocks))
        self._windows.carry_out(tick, self._batcher, self._dispatcher.campaigns)
        self._windows.release(self._dispatcher.collectors)


def _batcher(campaigns: Mapping[str, CampaignCollector], limits: Limits) -> Batcher:
    return Batcher(
        {name: collector.campaign.period_ms * 1_000_000 for name, collector in campaigns.items()},
        increment_ns=limits.increment_ns,
        silence_ns=limits.silence_ns,
        max_frames=limits.increment_max_frames,
        max_window_samples=limits.window_max_samples,
        checkpoint_ns=limits.checkpoint_ns,
    )
