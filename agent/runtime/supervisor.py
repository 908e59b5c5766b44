"""The life of the agent over signals and reloads.

SIGTERM and SIGINT store what is open and end the process.  SIGHUP reads everything again: campaigns alone are exchanged
in the running agent; where anything else changed, the parts are built anew behind the same spool.  Invariant: a
configuration with a mistake changes nothing, and one message says which; where the mistake shows only when the parts
are built (a port that is taken), the configuration before takes over again.  A disk that refuses at the start is waited
for: a service manager would give up after some attempts.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

import structlog

from agent.errors import AgentError, Permanent, Transient, first
from agent.runtime.app import Agent
from agent.runtime.assembly import Parts, read_parts, try_sources
from agent.settings.settings import Loaded
from agent.system import log as logging
from agent.system.descriptors import Descriptors
from agent.system.sd_notify import Notifier

RETRY_S: Final = 2.0  # how soon a start that the disk refused is tried again
log = structlog.get_logger()


class _Ending(Enum):
    """Why an agent ends, and how it tells the fleet."""

    STOPPED = "agent_stopped"
    DELIVERED = "agent_delivered"
    DELIVERED_IN_PART = "agent_delivered_in_part"  # a source failed
    RELOADED = "agent_reloaded"


async def run(
    loaded: Loaded, read: Callable[[], Loaded], descriptors: Descriptors, *, until_delivered: bool = False
) -> int:
    """Run the agent that `loaded` configures until SIGTERM; `read` gives the configuration again.  The exit status.

    `until_delivered`: end when every source has ended and every batch is acknowledged; 1 where a source failed, or
    where a signal came before.  Raises AgentError where it cannot start, or where a part failed for good.
    """
    supervisor = _Supervisor(loaded, read, descriptors, until_delivered=until_delivered)
    try:
        ending = await supervisor.run()
    except ExceptionGroup as group:
        ours, others = group.split(AgentError)
        if ours is None or others is not None:
            raise
        raise first(ours) from group
    return 0 if ending is (_Ending.DELIVERED if until_delivered else _Ending.STOPPED) else 1


class _Supervisor:
    def __init__(
        self, loaded: Loaded, read: Callable[[], Loaded], descriptors: Descriptors, *, until_delivered: bool
    ) -> None:
        self._loaded = loaded
        self._read = read
        self._until_delivered = until_delivered
        self._started_s = time.monotonic()
        self._notifier = Notifier()
        self._descriptors = descriptors
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._next: Parts | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    async def run(self) -> _Ending:
        """Run one agent after the other, until one ends for good."""
        parts, before = await asyncio.to_thread(read_parts, self._loaded), None
        problem: str | None = None
        while not self._stop.is_set():
            settings = parts.loaded.settings
            logging.configure(settings.log.level, settings.log.format)
            ready = False
            try:
                agent = await asyncio.to_thread(Agent, parts, self._notifier, self._descriptors, self._started_s)
                agent.tell("agent_started")
                async with agent.running():
                    ready = True
                    problem = None
                    ending = await self._until_ended(agent, parts)
                    agent.tell(ending.value)
            except Transient as error:
                if ready:
                    raise
                if problem is None:
                    log.error("start_postponed", reason=str(error), retry_s=RETRY_S)
                problem = str(error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), RETRY_S)
                continue
            except AgentError as error:
                if ready or before is None:
                    raise
                _refused(error)
                parts, before = before, None
                continue
            if ending is not _Ending.RELOADED:
                log.info("agent_stopped", uptime_s=round(time.monotonic() - self._started_s, 1))
                return ending
            assert self._next is not None
            parts, before = self._next, parts
        return _Ending.STOPPED

    async def _until_ended(self, agent: Agent, parts: Parts) -> _Ending:
        delivered = asyncio.create_task(agent.delivered()) if self._until_delivered else None
        while True:
            signals = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            waits = [*signals, delivered] if delivered else signals
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in signals:
                    wait.cancel()
            if not self._stop.is_set() and self._reload.is_set():
                self._reload.clear()
                if not await self._found_other_parts(agent, parts):
                    continue
                ending = _Ending.RELOADED
            elif self._stop.is_set() or delivered is None:
                ending = _Ending.STOPPED
            else:
                ending = _Ending.DELIVERED if delivered.result() else _Ending.DELIVERED_IN_PART
            if delivered:
                delivered.cancel()
            if ending is not _Ending.RELOADED:
                self._notifier.stopping()
            return ending

    async def _found_other_parts(self, agent: Agent, parts: Parts) -> bool:
        """Read everything again; whether the agent must be built anew, of `_next`."""
        self._notifier.reloading(time.monotonic_ns())
        try:
            found = await asyncio.to_thread(lambda: read_parts(self._read()))
            if not found.same_but_campaigns(parts):
                await asyncio.to_thread(try_sources, found.loaded)
                self._next = found
                return True
        except Permanent as error:
            _refused(error)
            self._notifier.ready("reload refused, see the log")
            return False
        await agent.replace_local(found.local)
        self._notifier.ready("campaigns read again")
        return False


def _refused(error: AgentError) -> None:
    log.error("reload_refused", reason=str(error), effect="everything stays as it was")
