"""The composition root: builds the parts, connects them, and runs them in one task group.  Holds no logic.

SIGTERM and SIGINT store what is open and end the process.  SIGHUP reads everything again: campaigns alone are exchanged
in the running agent; where anything else changed, the parts are built anew behind the same spool.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog

from agent import identity as identities
from agent import log as logging
from agent import settings as configuration
from agent.apply import Applier
from agent.assembly import bus_plans, endpoint, local_campaigns, make_sources, source_buses
from agent.clock import MachineClock
from agent.descriptors import Descriptors, inherited
from agent.errors import AgentError, Permanent
from agent.formats import topics
from agent.formats.columns import Event
from agent.link.keeper import LinkKeeper
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS, Connection
from agent.link.session import Backoff
from agent.pushes.pushes import Pushes
from agent.sd_notify import Notifier
from agent.serve.http import Request, Response, Route, Server, json_response
from agent.serve.toggles import ToggleService
from agent.settings import Loaded
from agent.sources import BusLoss
from agent.sources.feeder import Feeder, State
from agent.sources.packet_ring import PacketRingSource
from agent.status import spool_status
from agent.telemetry.collector import Collector, Limits
from agent.telemetry.holdings import Holdings
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.outbox import Outbox, Sealer
from agent.telemetry.schedule import Pace
from agent.telemetry.spool import Spool
from agent.telemetry.uplink import Uplink

HOUSEKEEPING_S: Final = 2.0  # how often a disk that refused is tried again, and losses are told
ASK_AGAIN_S: Final = 30.0  # while the broker has nobody who answers
DELIVERY_POLL_S: Final = 0.2
FLUSH_S: Final = 4.0  # of the 5 s between SIGTERM and the end
log = structlog.get_logger()


async def run(loaded: Loaded, *, until_delivered: bool = False) -> int:
    """Run the agent that `loaded` configures until SIGTERM; returns the exit status.

    `until_delivered`: end when every source has ended and every batch is acknowledged (1 where a source failed).
    Raises Permanent where it cannot start.
    """
    signals = _Signals()
    notifier = Notifier()
    descriptors = Descriptors(notifier, inherited())
    while True:
        logging.configure(loaded.settings.log.level, loaded.settings.log.format)
        agent = await asyncio.to_thread(Agent, loaded, notifier, descriptors)
        ending = await agent.run(signals, until_delivered=until_delivered)
        if ending is not None:
            return ending
        assert signals.reloaded is not None
        loaded, signals.reloaded = signals.reloaded, None


class _Signals:
    """SIGTERM, SIGINT and SIGHUP as events of the running loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self.reloaded: Loaded | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)


class Agent:
    """All parts of one configuration.  Building it reads files and opens the spool; it blocks."""

    def __init__(self, loaded: Loaded, notifier: Notifier, descriptors: Descriptors) -> None:
        settings = loaded.settings
        self._loaded = loaded
        self._notifier = notifier
        self._started_s = time.monotonic()
        self._identity = identities.load(loaded.path(settings.identity.folder))
        self._plans = bus_plans(loaded)
        self._clock = MachineClock(recorded=any(source.recorded for source in settings.sources))
        sources = make_sources(loaded, self._bus_lost, descriptors)
        buses = source_buses(sources)
        local = local_campaigns(loaded.path(settings.telemetry.campaigns))
        state = loaded.path(settings.state.folder)
        self._runtime_folder = loaded.path(settings.state.runtime_folder)
        _make_folders(loaded, state, self._runtime_folder)

        self._spool = Spool.open(
            state / "spool",
            quota_bytes=settings.spool.quota_bytes,
            max_age_s=settings.spool.max_age_s,
            reserve_bytes=settings.spool.reserve_bytes,
        )
        try:
            self._pushes = Pushes.open(
                state / "pushes", trusted_root=self._identity.root, vehicle=self._identity.attributes
            )
        except AgentError:
            self._spool.close()
            raise
        self._outbox = Outbox(
            self._spool,
            Sealer(self._identity.vehicle, self._identity.device_key, self._identity.recipient, _now_us),
            self._clock.read,
            batch_max_bytes=settings.telemetry.batch_max_bytes,
            pending_max_bytes=settings.telemetry.pending_max_bytes,
        )
        limits = Limits(
            increment_ns=round(settings.telemetry.increment_s * 1e9),
            silence_ns=round(settings.telemetry.silence_s * 1e9),
            increment_max_frames=settings.telemetry.increment_max_frames,
            window_max_samples=settings.telemetry.window_max_samples,
        )
        rings = {source.name: source for source in sources if isinstance(source, PacketRingSource)}
        holdings = Holdings(rings, self._spool.positions())
        self._collector = Collector(buses, self._plans, self._outbox, self._clock, limits, holdings=holdings)
        self._feeders = [Feeder(source, buses, self._collector.feed) for source in sources]
        self._toggles = ToggleService(self._identity.attributes)
        self._applier = Applier(
            self._pushes,
            self._toggles,
            self._collector,
            self._outbox,
            runtime_folder=self._runtime_folder,
            local=local,
        )
        self._uplink = Uplink(
            self._spool,
            vehicle=self._identity.vehicle,
            partition=self._identity.partition,
            acks_key=self._identity.acks_key,
            ack=settings.uplink.ack,
            pace=Pace(settings.uplink.in_flight, settings.uplink.ack_timeout_s),
        )
        floor_s, cap_s = settings.uplink.backoff_min_s, settings.uplink.backoff_max_s
        self._nudged = asyncio.Event()
        self._link = LinkKeeper(
            endpoint(self._identity, settings.uplink), Backoff(floor_s=min(0.5, floor_s), base_s=floor_s, cap_s=cap_s)
        )

    async def run(self, signals: _Signals, *, until_delivered: bool) -> int | None:
        """Run until a signal, or until all is delivered; the exit status, or None to be built anew."""
        try:
            self._tell("agent_started")
            await self._applier.start()
            serve = self._loaded.settings.serve
            routes = (*self._toggles.routes, Route("GET", "/status", self._answer_status))
            async with Server(routes, host=serve.host, port=serve.port) as server:
                log.info("serving", url=f"http://{serve.host}:{server.port}")
                return await self._work(signals, until_delivered=until_delivered)
        finally:
            await asyncio.to_thread(self._spool.close)

    async def _work(self, signals: _Signals, *, until_delivered: bool) -> int | None:
        async with asyncio.TaskGroup() as group:
            feeding = [group.create_task(feeder.run(), name=f"source {feeder.name}") for feeder in self._feeders]
            tasks = [
                *feeding,
                group.create_task(self._collector.run(), name="collector"),
                group.create_task(self._link.run(self._online), name="link"),
                group.create_task(self._applier.watch_trials(self._loaded.settings.pushes.trial_s), name="trials"),
                group.create_task(self._housekeeping(), name="housekeeping"),
                group.create_task(self._watchdog(), name="watchdog"),
            ]
            delivered = group.create_task(self._delivered(feeding), name="delivered")
            ready = f"{len(self._feeders)} sources, {len(self._collector.campaigns)} campaigns"
            self._notifier.ready(ready)
            log.info("agent_ready", vehicle=self._identity.vehicle, version=version("headunit-agent"))
            ending = await self._until_ended(signals, delivered if until_delivered else None)
            if ending is not None:
                self._notifier.stopping()
            for task in (*tasks, delivered):
                task.cancel()
        # What the buses brought until now is stored before anything else happens.
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._collector.flush()
                self._tell("agent_stopped" if ending is not None else "agent_reloaded")
                await asyncio.to_thread(self._outbox.flush)
        except TimeoutError:
            log.error("flush_too_slow", seconds=FLUSH_S)
        if self._outbox.problem is not None:
            log.error("not_stored", reason=self._outbox.problem, bytes=self._outbox.pending_bytes)
        return ending

    async def _until_ended(self, signals: _Signals, delivered: "asyncio.Task[int] | None") -> int | None:
        waits = {asyncio.create_task(signals.stop.wait()), asyncio.create_task(signals.reload.wait())}
        try:
            while True:
                await asyncio.wait({*waits, *([delivered] if delivered else [])}, return_when=asyncio.FIRST_COMPLETED)
                if signals.stop.is_set():
                    return 0
                if delivered is not None and delivered.done():
                    return delivered.result()
                signals.reload.clear()
                waits.add(asyncio.create_task(signals.reload.wait()))
                if await self._reload(signals):
                    return None
        finally:
            for wait in waits:
                wait.cancel()

    async def _reload(self, signals: _Signals) -> bool:
        """Read everything again; whether the parts must be built anew.  A mistake leaves all as it is."""
        self._notifier.reloading(time.monotonic_ns())
        try:
            loaded = configuration.load(self._loaded.file)
            plans = await asyncio.to_thread(bus_plans, loaded)
            local = await asyncio.to_thread(local_campaigns, loaded.path(loaded.settings.telemetry.campaigns))
        except Permanent as error:
            log.error("reload_refused", reason=str(error))
            self._notifier.ready("reload refused, see the log")
            return False
        if loaded.settings != self._loaded.settings or plans != self._plans:
            signals.reloaded = loaded
            return True
        await self._applier.replace_local(local)
        self._notifier.ready("campaigns read again")
        return False

    async def _online(self, connection: Connection) -> None:
        """One connection: hear what the fleet says, ask what is new, send what is waiting."""
        vehicle = self._identity.vehicle
        await connection.subscribe([topics.ack(vehicle), topics.push(vehicle), topics.NUDGE])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(connection), name="hear")
            group.create_task(self._ask(connection), name="ask")
            group.create_task(self._uplink.run(connection), name="uplink")

    async def _hear(self, connection: Connection) -> None:
        vehicle = self._identity.vehicle
        async for topic, payload in connection.messages():
            if topic == topics.ack(vehicle):
                await self._uplink.handle_ack(payload)
            elif topic == topics.push(vehicle):
                await self._applier.offer(payload)
            elif topic == topics.NUDGE:
                self._nudged.set()

    async def _ask(self, connection: Connection) -> None:
        while True:
            self._nudged.clear()
            await self._ask_once(connection)
            await self._nudged.wait()

    async def _ask_once(self, connection: Connection) -> None:
        topic = topics.sync(self._identity.vehicle)
        try:
            while await connection.publish(topic, self._pushes.sync_request()) == NO_MATCHING_SUBSCRIBERS:
                await asyncio.sleep(ASK_AGAIN_S)
        except Permanent as error:  # refused by the broker: telemetry goes on without pushes
            log.error("sync_refused", reason=str(error))

    async def _delivered(self, feeding: "list[asyncio.Task[None]]") -> int:
        """When every source has ended: store the rest, and wait until all of it is acknowledged."""
        if feeding:
            await asyncio.wait(feeding)
        await self._collector.flush()
        # The uplink's thread empties the spool; a look now and then is simpler than a signal from there.
        while (await asyncio.to_thread(self._spool.counts)).batches or self._outbox.pending_bytes:
            await asyncio.sleep(DELIVERY_POLL_S)
        return 1 if any(feeder.state is State.FAILED for feeder in self._feeders) else 0

    async def _housekeeping(self) -> None:
        told: str | None = None
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            await asyncio.to_thread(self._outbox.flush)
            if self._outbox.problem != told:
                told = self._outbox.problem
                if told is not None:
                    log.error("disk_refuses", reason=told, effect="capturing into memory, limited by pending_max_bytes")
                else:
                    log.info("disk_accepts_again")

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

    def _tell(self, kind: str) -> None:
        self._outbox.add_event(Event(_now_us(), kind, {"version": version("headunit-agent")}))

    def _answer_status(self, _: Request) -> Response:
        return json_response(200, self.status())

    def status(self) -> dict[str, Any]:
        """What the agent is doing, in plain values; see agent.status."""
        return {
            "running": True,
            "version": version("headunit-agent"),
            "vehicle": self._identity.vehicle,
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "sources": [
                {"name": feeder.name, "state": str(feeder.state), "problem": feeder.problem} for feeder in self._feeders
            ],
            "telemetry": {
                "frames": dict(self._collector.frames),
                "not_decoded": dict(self._collector.refused),
                "samples": self._outbox.samples,
                "campaigns": [
                    {"name": campaign.name, "revision": campaign.revision} for campaign in self._collector.campaigns
                ],
                "problem": self._outbox.problem,
            },
            "spool": spool_status(self._spool.counts()),
            "link": {
                "state": self._link.state.value,
                "broker": self._loaded.settings.uplink.broker,
                "problem": self._link.problem,
                **asdict(self._uplink.counts),
            },
            "pushes": {
                "version": self._applier.version,
                "in_trial": self._pushes.in_trial,
                "refused": dict(self._applier.refused),
                "problem": self._applier.problem,
            },
            "toggles": _toggle_values(self._toggles),
        }


def _toggle_values(toggles: ToggleService) -> Mapping[str, Any]:
    """Each toggle as it evaluates for the vehicle itself."""
    values: dict[str, Any] = {}
    for key in toggles.keys:
        with contextlib.suppress(Permanent):  # a rule that needs the asking app's own context
            evaluation = toggles.evaluate(key)
            values[key] = {"value": evaluation.value, "variant": evaluation.variant, "reason": evaluation.reason}
    return values


def _make_folders(loaded: Loaded, *folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Permanent(
                f"{loaded.file}: state: cannot make {folder} ({error.strerror}); name a folder that the agent may write"
            ) from error


def _now_us() -> int:
    return time.time_ns() // 1_000
