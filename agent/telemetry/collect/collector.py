"""The collector: frames in, closed windows out to the outbox.  The way of a frame on its way to the lake, in one file.

    feed -> buffer -> (tick) decode once -> each campaign keeps its samples -> (window closes) -> outbox
                                                              or, while it stays open, the part that is new -> outbox

A thin shell around pure cores: Batcher says when, Decoder and CampaignCollector say what.  Decoding, encoding and the
disk run in a thread, one tick at a time, so the event loop stays free; meanwhile `feed` waits, and the sources' own
bounded buffers take up the slack.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.formats.down.campaign import Campaign
from agent.formats.up.columns import Window
from agent.system.tasks import whole
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.batcher import Batcher, Closing, Tick
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.policy import CampaignCollector, described, wanted
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.references import Description
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock, concatenate
from can_dbc.plan import BusPlan


@dataclass(frozen=True, slots=True)
class Limits:
    """Timing and memory of the collector; see `[telemetry]` in config/agent.toml."""

    increment_ns: int
    silence_ns: int
    increment_max_frames: int
    window_max_samples: int
    loss_window_ns: int = 0


class Collector:
    """Collects for a set of campaigns.  `buses` names all buses of all sources; frames carry indices into it."""

    def __init__(
        self,
        buses: Sequence[str],
        plans: Mapping[str, BusPlan],
        outbox: Outbox,
        clock: MachineClock,
        limits: Limits,
        *,
        holdings: Holdings | None = None,
    ) -> None:
        """`holdings`: of the sources that can deliver frames again until they are durable."""
        self._buses = tuple(buses)
        self._plans = {number: plans[bus] for number, bus in enumerate(self._buses) if bus in plans}
        self._outbox = outbox
        self._clock = clock
        self._limits = limits
        self._holdings = holdings or Holdings((), {})
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._buffer: deque[FrameBlock] = deque()
        self._campaigns: dict[str, CampaignCollector] = {}
        self._batcher = self._new_batcher()
        self._decoder = Decoder({})
        self.frames: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    @property
    def campaigns(self) -> tuple[Campaign, ...]:
        """The campaigns in force."""
        return tuple(collector.campaign for collector in self._campaigns.values())

    async def set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        """Collect for `campaigns` from the next frame on; returns how many frames of each bus came before.

        What is open is closed first.  A campaign that stays as it is keeps its memory of intervals and changes.
        """
        return await whole(self._set_campaigns(campaigns))

    async def _set_campaigns(self, campaigns: Sequence[Campaign]) -> dict[str, int]:
        async with self._turn:
            await self._carry_out(self._batcher.flush())
            known = {collector.campaign.revision: collector for collector in self._campaigns.values()}
            self._campaigns = {
                campaign.name: known.get(campaign.revision) or CampaignCollector(campaign, self._buses)
                for campaign in campaigns
                if not campaign.suspended
            }
            self._holdings.put_in_force(self._campaigns)
            self._batcher = self._new_batcher()
            self._decoder = Decoder(self._plans, wanted(self.campaigns))
            await asyncio.to_thread(self._describe)
            return dict(self.frames)

    def _describe(self) -> None:
        self._outbox.describe(
            [
                Description(campaign.name, campaign.revision, described(campaign, self._buses, self._plans))
                for campaign in self.campaigns
            ]
        )

    async def feed(self, block: FrameBlock) -> None:
        """Take frames of one source, in its order; returns when they are buffered or stored, cancelled or not.

        Half of a block would be lost uncounted, and a thread left at work on what the next caller uses.
        """
        await whole(self._feed(block))

    async def _feed(self, block: FrameBlock) -> None:
        async with self._turn:
            for bus, count in enumerate(np.bincount(block.bus, minlength=len(self._buses)).tolist()):
                self.frames[self._buses[bus]] += count
            self._buffer.append(block)
            await self._carry_out(self._batcher.frames(block.t_ns, time.monotonic_ns()))
            if self._holdings.pressed:
                await self._carry_out(self._batcher.seal())
            if self._holdings.pressed:
                await self._carry_out(self._batcher.flush())
            if self._holdings.pressed:
                # The disk refuses.  What is in memory only a crash takes; a full ring would lose what comes now.
                self._holdings.release(())
        self._wake.set()

    async def flush(self) -> None:
        """Close every window and store all there is: before the end."""
        await whole(self._close(self._batcher.flush))

    async def run(self) -> None:
        """Close windows when the buses have fallen silent.  Runs until cancelled."""
        while True:
            self._wake.clear()
            deadline_ns = self._batcher.deadline_ns
            timeout = None if deadline_ns is None else max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                await whole(self._close(lambda: self._batcher.poll(time.monotonic_ns())))
            else:
                # Frames move the deadline on; looking again once a second is soon enough.
                await asyncio.sleep(1.0)

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
            loss_window_ns=self._limits.loss_window_ns,
        )

    async def _carry_out(self, ticks: Iterable[Tick]) -> None:
        for tick in ticks:
            await asyncio.to_thread(self._work, self._take(tick.frames), tick)

    def _take(self, count: int) -> list[FrameBlock]:
        taken: list[FrameBlock] = []
        while count:
            block = self._buffer.popleft()
            if len(block) > count:
                self._buffer.appendleft(block.slice(count, len(block)))
                block = block.slice(0, count)
            taken.append(block)
            self._holdings.take(block)
            count -= len(block)
        return taken

    def _work(self, blocks: Sequence[FrameBlock], tick: Tick) -> None:
        if blocks:
            decoded = self._decoder.decode(concatenate(blocks))
            for kind, frames in decoded.refused.items():
                self.refused[kind.value] += frames
            for name, collector in self._campaigns.items():
                missing = self._holdings.missing(name, blocks)
                if missing is blocks:
                    collector.offer(decoded.columns)
                elif missing:  # some were stored before a crash
                    collector.offer(self._decoder.decode(concatenate(missing)).columns)
        closing = list(tick.closing)
        for name, collector in self._campaigns.items():
            full = self._batcher.collected(name, collector.samples)
            if full is not None:
                closing.append(full)
        if closing:
            positions = {window.campaign: self._holdings.close(window.campaign) for window in closing}
            self._outbox.put([self._window(window) for window in closing], positions)
        closed = {window.campaign for window in closing}
        self._seal([window for window in tick.sealing if window.campaign not in closed])
        if not self._outbox.pending_bytes:
            self._holdings.release(self._campaigns)

    def _seal(self, sealing: Sequence[Closing]) -> None:
        """Make durable what came to windows that stay open."""
        campaigns = [window.campaign for window in sealing]
        if sealing and self._outbox.put_checkpoints(map(self._part, sealing), self._holdings.positions(campaigns)):
            for campaign in campaigns:
                self._campaigns[campaign].sealed()
                self._batcher.sealed(campaign)
                self._holdings.close(campaign)

    def _part(self, sealing: Closing) -> tuple[Window, int]:
        collector = self._campaigns[sealing.campaign]
        part = collector.part(
            start_us=sealing.start_ns // 1_000, end_us=sealing.end_ns // 1_000, clock=self._clock.read()
        )
        return part, collector.campaign.priority

    def _window(self, closing: Closing) -> tuple[Window, int]:
        collector = self._campaigns[closing.campaign]
        window = collector.close(
            start_us=closing.start_ns // 1_000, end_us=closing.end_ns // 1_000, clock=self._clock.read()
        )
        return window, collector.campaign.priority
