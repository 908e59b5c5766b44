"""Build the components of one agent from its configuration, and connect them.  `agent.runtime.app` runs them.

`assemble` is blocking, because it reads files and opens the spool.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.columns import Event
from agent.formats.up.losses import Reason
from agent.link.endpoint import Endpoint
from agent.link.keeper import LinkKeeper
from agent.link.session import Backoff
from agent.pushes.pushes import Pushes
from agent.runtime.apply import Applier, make_applier
from agent.runtime.configuration import Configuration
from agent.runtime.configured_sources import make_sources, source_buses
from agent.runtime.limits import UNCONFIRMED_BYTES, Limits
from agent.runtime.live_status import LiveStatus, SpoolAccount
from agent.runtime.online import Online
from agent.serve.addresses import LoopbackPort, RuntimeSocket
from agent.serve.flagd_file import FlagdFile
from agent.serve.http import Server
from agent.serve.listeners import Listeners
from agent.serve.toggles import ToggleService
from agent.settings.identity import AUTHORITY, DEVICE_CERTIFICATE, DEVICE_KEY, Identity
from agent.settings.sections import UplinkSettings
from agent.sources import BusLoss, Source
from agent.sources.feeder import Feeder
from agent.system.descriptors import Descriptors
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.collector import Collector
from agent.telemetry.collect.collector import Limits as CollectorLimits
from agent.telemetry.collect.holdings import Holder, Holdings
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.retention import Limits as SpoolLimits
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.link_policy import LinkPolicy
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.standing import Route, Standing
from agent.telemetry.uplink.uplink import Uplink


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the components that `agent.runtime.app` runs.

    The owner must close `spool` after all other components have ended.
    """

    configuration: Configuration
    spool: Spool
    outbox: Outbox
    collector: Collector
    feeders: Sequence[Feeder]
    holders: Sequence[Holder]
    applier: Applier
    online: Online
    link: LinkKeeper
    listeners: Listeners


def assemble(
    configuration: Configuration,
    limits: Limits,
    descriptors: Descriptors,
    *,
    started_s: float,
    since_s: float,
) -> Assembly:
    """Build and connect all components of one agent.  Blocking.

    `started_s` is the time at which the process started.  `since_s` is the time since which frames have been captured
    for this agent.  Both are on the monotonic clock.

    Raises: Permanent if a file or a source is wrong; Transient if the disk refuses.  An error leaves no open spool.
    """
    settings, identity = configuration.settings, configuration.identity
    # The sources are made before the outbox, but report losses only when they run.
    sources = make_sources(configuration.loaded, lambda lost: outbox.add_loss(_loss(lost)), descriptors)
    buses = source_buses(sources)
    holders = [source for source in sources if isinstance(source, Holder)]
    clock = MachineClock(recorded=any(source.recorded for source in settings.sources))
    with ExitStack() as undo:
        spool = _open_spool(configuration, limits)
        undo.callback(spool.close)
        pushes = Pushes.open(configuration.state / "pushes", trusted_root=identity.root, vehicle=identity.attributes)
        # The resume points are read before the run begins and before any source runs.  No frame from these points on is
        # durable yet.
        holdings = Holdings(holders, spool.resume_points())
        captured_us = round((time.monotonic() - since_s) * 1e6)
        now = clock.read()
        since_us = now.wall_us - captured_us
        spool.begin_run(_held_in(sources), since_us=since_us, now_us=now.wall_us, trusted=now.is_trusted)
        outbox = _make_outbox(configuration, limits, spool, clock)
        tables = SignalTables(buses, configuration.plans)
        collector = Collector(tables, outbox, clock, _collector_limits(configuration, limits), holdings=holdings)
        feeders = [Feeder(source, buses, collector.feed) for source in sources]
        toggles = ToggleService(identity.attributes)
        flagd_file = FlagdFile(configuration.runtime_folder)
        local, mark = configuration.local, configuration.loaded.mark
        applier = make_applier(pushes, toggles, collector, outbox, flagd_file=flagd_file, local=local, mark=mark)
        # The collector has no campaigns yet.  `applier.start` sets the campaigns of the release in force.
        uplink = _make_uplink(configuration, spool, clock)
        link = LinkKeeper(
            endpoint(identity, settings.uplink, limits.connect_timeout_s), _backoff(configuration, limits)
        )
        server = Server(toggles.routes)
        listeners = _make_listeners(configuration, server, outbox, descriptors)
        status = LiveStatus(
            broker=settings.uplink.broker,
            started_s=started_s,
            feeders=feeders,
            collector=collector,
            outbox=outbox,
            spool=SpoolAccount(spool.counts),
            link=link,
            uplink=uplink.status,
            applier=applier,
            toggles=toggles,
            listeners=listeners,
        )
        server.add_routes(status.routes)
        # Everything is built, so the spool stays open, and the owner of the assembly closes it.
        undo.pop_all()
    return Assembly(
        configuration=configuration,
        spool=spool,
        outbox=outbox,
        collector=collector,
        feeders=feeders,
        holders=holders,
        applier=applier,
        online=Online(identity.vehicle, uplink, applier),
        link=link,
        listeners=listeners,
    )


def endpoint(identity: Identity, uplink: UplinkSettings, timeout_s: float = Limits().connect_timeout_s) -> Endpoint:
    """Return the broker's address, with the files by which this vehicle proves its identity."""
    host, port = uplink.address
    return Endpoint(
        host=host,
        port=port,
        ca_file=identity.folder / AUTHORITY,
        cert_file=identity.folder / DEVICE_CERTIFICATE,
        key_file=identity.folder / DEVICE_KEY,
        client_id=identity.vehicle,
        keepalive_s=uplink.keepalive_s,
        timeout_s=timeout_s,
    )


def now_us() -> int:
    """Return the wall-clock time in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


def _open_spool(configuration: Configuration, limits: Limits) -> Spool:
    spool = configuration.settings.spool
    return Spool(
        configuration.state / "spool",
        SpoolLimits.of(spool.quota_bytes, spool.max_age_s, spool.reserve_bytes, limits.pending_max_bytes),
        clock=MachineClock().read,
        runtime_folder=configuration.runtime_folder,
    )


def _make_outbox(configuration: Configuration, limits: Limits, spool: Spool, clock: MachineClock) -> Outbox:
    identity = configuration.identity
    return Outbox(
        spool,
        Sealer(identity.vehicle, identity.device_key, identity.recipient, now_us),
        clock.read,
        batch_max_bytes=limits.batch_max_bytes,
        pending_max_bytes=limits.pending_max_bytes,
        # Only the project's own receiver confirms that it holds a catalogue.  Without a confirmation, each batch must
        # describe its signals itself.
        refer=configuration.settings.uplink.ack == "receiver",
    )


def _make_listeners(
    configuration: Configuration, server: Server, outbox: Outbox, descriptors: Descriptors
) -> Listeners:
    serve = configuration.settings.serve
    addresses = (
        RuntimeSocket(configuration.runtime_folder),
        LoopbackPort(serve.host, serve.port, descriptors),
    )
    return Listeners(server, addresses, lambda kind, fields: outbox.add_event(Event(now_us(), kind, fields)))


def _collector_limits(configuration: Configuration, limits: Limits) -> CollectorLimits:
    telemetry = configuration.settings.telemetry
    return CollectorLimits(
        increment_ns=round(telemetry.increment_s * 1e9),
        silence_ns=round(limits.silence_s * 1e9),
        increment_max_frames=limits.increment_max_frames,
        window_max_samples=limits.window_max_samples,
        checkpoint_ns=round(telemetry.checkpoint_s * 1e9),
    )


def _make_uplink(configuration: Configuration, spool: Spool, clock: MachineClock) -> Uplink:
    settings, identity = configuration.settings.uplink, configuration.identity
    route = Route(identity.vehicle, identity.partition, identity.acks_key, settings.ack)
    pace = Pace(
        settings.in_flight,
        settings.ack_timeout_s,
        UNCONFIRMED_BYTES[settings.broker_profile],
        # 1 kbit/s is 125 bytes/s.
        backlog_bytes_s=settings.backlog_kbit_s * 125,
    )
    lanes = frozenset(lane for lane in Lane if lane.label in settings.metered_lanes)
    policy = LinkPolicy(lanes, settings.metered_daily_mb * 1_000_000)
    gate = LinkGate(policy, configuration.state / "metered.json", clock.read, metered=settings.metered)
    return Uplink(Standing(spool.reader, route, pace, gate))


def _backoff(configuration: Configuration, limits: Limits) -> Backoff:
    # The wait is random between the floor and a limit.  Without a floor, some attempts would follow a failure at once.
    base_s = limits.backoff_min_s
    return Backoff(floor_s=min(0.5, base_s), base_s=base_s, cap_s=configuration.settings.uplink.backoff_max_s)


def _held_in(sources: Sequence[Source]) -> dict[str, str]:
    """Return for each bus the name of the ring or log that holds its frames, or "" if only the agent's memory does."""
    held = {source.name: source.held_in for source in sources if isinstance(source, Holder)}
    return {bus: held.get(source.name, "") for source in sources for bus in source.buses}


def _loss(lost: BusLoss) -> Loss:
    return Loss(
        Reason.BUS_OVERFLOW,
        bus=lost.bus,
        detail=lost.detail,
        frames=lost.count,
        first_t_us=lost.first_ns // 1_000,
        last_t_us=lost.last_ns // 1_000,
    )
