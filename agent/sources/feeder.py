"""The feeder: takes the blocks of one source to the collector, under the bus numbers that all sources share.

Invariant: a source that fails does not end the others; the `state` and `problem` of its feeder say what happened.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

import numpy as np
import structlog

from agent.errors import AgentError
from agent.sources import Source
from can_dbc.frames import FrameBlock

log = structlog.get_logger()


class State(StrEnum):
    """The states of a source."""

    WAITING = "waiting"  # no frame has come yet
    RUNNING = "running"
    FINISHED = "finished"  # the log or the limited drive has ended
    FAILED = "failed"  # the configuration is wrong or the log is damaged; `problem` says which


class Feeder:
    """Feeds the blocks of one source to the collector."""

    def __init__(self, source: Source, buses: Sequence[str], take: Callable[[FrameBlock], Awaitable[None]]) -> None:
        """Prepare to feed `source` to `take`; `buses` are the names of all buses, in the collector's order."""
        self._source = source
        self._buses = tuple(buses)
        self._number = np.array([self._buses.index(bus) for bus in source.buses], np.uint8)
        self._take = take
        self.state = State.WAITING
        self.problem: str | None = None

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self._source.name

    async def run(self) -> None:
        """Feed until the source ends or fails.  When this is cancelled, the source closes its interface first."""
        try:
            # Every source promises that its iterator can be closed (see Source), which AsyncIterator cannot express.
            blocks = cast("AsyncGenerator[FrameBlock]", self._source.blocks())
            # Without aclosing a cancelled feeder would leave the interface to the garbage collector.
            async with contextlib.aclosing(blocks):
                async for block in blocks:
                    if self.state is State.WAITING:
                        self.state = State.RUNNING
                        since = datetime.fromtimestamp(int(block.t_ns[0]) / 1e9, UTC)
                        log.info("source_running", source=self.name, first_frame=f"{since:%Y-%m-%dT%H:%M:%S.%fZ}")
                    # The numbers are the collector's; a source numbers its own buses from 0.
                    await self._take(replace(block, bus=self._number[block.bus], buses=self._buses))
        # Any other exception is a mistake of the program, and ends the agent: the supervisor reports it.
        except AgentError as error:
            self.state, self.problem = State.FAILED, str(error)
            log.error("source_failed", source=self.name, reason=self.problem)
        else:
            self.state = State.FINISHED
            log.info("source_finished", source=self.name)


async def feed_all(feeders: Sequence[Feeder]) -> None:
    """Run `feeders` at the same time until every source has ended or failed."""
    async with asyncio.TaskGroup() as group:
        for feeder in feeders:
            group.create_task(feeder.run(), name=f"source {feeder.name}")
