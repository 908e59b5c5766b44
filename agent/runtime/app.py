"""Run the components of one agent in one task group, and close them at the end.

`agent.runtime.assembly` builds the components.  `agent.runtime.supervisor` handles signals and reloads.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog

from agent import __version__
from agent.errors import Transient
from agent.formats.up.columns import Event, EventValue
from agent.runtime.assembly import Assembly, now_us
from agent.runtime.configuration import CampaignFile
from agent.runtime.configured_sources import NO_SOURCES
from agent.sources.feeder import State, feed_all
from agent.system.memory import freeze_lasting_objects
from agent.system.sd_notify import Notifier

DELIVERY_POLL_S: Final = 0.2
FLUSH_S: Final = 3.5
"""The time limit for storing the open windows when the agent stops.

The agent has 5 s from SIGTERM to its end, and closing the link takes up to 1 s of them.
"""
log = structlog.get_logger()


class Agent:
    """Runs the components of one configuration."""

    def __init__(self, parts: Assembly, notifier: Notifier) -> None:
        """Take ownership of `parts`, which `running` closes."""
        self._parts = parts
        self._notifier = notifier
        self._fed = asyncio.Event()  # set when every source has ended
        self._captured: Mapping[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the agent while the `with` block runs, then store the open windows and close everything.

        Raises: AgentError if the agent cannot start, for example if the disk is full; an ExceptionGroup if a task
        fails.
        """
        parts, settings = self._parts, self._parts.configuration.settings
        try:
            # Requests may wait in a socket from systemd already, and their answers need the release in force.
            async with parts.loop_watch.running():
                await parts.applier.start()
                async with parts.listeners:
                    async with asyncio.TaskGroup() as group:
                        tasks = [
                            group.create_task(self._feed(), name="sources"),
                            group.create_task(parts.telemetry.collector.run(), name="collector"),
                            group.create_task(parts.link.run(parts.online), name="link"),
                            group.create_task(parts.trials.watch(settings.pushes.trial_s), name="trials"),
                            group.create_task(parts.flags.run(), name="flags"),
                            group.create_task(parts.counts.run(self._report), name="counts"),
                            group.create_task(parts.telemetry.outbox.run(), name="outbox"),
                            group.create_task(parts.listeners.run(), name="listeners"),
                            group.create_task(self._watchdog(), name="watchdog"),
                        ]
                        self._report_ready()
                        yield
                        # The sources may have ended by themselves; the other tasks run until they are cancelled.
                        for task in tasks:
                            task.cancel()
                    # The feeders have passed on what had arrived, and no source is open any more.
                    # The link is closed by now, so batches that are stored from here on are sent after the next start.
                    await parts.applier.stop()
                    await self._store_rest()
        finally:
            await asyncio.to_thread(self._close_spool)

    async def replace_local(self, campaigns: Sequence[CampaignFile]) -> None:
        """Replace the vehicle's own campaigns by `campaigns`, at once.

        While the fleet's campaigns are in force, the vehicle's own campaigns have no effect.
        """
        await self._parts.applier.replace_local(campaigns)

    def hand_over(self, captured: Mapping[str, str]) -> None:
        """Note that another agent of this process follows; `captured` names the rings that it will read, by bus."""
        self._captured = captured

    def record_event(self, kind: str) -> None:
        """Report an event about the agent itself to the fleet; `kind` names the event."""
        self._parts.telemetry.outbox.add_event(Event(now_us(), kind, {"version": __version__}))

    async def delivered(self) -> bool:
        """Wait until every source has ended and every batch is acknowledged; return False if a source failed."""
        await self._fed.wait()
        # No event announces acknowledgements, so the outbox is asked again and again, which costs little.
        while not await asyncio.to_thread(self._parts.telemetry.outbox.delivered):
            await asyncio.sleep(DELIVERY_POLL_S)
        # The resume points are removed, so that the next replay of a log begins at its first frame.
        names = [holder.position_name for holder in self._parts.telemetry.holders]
        await asyncio.to_thread(self._parts.spool.forget_resume_points, names)
        return all(feeder.state is not State.FAILED for feeder in self._parts.telemetry.feeders)

    def _report_ready(self) -> None:
        parts = self._parts
        self._notifier.ready(
            f"{len(parts.telemetry.feeders)} sources, {len(parts.telemetry.collector.campaigns)} campaigns"
        )
        if not parts.telemetry.feeders:
            log.warning("no_sources", reason=NO_SOURCES)
        log.info("agent_ready", vehicle=parts.configuration.identity.vehicle, version=__version__)
        freeze_lasting_objects()

    def _report(self, kind: str, fields: Mapping[str, EventValue]) -> None:
        self._parts.telemetry.outbox.add_event(Event(now_us(), kind, fields))

    def _close_spool(self) -> None:
        self._parts.spool.reader.sweep()
        self._parts.spool.close()

    async def _feed(self) -> None:
        await feed_all(self._parts.telemetry.feeders)
        # No further frame will arrive, so nothing else would close the windows.
        await self._parts.telemetry.collector.flush()
        self._fed.set()

    async def _store_rest(self) -> None:
        outbox = self._parts.telemetry.outbox
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._parts.telemetry.collector.flush()
                await asyncio.to_thread(outbox.flush)
        except TimeoutError:
            log.error("flush_too_slow", seconds=FLUSH_S)
            return
        if outbox.problem is not None:
            log.error("not_stored", reason=outbox.problem, bytes=outbox.pending_bytes)
            return
        # Without a recorded end of this run, the next start reports the time in between as lost, as after a crash.
        try:
            await asyncio.to_thread(self._parts.spool.end_run, captured=self._captured, since_us=now_us())
        except Transient as error:
            log.error("end_not_stored", reason=str(error))

    async def _watchdog(self) -> None:
        # A call that blocks the event loop blocks this task as well.  The missing message tells the service manager so.
        parts = self._parts
        while self._notifier.watchdog_interval_s is not None:
            self._notifier.watchdog(
                f"link {parts.link.state.value}, {sum(parts.telemetry.collector.frames.values())} frames"
            )
            await asyncio.sleep(self._notifier.watchdog_interval_s)
