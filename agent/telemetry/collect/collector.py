"""The collector takes in frames and values, gives signal blocks to consumers, and gives closed windows to the outbox.

    feed -> buffer -> (tick) decode once -> each consumer takes the signals that it wants
       |                                      campaigns: samples -> (window closes) -> outbox
       |                                                         or, while it stays open, a checkpoint -> outbox
       +-> eager consumers take their signals at once

The collector is a thin shell around pure cores.  `Batcher` decides when to decode, `SignalTables` and `Decoder` produce
signal blocks, and consumers keep what they want.

Decoding, encoding and disk access run in a thread, one tick at a time, so the event loop stays free.  Meanwhile `feed`
waits, and new frames wait in the bounded buffers of the sources.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from agent.formats.down.campaign import Campaign
from agent.formats.up.signals import SignalBlock
from agent.system.tasks import whole
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.batcher import Batcher, Tick
from agent.telemetry.collect.buffer import Block, Buffer, frames_of, values_of
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.consumer import Consumer
from agent.telemetry.collect.decode_counts import DecodeCounts
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from agent.telemetry.collect.windows import Windows
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.references import Description
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock, concatenate

WAKE_S: Final = 1.0  # how often the deadline for silence is checked; every frame postpones the deadline


class Limits(msgspec.Struct, frozen=True):
    """The collector's limits of time and memory, from `[telemetry]` in agent.toml and from `runtime/limits`."""

    increment_ns: int
    silence_ns: int
    increment_max_frames: int
    window_max_samples: int
    checkpoint_ns: int = 0


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
        self._tables = tables
        self._outbox = outbox
        self._limits = limits
        self._holdings = holdings or Holdings((), {})
        self._windows = Windows(outbox, clock.read, self._holdings)
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._buffer = Buffer()
        self._campaigns: dict[str, CampaignCollector] = {}
        self._late = [consumer for consumer in consumers if not consumer.eager]
        self._eager = [consumer for consumer in consumers if consumer.eager]
        self._batcher = self._new_batcher()
        self._decoder = tables.decoder(all_wants(consumer.wants for consumer in consumers))
        self._early_decoder = tables.decoder(all_wants(consumer.wants for consumer in self._eager))
        self.frames: Counter[str] = Counter()
        """Frames that came in, by bus."""
        self.values: Counter[str] = Counter()
        """Rows of values that came in, by name of the signal table."""
        self.decoding = DecodeCounts()
        """Counts the frames that did and did not decode."""
        self.refused = self.decoding.refused
        """Frames that did not decode, by reason."""
        self._working_since_s: float | None = None

    @property
    def tables(self) -> SignalTables:
        """Return the signal tables in use."""
        return self._tables

    @property
    def campaigns(self) -> tuple[Campaign, ...]:
        """Return the campaigns for which the collector collects."""
        return tuple(collector.campaign for collector in self._campaigns.values())

    @property
    def working_s(self) -> float:
        """Return how long the present step of the worker thread has taken, in seconds, or 0 without one."""
        since_s = self._working_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        """Collect for `campaigns` from the next frame on.  Return how many frames of each bus came in before it.

        Open windows are closed first.  Suspended campaigns are left out.  If the document of a campaign is unchanged,
        intervals and last values carry over, so no rule of the campaign starts afresh.
        """
        return await whole(self._set_campaigns(campaigns))

    async def _set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        async with self._turn:
            await self._carry_out(self._batcher.flush())
            known = {collector.campaign.revision: collector for collector in self._campaigns.values()}
            return await self._begin(campaigns, known)

    async def set_tables(self, tables: SignalTables) -> dict[str, int]:
        """Decode with other databases from the next frame on.  Return how many frames of each bus came in before it.

        All frames before it are decoded with the earlier databases, and the open windows close first, so each window
        has the signals of one set of databases.  All rules of campaigns start afresh.  `tables` must have the same
        buses.  The collector must have no consumers besides campaigns, because they refer to signals by number.
        """
        return await whole(self._set_tables(tables))

    async def _set_tables(self, tables: SignalTables) -> dict[str, int]:
        assert tables.buses == self._tables.buses
        assert not (self._late or self._eager)
        async with self._turn:
            await self._carry_out(self._batcher.flush())
            self._tables = tables
            self._early_decoder = tables.decoder({})
            return await self._begin(self.campaigns, {})

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next `set_campaigns` or `set_tables` on, which begin new windows."""
        self._limits = limits

    async def _begin(self, campaigns: Sequence[Campaign], known: Mapping[str, CampaignCollector]) -> dict[str, int]:
        """Begin new windows; `known` has the collectors to go on with, by the revision of their campaign."""
        # Resolving globs over thousands of signals takes seconds, in which the event loop must go on.
        self._campaigns = await asyncio.to_thread(self._collectors, campaigns, known)
        self._holdings.put_in_force(self._campaigns)
        self._batcher = self._new_batcher()
        # Only this decoder counts refused frames, so it decodes the signals of eager consumers, too.
        consumers = (*self._campaigns.values(), *self._late, *self._eager)
        self._decoder = self._tables.decoder(all_wants(consumer.wants for consumer in consumers))
        await asyncio.to_thread(self._describe)
        return dict(self.frames)

    def _collectors(
        self, campaigns: Sequence[Campaign], known: Mapping[str, CampaignCollector]
    ) -> dict[str, CampaignCollector]:
        """Return the collectors of `campaigns` by name; those with a revision in `known` go on."""
        return {
            campaign.name: known.get(campaign.revision) or CampaignCollector(campaign, self._tables)
            for campaign in campaigns
            if not campaign.suspended
        }

    def _describe(self) -> None:
        self._outbox.describe(
            [
                Description(name, collector.campaign.revision, collector.described)
                for name, collector in self._campaigns.items()
            ]
        )

    async def feed(self, block: FrameBlock) -> None:
        """Take frames of one source in their order, and return once they are buffered or stored.

        A call that is cancelled still finishes its work.  Otherwise the remaining frames of the block would be lost
        uncounted, and a thread would still use data that the next caller changes.
        """
        await whole(self._feed(block))

    async def feed_values(self, block: SignalBlock) -> None:
        """Take values of one source in their order, as `feed` takes frames.

        `block.table` is the number of the signal table in the collector's `tables`.
        """
        await whole(self._feed(block))

    async def _feed(self, block: Block) -> None:
        async with self._turn:
            self._count(block)
            if self._eager:
                await asyncio.to_thread(self._serve_eager, block)
            self._buffer.append(block)
            await self._carry_out(self._batcher.add_times(block.t_ns, time.monotonic_ns()))
            if self._holdings.pressed:
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
            for bus, count in enumerate(np.bincount(block.bus, minlength=len(self._tables.buses)).tolist()):
                self.frames[self._tables.buses[bus]] += count
        else:
            self.values[self._tables.tables[block.table].name] += len(block)

    async def flush(self) -> None:
        """Close every window and store all samples before the agent stops."""
        await whole(self._close(self._batcher.flush))

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
                await whole(self._close(lambda: self._batcher.poll(time.monotonic_ns())))
            else:
                await asyncio.sleep(WAKE_S)

    async def _close(self, due: Callable[[], Iterable[Tick]]) -> None:
        async with self._turn:
            await self._carry_out(due())

    def _new_batcher(self) -> Batcher:
        return Batcher(
            {name: collector.campaign.period_ms * 1_000_000 for name, collector in self._campaigns.items()},
            increment_ns=self._limits.increment_ns,
            silence_ns=self._limits.silence_ns,
            max_frames=self._limits.increment_max_frames,
            max_window_samples=self._limits.window_max_samples,
            checkpoint_ns=self._limits.checkpoint_ns,
        )

    async def _carry_out(self, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            blocks = self._buffer.take(tick.frames)
            for block in frames_of(blocks):
                self._holdings.take(block)
            self._working_since_s = time.monotonic()
            try:
                await asyncio.to_thread(self._work, blocks, tick)
            finally:
                self._working_since_s = None

    # ---------------------------------------------------------------- in the worker thread

    def _work(self, blocks: Sequence[Block], tick: Tick) -> None:
        if blocks:
            self._serve(frames_of(blocks), values_of(blocks))
        self._windows.carry_out(tick, self._batcher, self._campaigns)

    def _serve(self, frames: Sequence[FrameBlock], values: Sequence[SignalBlock]) -> None:
        """Decode an increment, and let campaigns and other consumers take the signals that they want."""
        blocks = [*self._decoded(frames, self._decoder, self.decoding), *values]
        for name, collector in self._campaigns.items():
            missing = self._holdings.missing(name, frames)
            if missing is frames:
                collector.take_blocks(blocks)
            else:  # the campaign stored some of the frames before a crash
                collector.take_blocks([*self._decoded(missing, self._decoder), *values])
        _deliver(blocks, self._late)

    def _serve_eager(self, block: Block) -> None:
        """Let eager consumers take the signals that they want from one block of a source."""
        blocks = [*self._decoded(frames_of([block]), self._early_decoder), *values_of([block])]
        _deliver(blocks, self._eager)

    def _decoded(
        self, frames: Sequence[FrameBlock], decoder: Decoder, counts: DecodeCounts | None = None
    ) -> list[SignalBlock]:
        if not frames:
            return []
        block = concatenate(frames)
        decoded = decoder.decode(block)
        if counts is not None:
            counts.add(block, decoded, self._tables.buses)
        return self._tables.blocks(decoded.columns)


def _deliver(blocks: Sequence[SignalBlock], consumers: Iterable[Consumer]) -> None:
    for consumer in consumers:
        wanted = [block for block in blocks if block.table in consumer.wants]
        if wanted:
            consumer.take_blocks(wanted)
