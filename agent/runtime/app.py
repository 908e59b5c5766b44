"""The composition root: builds the parts, connects them, and runs them in one task group.  Holds no logic.

What happens to the agent as a whole, over reloads and signals, is decided in `agent.runtime.supervisor`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

import structlog

from agent.errors import AgentError, Transient
from agent.formats.up.columns import Event
from agent.link.keeper import LinkKeeper
from agent.link.session import Backoff
from agent.pushes.pushes import Pushes
from agent.runtime.apply import make_applier
from agent.runtime.assembly import CampaignFile, Parts, endpoint, link_policy, make_sources, source_buses
from agent.runtime.live_status import LiveStatus, SpoolAccount
from agent.runtime.online import Online
from agent.serve.flagd_file import FlagdFile
from agent.serve.http import Server
from agent.serve.toggles import ToggleService
from agent.sources import BusLoss
from agent.sources.feeder import Feeder, State, feed_all
from agent.system.descriptors import Descriptors
from agent.system.memory import keep_what_is_there
from agent.system.sd_notify import Notifier
from agent.telemetry.clock import MachineClock, SteadyClock
from agent.telemetry.collect.collector import Collector, Limits
from agent.telemetry.collect.holdings import Holder, Holdings
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.outbox.outbox import Outbox, Sealer
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.standing import Route, Standing
from agent.telemetry.uplink.uplink import Uplink

DELIVERY_POLL_S: Final = 0.2
FLUSH_S: Final = 3.5  # of the 5 s between SIGTERM and the end; closing the link takes up to 1 s before
log = structlog.get_logger()


class Agent:
    """All parts of one configuration.  Building it reads files and opens the spool; it blocks."""

    def __init__(self, parts: Parts, notifier: Notifier, descriptors: Descriptors, started_s: float) -> None:
        """`started_s`: when the process did, monotonic clock.  Raises Permanent, Transient."""
        loaded, settings, identity = parts.loaded, parts.loaded.settings, parts.identity
        self._settings = settings
        self._notifier = notifier
        self._vehicle = identity.vehicle
        clock = MachineClock(recorded=any(source.recorded for source in settings.sources))
        sources = make_sources(loaded, self._bus_lost, descriptors)
        buses = source_buses(sources)
        self._spool = Spool.open(
            parts.state / "spool",
            quota_bytes=settings.spool.quota_bytes,
            max_age_s=settings.spool.max_age_s,
            reserve_bytes=settings.spool.reserve_bytes,
            now_s=SteadyClock(parts.runtime_folder / "steady-clock"),
        )
        try:
            pushes = Pushes.open(parts.state / "pushes", trusted_root=identity.root, vehicle=identity.attributes)
            positions = self._spool.positions()
            kept = {source.name for source in sources if isinstance(source, Holder) and source.resumes}
            gone = [bus for source in sources if source.name not in kept for bus in source.buses]
            self._spool.begin_run(_now_us(), lossy=", ".join(gone))
            account = SpoolAccount(self._spool.counts)
        except AgentError:
            self._spool.close()
            raise
        self._outbox = Outbox(
            self._spool,
            Sealer(identity.vehicle, identity.device_key, identity.recipient, _now_us),
            clock.read,
            batch_max_bytes=settings.telemetry.batch_max_bytes,
            pending_max_bytes=settings.telemetry.pending_max_bytes,
            refer=settings.uplink.ack == "receiver",
        )
        limits = Limits(
            increment_ns=round(settings.telemetry.increment_s * 1e9),
            silence_ns=round(settings.telemetry.silence_s * 1e9),
            increment_max_frames=settings.telemetry.increment_max_frames,
            window_max_samples=settings.telemetry.window_max_samples,
            loss_window_ns=round(settings.telemetry.loss_window_s * 1e9),
        )
        holders = [source for source in sources if isinstance(source, Holder)]
        self._positions = [holder.position_name for holder in holders]
        holdings = Holdings(holders, positions)
        self._collector = Collector(SignalTables(buses, parts.plans), self._outbox, clock, limits, holdings=holdings)
        self._feeders = [Feeder(source, buses, self._collector.feed) for source in sources]
        self._fed = asyncio.Event()
        toggles = ToggleService(identity.attributes)
        flagd_file = FlagdFile(parts.runtime_folder)
        self._applier = make_applier(
            pushes, toggles, self._collector, self._outbox, flagd_file=flagd_file, local=parts.local
        )
        route = Route(identity.vehicle, identity.partition, identity.acks_key, settings.uplink.ack)
        pace = Pace(
            settings.uplink.in_flight,
            settings.uplink.ack_timeout_s,
            settings.uplink.unconfirmed_bytes,
            backlog_bytes_s=settings.uplink.backlog_kbit_s * 125,
        )
        metered_file, metered = parts.state / "metered.json", settings.uplink.metered
        gate = LinkGate(link_policy(settings.uplink), metered_file, clock.read, metered=metered)
        uplink = Uplink(Standing(self._spool, route, pace, gate))
        self._online = Online(identity.vehicle, uplink, self._applier)
        floor_s, cap_s = settings.uplink.backoff_min_s, settings.uplink.backoff_max_s
        self._link = LinkKeeper(
            endpoint(identity, settings.uplink), Backoff(floor_s=min(0.5, floor_s), base_s=floor_s, cap_s=cap_s)
        )
        status = LiveStatus(
            vehicle=identity.vehicle,
            broker=settings.uplink.broker,
            started_s=started_s,
            feeders=self._feeders,
            collector=self._collector,
            outbox=self._outbox,
            spool=account,
            link=self._link,
            uplink=uplink.status,
            applier=self._applier,
            toggles=toggles,
        )
        self._server = Server((*toggles.routes, *status.routes), host=settings.serve.host, port=settings.serve.port)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The agent works while the block does; then what the buses brought until now is stored, and all is closed.

        Raises Permanent where it cannot start; in an ExceptionGroup what a part failed with.
        """
        try:
            async with self._server as server:
                await self._applier.start()  # a start that finds the port taken is no attempt of a release on trial
                log.info("serving", url=f"http://{self._settings.serve.host}:{server.port}")
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(self._feed(), name="sources"),
                        group.create_task(self._collector.run(), name="collector"),
                        group.create_task(self._link.run(self._online), name="link"),
                        group.create_task(self._applier.watch_trials(self._settings.pushes.trial_s), name="trials"),
                        group.create_task(self._outbox.run(), name="outbox"),
                        group.create_task(self._watchdog(), name="watchdog"),
                    ]
                    self._notifier.ready(f"{len(self._feeders)} sources, {len(self._collector.campaigns)} campaigns")
                    log.info("agent_ready", vehicle=self._vehicle, version=version("headunit-agent"))
                    keep_what_is_there()
                    yield
                    for task in tasks:
                        task.cancel()
                await self._applier.stop()
                await self._store_rest()
        finally:
            await asyncio.to_thread(self._close_spool)

    async def replace_local(self, campaigns: Sequence[CampaignFile]) -> None:
        """Collect for other local campaigns from now on, where the fleet has pushed none."""
        await self._applier.replace_local(campaigns)

    def tell(self, kind: str) -> None:
        """Tell the fleet what happens to the agent itself."""
        self._outbox.add_event(Event(_now_us(), kind, {"version": version("headunit-agent")}))

    async def delivered(self) -> bool:
        """Wait until every source has ended and every batch is acknowledged; whether no source failed.

        What was delivered to its end begins anew when it is asked for again.
        """
        await self._fed.wait()
        while not await asyncio.to_thread(self._outbox.delivered):
            await asyncio.sleep(DELIVERY_POLL_S)
        await asyncio.to_thread(self._spool.forget_positions, self._positions)
        return all(feeder.state is not State.FAILED for feeder in self._feeders)

    def _close_spool(self) -> None:
        self._spool.sweep()
        self._spool.close()

    async def _feed(self) -> None:
        await feed_all(self._feeders)
        await self._collector.flush()  # nothing can come any more
        self._fed.set()

    async def _store_rest(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._collector.flush()
                await asyncio.to_thread(self._outbox.flush)
        except TimeoutError:
            log.error("flush_too_slow", seconds=FLUSH_S)
            return
        if self._outbox.problem is not None:
            log.error("not_stored", reason=self._outbox.problem, bytes=self._outbox.pending_bytes)
            return
        try:
            await asyncio.to_thread(self._spool.end_run)
        except Transient as error:
            log.error("end_not_stored", reason=str(error))

    async def _watchdog(self) -> None:
        while self._notifier.watchdog_interval_s is not None:
            self._notifier.watchdog(f"link {self._link.state.value}, {sum(self._collector.frames.values())} frames")
            await asyncio.sleep(self._notifier.watchdog_interval_s)

    def _bus_lost(self, lost: BusLoss) -> None:
        self._outbox.add_loss(
            Loss(
                Reason.BUS_OVERFLOW,
                bus=lost.bus,
                detail=lost.detail,
                frames=lost.count,
                first_t_us=lost.first_ns // 1_000,
                last_t_us=lost.last_ns // 1_000,
            )
        )


def _now_us() -> int:
    return time.time_ns() // 1_000
