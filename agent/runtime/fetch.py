"""Fetch the large documents of a release in chunks, on one connection after the other.

    ask for up to REQUESTED missing chunks ──> take what arrives ──> ask for the next ones ──> all here: on_complete

Each chunk is durable before the next request, so even a connection of a few seconds advances the transfer, and nothing
is asked for twice.  If chunks do not arrive, the request is repeated after a back-off, because the fleet keeps no state
of a transfer.

Invariant: at most WAITING chunks are in memory.  Further ones are dropped and asked for again, so telemetry never waits
for a chunk.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from agent.errors import Permanent
from agent.formats import topics
from agent.formats.down.chunks import REQUESTED, ChunkName
from agent.link.mqtt import Connection
from agent.link.session import Backoff
from agent.runtime.apply import Applier

WAITING: Final = 2 * REQUESTED
"""The limit of chunks that wait to be stored, 0.8 MB: an answer, and a late answer to the request before."""

log = structlog.get_logger()


class Fetcher:
    """Fetches the missing chunks of one vehicle, and calls `on_complete` when the last one is here."""

    def __init__(
        self,
        vehicle: str,
        applier: Applier,
        on_complete: Callable[[], None],
        *,
        answer: Backoff,
        jitter: Callable[[], float],
    ) -> None:
        self._topic = topics.fetch(vehicle)
        self._applier = applier
        self._on_complete = on_complete
        self._answer = answer
        self._jitter = jitter
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._asked: set[ChunkName] = set()
        self._woken = asyncio.Event()
        self._progress = asyncio.Event()

    def hear(self, payload: bytes) -> None:
        """Take note of a chunk that has arrived."""
        with contextlib.suppress(asyncio.QueueFull):
            self._heard.put_nowait(payload)

    def wake(self) -> None:
        """Look again which chunks are missing, after a bundle was examined.

        The bundle may have other large documents than those that were asked for.  The answer to that request is then
        not awaited any more.
        """
        self._woken.set()
        self._progress.set()

    async def run(self, connection: Connection) -> None:
        """Fetch on one connection.  Runs until cancelled.  Raises: as `Connection.publish`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(), name="take_chunks")
            group.create_task(self._ask(connection), name="ask_chunks")

    async def _take(self) -> None:
        while True:
            name = await self._applier.take_chunk(await self._heard.get())
            if name is not None:
                self._asked.discard(name)
                self._progress.set()

    async def _ask(self, connection: Connection) -> None:
        unanswered = 0
        fetching = False
        while True:
            self._woken.clear()
            missing = await asyncio.to_thread(self._applier.chunks.missing)
            if not missing:
                if fetching:
                    fetching = False
                    log.info("large_documents_complete")
                    self._on_complete()
                await self._woken.wait()
                continue
            fetching = True
            self._asked = set(missing)
            try:
                await connection.publish(self._topic, self._applier.chunks.request(missing))
            except Permanent as error:
                log.error("fetch_refused", reason=str(error))
                await self._woken.wait()
                continue
            came = await self._answered(self._answer.wait_s(unanswered + 1, self._jitter()))
            unanswered = 0 if came else unanswered + 1

    async def _answered(self, wait_s: float) -> bool:
        """Wait until all chunks that were asked for are stored or replaced, or until none has come for `wait_s` s.

        Returns whether any has come, or all were replaced.
        """
        asked = len(self._asked)
        with contextlib.suppress(TimeoutError):
            while self._asked:
                self._progress.clear()
                if await self._replaced():
                    return True
                async with asyncio.timeout(wait_s):
                    await self._progress.wait()
        return len(self._asked) < asked

    async def _replaced(self) -> bool:
        """Return whether a bundle was examined meanwhile that has other documents than those that were asked for."""
        if not self._woken.is_set():
            return False
        self._woken.clear()
        return self._asked.isdisjoint(await asyncio.to_thread(self._applier.chunks.missing))
