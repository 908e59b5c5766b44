"""Gather the status document that the running agent serves at `/status`.

The command `status` requests this document and prints it (`agent.commands.status`).

Invariant: the document does not have the pseudonym of the vehicle, because every app may read the document.  An app
could otherwise recognize the car and its owner, and name the car to others.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from agent import __version__
from agent.errors import AgentError
from agent.link.keeper import LinkKeeper
from agent.runtime.apply import Applier
from agent.runtime.trials import Trials
from agent.serve.http import Request, Response, Route, json_response
from agent.serve.listeners import Listeners
from agent.serve.toggles import ToggleService
from agent.sources.feeder import Feeder
from agent.telemetry.collect.collector import Collector
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.spool.account import Counts, spool_status

DISK_PATIENCE_S: Final = 0.5
"""A request for the status waits at most this long for the disk, because an fsync on worn flash can take longer."""


class SpoolAccount:
    """Holds the figures of the spool, and reads them in a thread, because reading blocks while the disk is busy."""

    def __init__(self, read: Callable[[], Counts]) -> None:
        """Read the first figures.  Blocking.  Raises: AgentError if they cannot be read."""
        self._read = read
        self._counts, self._read_at_s = read(), time.monotonic()
        self._problem: str | None = None
        self._reading: asyncio.Future[None] | None = None

    async def figures(self, patience_s: float = DISK_PATIENCE_S) -> dict[str, Any]:
        """Return the present figures.

        If reading fails or takes longer than `patience_s`, return the figures of the latest successful reading, and the
        reason in `problem`.
        """
        try:
            async with asyncio.timeout(patience_s):
                # Only one reading runs at a time.  One that an earlier request began does not show what came since.
                while self._reading is not None and not self._reading.done():
                    await asyncio.shield(self._reading)
                self._reading = asyncio.ensure_future(asyncio.to_thread(self._refresh))
                await asyncio.shield(self._reading)
            late = False
        except TimeoutError:
            late = True
        age_s = time.monotonic() - self._read_at_s
        problem = (
            f"the disk is busy, so these figures are {age_s:.1f} s old; ask again later" if late else self._problem
        )
        return {**spool_status(self._counts), "problem": problem}

    def _refresh(self) -> None:
        try:
            self._counts, self._read_at_s, self._problem = self._read(), time.monotonic(), None
        except AgentError as error:
            self._problem = str(error)


class LiveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Gathers the status document from the components of the agent.

    `started_s` is the start of the process on the monotonic clock.
    """

    broker: str
    started_s: float
    feeders: Sequence[Feeder]
    collector: Collector
    outbox: Outbox
    spool: SpoolAccount
    link: LinkKeeper
    uplink: Callable[[], Mapping[str, Any]]
    applier: Applier
    trials: Trials
    toggles: ToggleService
    listeners: Listeners

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the route for `agent.serve.http.Server`."""
        return (Route("GET", "/status", self._answer),)

    async def _answer(self, request: Request) -> Response:
        return json_response(200, await self._document(request.user))

    async def _document(self, user: int | None) -> dict[str, Any]:
        # Data flow from the sources to the spool.  Read in this order, data on the way are seen at least once.
        sources = [
            {"name": feeder.name, "state": str(feeder.state), "problem": feeder.problem} for feeder in self.feeders
        ]
        telemetry = {
            "frames": dict(self.collector.frames),
            "not_decoded": dict(self.collector.refused),
            "samples": self.outbox.samples,
            "campaigns": [
                {"name": campaign.name, "revision": campaign.revision} for campaign in self.collector.campaigns
            ],
            "collecting": self.collector.collecting,
            "in_memory_bytes": self.outbox.pending_bytes,
            "problem": self.outbox.problem,
        }
        spool = await self.spool.figures()
        toggles = await self.toggles.values(user)
        return {
            "running": True,
            "version": __version__,
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "sources": sources,
            "telemetry": telemetry,
            "spool": {**spool, "shortage": " ".join(self.outbox.watch.shortages.values()) or None},
            "link": {
                "state": self.link.state.value,
                "broker": self.broker,
                "problem": self.link.problem,
                **self.uplink(),
            },
            "pushes": {
                "version": self.applier.version,
                "in_trial": self.applier.in_trial,
                "trial_waits_for": self.trials.waits_for,
                "examined": self.applier.examined,
                "refused": dict(self.applier.refused),
                "problem": self.applier.problem,
                "chunks": self.applier.chunks.progress(),
                "expires": self.applier.expires and self.applier.expires.isoformat(),
            },
            "addresses": self.listeners.status(),
            "toggles": toggles,
        }
