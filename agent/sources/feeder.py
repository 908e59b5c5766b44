"""The feeder: takes one source's blocks to the collector, under the bus numbers that all sources share.

Invariant: a source that fails does not take the others down; its state and problem say what became of it.
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
    """What a source is doing."""

    WAITING = "waiting"  # no frame yet
    RUNNING = "running"
    FINISHED = "finished"  # a log or a limited drive is at its end
    FAILED = "failed"  # wrong configuration or a damaged log: `problem` says which


class Feeder:
    """Feeds the blocks of `source` to `take`; `buses` are the names of all buses, in the collector's order."""

    def __init__(self, source: Source, buses: Sequence[str], take: Callable[[FrameBlock], Awaitable[None]]) -> None:
        self._source = source
        self._buses = tuple(buses)
        self._number = np.array([self._buses.index(bus) for bus in source.buses], np.uint8)
        self._take = take
        self.state = State.WAITING
        self.problem: str | None = None

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    async def run(self) -> None:
        """Feed until the source ends or fails; cancelled, the source has let go of its interface."""
        try:
            blocks = cast("AsyncGenerator[FrameBlock]", self._source.blocks())  # can be closed: see Source
            async with contextlib.aclosing(blocks):
                async for block in blocks:
                    if self.state is State.WAITING:
                        self.state = State.RUNNING
                        since = datetime.fromtimestamp(int(block.t_ns[0]) / 1e9, UTC)
                        log.info("source_running", source=self.name, first_frame=f"{since:%Y-%m-%dT%H:%M:%S.%fZ}")
                    await self._take(replace(block, bus=self._number[block.bus], buses=self._buses))
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
