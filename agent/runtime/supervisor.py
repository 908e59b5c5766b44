"""Run one agent after the other, and handle signals, reloads and failed starts.

On SIGTERM and SIGINT, the open windows are stored and the process ends.  On SIGHUP, the configuration is read again.
If only campaigns changed, the running agent replaces them.  If anything else changed, the agent ends, and a new one is
built with the same spool.

    an agent                                           the next step
    -------------------------------------------------  ------------------------------------------------------
    did not start: the disk refused                    try the same configuration again after RETRY_S
    did not start: a mistake, after a reload           return to the configuration before the reload
    did not start: a mistake, at the first start       end the process with the error
    ran, and was asked to reload                       run the new configuration, and remember the present one
    ran, and was stopped or has delivered everything   end the process
    ran, and a component failed for good               end the process with the error

Invariant: if a reload finds a mistake, the earlier configuration stays in use, and one message in the log names the
mistake.  Most mistakes are found while the agent runs.  A mistake that shows only when the components are built
(another agent uses the spool) costs a short interruption.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from agent.errors import AgentError, Permanent, Transient, ungrouped
from agent.runtime.app import Agent
from agent.runtime.assembly import assemble
from agent.runtime.configuration import Configuration, read_configuration
from agent.runtime.configured_sources import try_sources
from agent.runtime.limits import Limits
from agent.runtime.listen import captured_buses
from agent.runtime.start_note import StartNote
from agent.settings.settings import Loaded
from agent.system import log as logging
from agent.system.descriptors import Descriptors
from agent.system.sd_notify import Notifier

RETRY_S: Final = 2.0
"""The wait before another start if the disk refuses.

The process waits by itself, because the start of another one would cost seconds of CPU each time.
"""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Process:
    """Holds the objects that live as long as the process, across all reloads.

    `started_s` is the start of the process on the monotonic clock.
    """

    notifier: Notifier
    descriptors: Descriptors
    started_s: float
    limits: Limits | None = None


class _Ending(Enum):
    """The reasons for the end of an agent.  Each value is the kind of the event that reports the end to the fleet."""

    STOPPED = "agent_stopped"
    DELIVERED = "agent_delivered"
    DELIVERED_IN_PART = "agent_delivered_in_part"  # at least one source failed
    RELOADED = "agent_reloaded"


class _NotStartedError(Exception):
    """The agent could not start; `reason` is the error."""

    def __init__(self, reason: AgentError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def run(loaded: Loaded, read: Callable[[], Loaded], process: Process, *, until_delivered: bool = False) -> int:
    """Run the agent that `loaded` configures until SIGTERM, and return the exit status of the process.

    `read` reads the configuration again.  With `until_delivered`, the agent also ends when every source has ended and
    every batch is acknowledged.  The status is then 1 if a source failed, or if a signal ended the agent earlier.

    Raises: AgentError if the agent cannot start, or if one of its components failed for good.
    """
    supervisor = _Supervisor(loaded, read, process, until_delivered=until_delivered)
    with ungrouped(), supervisor.noting_starts():
        ending = await supervisor.run()
    return 0 if ending is (_Ending.DELIVERED if until_delivered else _Ending.STOPPED) else 1


class _Supervisor:
    def __init__(self, loaded: Loaded, read: Callable[[], Loaded], process: Process, *, until_delivered: bool) -> None:
        self._loaded = loaded
        self._read = read
        self._process = process
        self._until_delivered = until_delivered
        self._since_s = process.started_s
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._next: Configuration | None = None
        self._postponed = False
        self._start_note = StartNote(loaded.path(loaded.settings.state.runtime_folder))
        # The loop itself handles the signals, because events of asyncio may only be set in their loop.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    @contextmanager
    def noting_starts(self) -> Iterator[None]:
        """Note for `status` that the process is starting, until an agent answers or the `with` block ends."""
        self._start_note.write()
        try:
            yield
        finally:
            self._start_note.remove()

    async def run(self) -> _Ending:
        """Run one agent after the other until one ends for good; see the table in the text of this module."""
        configuration, before = await asyncio.to_thread(read_configuration, self._loaded), None
        while not self._stop.is_set():
            try:
                ending = await self._run_one(configuration)
            except _NotStartedError as failure:
                if isinstance(failure.reason, Transient):
                    await self._postpone(failure.reason)
                elif before is not None:
                    _log_refusal(failure.reason)
                    # The earlier configuration ran a moment ago.  If it fails now, the process ends.
                    configuration, before = before, None
                else:
                    raise failure.reason from failure
                continue
            if ending is not _Ending.RELOADED:
                log.info("agent_stopped", uptime_s=round(time.monotonic() - self._process.started_s, 1))
                return ending
            # The old agent has closed everything by now, so the new one can take over its port and its spool.
            assert self._next is not None
            configuration, before = self._next, configuration
        return _Ending.STOPPED

    async def _run_one(self, configuration: Configuration) -> _Ending:
        """Run one agent until it ends, and return the reason of the end.

        Raises: _NotStartedError if the agent cannot start.  Errors of an agent that has started are passed on.
        """
        settings = configuration.settings
        logging.configure(settings.log.level, settings.log.format)
        started = False
        try:
            agent = await asyncio.to_thread(self._build, configuration)
            agent.record_event("agent_started")
            async with agent.running():
                started, self._postponed = True, False
                self._start_note.remove()
                ending = await self._until_ended(agent, configuration)
                agent.record_event(ending.value)
        except AgentError as error:
            if started:
                raise
            raise _NotStartedError(error) from error
        return ending

    def _build(self, configuration: Configuration) -> Agent:
        process = self._process
        parts = assemble(
            configuration,
            process.limits or Limits(),
            process.descriptors,
            started_s=process.started_s,
            since_s=self._since_s,
        )
        return Agent(parts, process.notifier)

    async def _postpone(self, reason: Transient) -> None:
        # The log gets one line for the whole time, because a disk may stay full for days.
        self._start_note.write(str(reason))
        if not self._postponed:
            log.error("start_postponed", reason=str(reason), retry_s=RETRY_S)
            self._postponed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._stop.wait()

    async def _until_ended(self, agent: Agent, configuration: Configuration) -> _Ending:
        """Wait until `agent` must end, and return the reason.  Meanwhile, replace its campaigns on SIGHUP."""
        delivered = asyncio.create_task(agent.delivered()) if self._until_delivered else None
        try:
            while True:
                await self._wait_for_any(delivered)
                # A stop wins over a reload that came at the same time.
                if self._stop.is_set():
                    ending = _Ending.STOPPED
                elif self._reload.is_set():
                    self._reload.clear()
                    if not await self._needs_new_agent(agent, configuration):
                        continue
                    self._since_s = time.monotonic()
                    assert self._next is not None
                    # Rings that the next agent does not read are closed, so nothing will be missing from them.
                    agent.hand_over(captured_buses(self._next.settings.sources, self._process.descriptors))
                    return _Ending.RELOADED
                else:
                    assert delivered is not None
                    ending = _Ending.DELIVERED if delivered.result() else _Ending.DELIVERED_IN_PART
                self._process.notifier.stopping()
                return ending
        finally:
            if delivered is not None:
                delivered.cancel()

    async def _wait_for_any(self, delivered: "asyncio.Task[bool] | None") -> None:
        """Wait until a signal has come, or `delivered` is done."""
        signals = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
        waits = [*signals, delivered] if delivered else signals
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in signals:
                wait.cancel()

    async def _needs_new_agent(self, agent: Agent, configuration: Configuration) -> bool:
        """Read the configuration again, and replace the campaigns of `agent` if nothing else changed.

        Returns True if a new agent must be built from `_next`.  A mistake is logged, and `agent` goes on unchanged.
        """
        notifier = self._process.notifier
        notifier.reloading(time.monotonic_ns())
        try:
            found = await asyncio.to_thread(lambda: read_configuration(self._read()))
            if not found.equals_except_campaigns(configuration):
                # Most mistakes show here, while the old agent still runs.
                await asyncio.to_thread(try_sources, found.loaded)
                self._next = found
                return True
        except Permanent as error:
            _log_refusal(error)
            notifier.ready("the reload was refused; see the log")
            return False
        await agent.replace_local(found.local)
        notifier.ready("the campaigns were read again")
        return False


def _log_refusal(error: AgentError) -> None:
    log.error("reload_refused", reason=str(error), effect="the agent goes on with the earlier configuration")
