"""Feed the blocks of each source to the collector.

A source numbers its own buses or signal tables from 0.  Its feeder replaces these numbers by the collector's numbers.

Invariant: if one source fails, all other sources go on.  The `state` and `problem` of the failed source's feeder say
what happened.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Generic, TypeVar, cast

import msgspec
import numpy as np
import structlog

from agent.errors import AgentError
from agent.formats.iso_time import iso_of_ns
from agent.formats.up.signals import SignalBlock
from agent.sources import Source, ValueSource
from can_dbc.frames import FrameBlock

log = structlog.get_logger()
_Block = TypeVar("_Block", FrameBlock, SignalBlock)


class State(StrEnum):
    """The states of a source."""

    WAITING = "waiting"  # the interface is not there or cannot be opened, as `problem` says
    OPEN = "open"  # no frame has come yet
    RUNNING = "running"
    FINISHED = "finished"  # the log or the limited drive has ended
    FAILED = "failed"  # the configuration is wrong or the log is damaged, as `problem` says


class _Feeding(Generic[_Block]):
    """Feeds the blocks of one source to `take`.

    Before that, `renumbered` replaces the source's numbers in each block by the collector's numbers.
    """

    def __init__(
        self,
        source: Source | ValueSource,
        renumbered: Callable[[_Block], _Block],
        take: Callable[[_Block], Awaitable[None]],
    ) -> None:
        self._source = source
        self._renumbered: Callable[[_Block], _Block] = renumbered
        self._take: Callable[[_Block], Awaitable[None]] = take
        self._started = False
        self._finished = False
        self._failure: str | None = None

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self._source.name

    @property
    def state(self) -> State:
        """Return the state of the source."""
        if self._failure is not None:
            return State.FAILED
        if self._finished:
            return State.FINISHED
        if self._waiting is not None:
            return State.WAITING
        return State.RUNNING if self._started else State.OPEN

    @property
    def problem(self) -> str | None:
        """Return why the source has failed or waits, with a remedy, or None."""
        if self._failure is not None or self._finished:
            return self._failure
        return self._waiting

    @property
    def _waiting(self) -> str | None:
        return None

    async def run(self) -> None:
        """Feed blocks until the source ends or fails.  A cancelled call closes the source before it ends."""
        try:
            # Every source promises that its iterator can be closed (see Source), which AsyncIterator cannot express.
            blocks = cast("AsyncGenerator[_Block]", self._source.blocks())
            # Without aclosing a cancelled feeder would leave the interface to the garbage collector.
            async with contextlib.aclosing(blocks):
                async for block in blocks:
                    if not self._started:
                        self._started = True
                        log.info("source_running", source=self.name, first_frame=iso_of_ns(int(block.t_ns[0])))
                    await self._take(self._renumbered(block))
        # Any other exception is a programming error, which ends the agent.
        except AgentError as error:
            self._failure = str(error)
            log.error("source_failed", source=self.name, reason=self._failure)
        else:
            self._finished = True
            log.info("source_finished", source=self.name)


class Feeder(_Feeding[FrameBlock]):
    """Feeds the frames of `source` to `take`.

    `buses` has the names of the buses of all sources.  The collector's number of a bus is its index in `buses`.
    """

    def __init__(self, source: Source, buses: Sequence[str], take: Callable[[FrameBlock], Awaitable[None]]) -> None:
        all_buses = tuple(buses)
        number = np.array([all_buses.index(bus) for bus in source.buses], np.uint8)
        super().__init__(source, lambda block: replace(block, bus=number[block.bus], buses=all_buses), take)
        self._frames = source

    @property
    def _waiting(self) -> str | None:
        return self._frames.waiting

    async def run(self) -> None:
        """Feed blocks until the source ends or fails.

        A cancelled call closes the source, and feeds the frames that had arrived by then.  Frames that arrive later are
        left to the next agent, so a busy bus does not delay the end.
        """
        try:
            await super().run()
        finally:
            rest = self._frames.rest
            if rest is not None:
                await self._take(self._renumbered(rest))


class ValueFeeder(_Feeding[SignalBlock]):
    """Feeds the values of `source` to `take`.  Table i of the source is table `first` + i of the collector."""

    def __init__(self, source: ValueSource, first: int, take: Callable[[SignalBlock], Awaitable[None]]) -> None:
        super().__init__(source, lambda block: msgspec.structs.replace(block, table=first + block.table), take)


async def feed_all(feeders: Sequence[Feeder]) -> None:
    """Run `feeders` at the same time until every source has ended or failed."""
    async with asyncio.TaskGroup() as group:
        for feeder in feeders:
            group.create_task(feeder.run(), name=f"source {feeder.name}")
