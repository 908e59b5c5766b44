"""Build the components of one agent from its configuration, and connect them.  `agent.runtime.app` runs them.

`assemble` is blocking, because it reads files and opens the spool.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import msgspec

from agent.formats.down.documents import AUTHORITIES, DATABASE, RECIPIENT, SETTINGS
from agent.formats.up.columns import Event
from agent.link.authorities import Authorities
from agent.link.credentials import Credentials
from agent.link.endpoint import Endpoint
from agent.link.keeper import LinkKeeper
from agent.pushes.pushes import BUILT_AT_S, Pushes
from agent.pushes.release import Release
from agent.runtime import tuning
from agent.runtime.apply import Applier, make_applier
from agent.runtime.configuration import Configuration
from agent.runtime.configured_sources import held_in, loss_of, make_sources, source_buses
from agent.runtime.databases_effect import DatabasesEffect
from agent.runtime.effects import Effect
from agent.runtime.examine_databases import examine_with
from agent.runtime.key_effects import AuthoritiesEffect, RecipientEffect
from agent.runtime.limits import Limits
from agent.runtime.live_status import LiveStatus, SpoolAccount
from agent.runtime.loop_watch import LoopWatch
from agent.runtime.online import Online
from agent.runtime.renewal import Renewal, make_credentials
from agent.runtime.settings_effect import Parts, SettingsEffect, settings_of_release
from agent.runtime.trials import Trials
from agent.runtime.vital_signs import VitalSigns
from agent.serve.addresses import LoopbackPort, RuntimeSocket
from agent.serve.current_flags import CurrentFlags
from agent.serve.evaluation_counts import EvaluationCounts
from agent.serve.feature_clock import FeatureClock
from agent.serve.flagd_file import FlagdFile
from agent.serve.http import Server
from agent.serve.listeners import Listeners
from agent.serve.toggles import ToggleService
from agent.settings.identity import AUTHORITY, RENEWED, Identity
from agent.settings.pushed_plans import PushedPlans
from agent.settings.sections import Settings, UplinkSettings
from agent.sources import Source
from agent.sources.feeder import Feeder
from agent.system import log
from agent.system.descriptors import Descriptors
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.collector import Collector
from agent.telemetry.collect.holdings import Holder, Holdings
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.standing import Route, Standing
from agent.telemetry.uplink.uplink import Uplink


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the components through which data flow from the sources to the broker."""

    outbox: Outbox
    collector: Collector
    feeders: Sequence[Feeder]
    holders: Sequence[Holder]
    uplink: Uplink


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the components that `agent.runtime.app` runs.

    The owner must close `spool` after all other components have ended.
    """

    configuration: Configuration
    spool: Spool
    telemetry: Telemetry
    applier: Applier
    trials: Trials
    loop_watch: LoopWatch
    flags: CurrentFlags
    counts: EvaluationCounts
    online: Online
    link: LinkKeeper
    listeners: Listeners


def assemble(
    configuration: Configuration, limits: Limits, descriptors: Descriptors, *, started_s: float, since_s: float
) -> Assembly:
    """Build and connect all components of one agent.  Blocking.

    The process started at `started_s`, and frames have been captured for it since `since_s` (monotonic clock).

    Raises: Permanent if a file or a source is wrong; Transient if the disk refuses.  An error leaves no open spool.
    """
    local, identity = configuration.settings, configuration.identity
    # The sources are made before the outbox, but report losses only when they run.
    sources = make_sources(configuration.loaded, lambda lost: telemetry.outbox.add_loss(loss_of(lost)), descriptors)
    plans = PushedPlans(configuration.state / "plans", local.bus)
    pushes = _open_pushes(configuration, plans)
    configuration = _with_release(configuration, pushes.current())
    with ExitStack() as undo:
        spool = _open_spool(configuration, limits)
        undo.callback(spool.close)
        telemetry = _make_telemetry(configuration, limits, sources, spool, since_s)
        outbox, uplink = telemetry.outbox, telemetry.uplink
        toggles = ToggleService(identity.attributes)
        flags = _make_flags(configuration, toggles, pushes)
        authorities = Authorities((configuration.state / RENEWED).parent, identity.folder / AUTHORITY)
        credentials = make_credentials(configuration.state, identity, authorities, outbox)
        link = _make_link(configuration, limits, credentials)
        parts = _settings_parts(identity, limits, spool, telemetry, link)
        in_force = SettingsEffect(local, configuration.settings, parts, outbox)
        effects: dict[str, Effect] = {
            AUTHORITIES.name: AuthoritiesEffect(authorities),
            SETTINGS.name: in_force,
            DATABASE.name: DatabasesEffect(telemetry.collector, outbox, configuration.plans, plans),
            RECIPIENT.name: RecipientEffect(outbox),
        }
        applier = _make_applier(configuration, pushes, flags, telemetry, effects)
        online = Online(identity.vehicle, uplink, applier, Renewal(credentials))
        signs = VitalSigns(
            collector=telemetry.collector,
            feeders=telemetry.feeders,
            outbox=outbox,
            spool=spool,
            uplink=uplink,
            link=link,
            authorities=authorities,
            applier=applier,
            quota_bytes=lambda: in_force.in_force.spool.quota_bytes,
        )
        trials = Trials(pushes, applier, signs.read, online.reconnect)
        server = Server(toggles.routes)
        listeners = _make_listeners(configuration, server, outbox, descriptors)
        status = LiveStatus(
            broker=configuration.settings.uplink.broker,
            started_s=started_s,
            feeders=telemetry.feeders,
            collector=telemetry.collector,
            outbox=outbox,
            spool=SpoolAccount(spool.counts),
            link=link,
            uplink=uplink.status,
            applier=applier,
            trials=trials,
            toggles=toggles,
            listeners=listeners,
        )
        server.add_routes(status.routes)
        undo.pop_all()  # Everything is built, so the spool stays open, and the owner of the assembly closes it.
    return Assembly(
        configuration=configuration,
        spool=spool,
        telemetry=telemetry,
        applier=applier,
        trials=trials,
        loop_watch=LoopWatch(pushes),
        flags=flags,
        counts=toggles.counts,
        online=online,
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
        cert_file=identity.certificate_file,
        key_file=identity.key_file,
        client_id=identity.vehicle,
        keepalive_s=uplink.keepalive_s,
        timeout_s=timeout_s,
    )


def now_us() -> int:
    """Return the wall-clock time in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


def _open_pushes(configuration: Configuration, plans: PushedPlans) -> Pushes:
    identity = configuration.identity
    return Pushes.open(
        configuration.state / "pushes",
        trusted_root=identity.root,
        vehicle=identity.attributes,
        examine_bundle=examine_with(plans),
    )


def _open_spool(configuration: Configuration, limits: Limits) -> Spool:
    return Spool(
        configuration.state / "spool",
        tuning.spool_limits(configuration.settings.spool, limits),
        clock=MachineClock().read,
        runtime_folder=configuration.runtime_folder,
    )


def _with_release(configuration: Configuration, release: Release | None) -> Configuration:
    """Return `configuration` with the settings of `release`, because the components are built with them.

    The vehicle's own quota, for example, may be smaller than the pushed one.  The first batch that is stored with it
    would evict others.
    """
    settings = settings_of_release(configuration.settings, {} if release is None else release.documents)
    loaded = msgspec.structs.replace(configuration.loaded, settings=settings)
    return msgspec.structs.replace(configuration, loaded=loaded)


def _settings_parts(identity: Identity, limits: Limits, spool: Spool, telemetry: Telemetry, link: LinkKeeper) -> Parts:
    """Return how the components take the settings of each section when the fleet changes them."""

    def give_uplink(new: Settings) -> None:
        telemetry.uplink.set_rules(tuning.pace(new.uplink), tuning.link_policy(new.uplink), new.uplink.metered)
        link.set_endpoint(endpoint(identity, new.uplink, limits.connect_timeout_s), tuning.backoff(new.uplink, limits))

    return {
        "uplink": give_uplink,
        "telemetry": lambda new: telemetry.collector.set_limits(tuning.collector_limits(new.telemetry, limits)),
        "spool": lambda new: spool.set_limits(tuning.spool_limits(new.spool, limits)),
        "log": lambda new: log.configure(new.log.level, new.log.format),
    }


def _make_telemetry(
    configuration: Configuration, limits: Limits, sources: Sequence[Source], spool: Spool, since_s: float
) -> Telemetry:
    """Return the telemetry.  Its collector has no campaigns yet: `Applier.start` sets those of the release in force."""
    clock = MachineClock(recorded=any(source.recorded for source in configuration.settings.sources))
    holders = [source for source in sources if isinstance(source, Holder)]
    # The resume points are read before the run begins and before any source runs.  No frame from these points on is
    # durable yet.
    holdings = Holdings(holders, spool.resume_points())
    _begin_run(spool, sources, clock, since_s)
    outbox = _make_outbox(configuration, limits, spool, clock)
    buses = source_buses(sources)
    collecting = tuning.collector_limits(configuration.settings.telemetry, limits)
    collector = Collector(SignalTables(buses, configuration.plans), outbox, clock, collecting, holdings=holdings)
    return Telemetry(
        outbox=outbox,
        collector=collector,
        feeders=[Feeder(source, buses, collector.feed) for source in sources],
        holders=holders,
        uplink=_make_uplink(configuration, spool, clock),
    )


def _make_link(configuration: Configuration, limits: Limits, credentials: Credentials) -> LinkKeeper:
    uplink = configuration.settings.uplink
    address = endpoint(configuration.identity, uplink, limits.connect_timeout_s)
    return LinkKeeper(address, tuning.backoff(uplink, limits), connect=credentials.connect)


def _make_applier(
    configuration: Configuration,
    pushes: Pushes,
    flags: CurrentFlags,
    telemetry: Telemetry,
    effects: Mapping[str, Effect],
) -> Applier:
    own, mark = configuration.local, configuration.loaded.mark
    return make_applier(pushes, flags, telemetry.collector, telemetry.outbox, local=own, mark=mark, others=effects)


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


def _make_flags(configuration: Configuration, toggles: ToggleService, pushes: Pushes) -> CurrentFlags:
    clock = FeatureClock(
        configuration.state / "feature_time.json", MachineClock().read, lambda: pushes.record.time_s, BUILT_AT_S
    )
    return CurrentFlags(toggles, FlagdFile(configuration.runtime_folder), clock.read)


def _make_listeners(
    configuration: Configuration, server: Server, outbox: Outbox, descriptors: Descriptors
) -> Listeners:
    serve = configuration.settings.serve
    addresses = (
        RuntimeSocket(configuration.runtime_folder),
        LoopbackPort(serve.host, serve.port, descriptors),
    )
    return Listeners(server, addresses, lambda kind, fields: outbox.add_event(Event(now_us(), kind, fields)))


def _make_uplink(configuration: Configuration, spool: Spool, clock: MachineClock) -> Uplink:
    settings, identity = configuration.settings.uplink, configuration.identity
    route = Route(identity.vehicle, identity.partition, identity.acks_key, settings.ack)
    gate = LinkGate(
        tuning.link_policy(settings), configuration.state / "metered.json", clock.read, metered=settings.metered
    )
    return Uplink(Standing(spool.reader, route, tuning.pace(settings), gate))


def _begin_run(spool: Spool, sources: Sequence[Source], clock: MachineClock, since_s: float) -> None:
    captured_us = round((time.monotonic() - since_s) * 1e6)
    now = clock.read()
    since_us = now.wall_us - captured_us
    spool.begin_run(held_in(sources), since_us=since_us, now_us=now.wall_us, trusted=now.is_trusted)
