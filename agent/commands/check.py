"""`headunit-agent check`: tries everything that a configuration names, without connecting to the broker.

The checks call the same functions as `run`, so `run` can build every configuration that passes.  The checks are
independent of each other, so one mistake does not hide the next.
"""

import argparse
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from agent.commands import effective
from agent.commands.check_folders import check_folders
from agent.commands.check_report import Report
from agent.commands.config_option import add_config
from agent.errors import did_you_mean, nearest
from agent.formats.down.campaign import names_in
from agent.link.endpoint import tls_context
from agent.runtime.assembly import endpoint
from agent.runtime.configuration import CampaignFile, local_campaigns
from agent.runtime.configured_sources import NO_SOURCES, make_source, source_buses
from agent.settings import identity as identities
from agent.settings import settings as configuration
from agent.settings.plans import bus_plan
from agent.settings.sections import PacketRingSettings, PythonCanSettings, TelemetrySettings
from agent.settings.settings import Loaded
from agent.sources import Source, interfaces, ring_socket
from agent.system.arguments import add_json, add_strict
from agent.system.command_line import complain
from agent.system.secrecy import forbid_dumps
from agent.telemetry.collect.conditions.admission import admit
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.plan import BusPlan

RENEW: Final = timedelta(days=30)
"""A note is added if the certificate of the vehicle expires within this time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        "--encoding",
        metavar="CODE",
        help="try this encoding for the databases (DBC, SYM) that have no key `encoding` in the configuration",
    )
    parser.add_argument(
        "--effective",
        action="store_true",
        help="show each setting in force and where its value comes from: default, file, or release N of the fleet",
    )
    add_strict(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the report on stdout and each problem on stderr; return 0 if there is no problem.

    With `--effective`, print the settings in force instead, and return 0.  Raises: Permanent if they cannot be read.
    """
    if options.effective:
        return effective.show(options.config, as_json=options.json)
    forbid_dumps()  # The check reads the device key, as the agent does.
    report = check(options.config, encoding=options.encoding, strict=options.strict)
    for problem in report.problems:
        complain("headunit-agent", problem)
    print(json.dumps(report.as_dict(), indent=2) if options.json else report)
    return 0 if report.ok else 1


def check(file: Path, *, encoding: str | None = None, strict: bool = False) -> Report:
    """Check the configuration `file` and everything that it names.

    `encoding` is for the databases whose encoding the configuration does not name.  If `strict`, notes on databases are
    problems.
    """
    report = Report(str(file))
    loaded = report.attempt(lambda: configuration.load(file))
    if loaded is None:
        return report
    _check_identity(loaded, report)
    plans: dict[str, BusPlan] = {}
    for bus in loaded.settings.bus:
        plan = report.attempt(partial(bus_plan, loaded, bus, encoding=encoding))
        if plan is not None:
            plans[bus] = plan
    _check_databases(plans, report, strict=strict)
    _check_sources(loaded, report)
    campaigns = report.attempt(lambda: local_campaigns(loaded.path(loaded.settings.telemetry.campaigns)))
    if campaigns is not None:
        _check_campaigns(campaigns, plans, loaded, report)
    folders = check_folders(loaded)
    report.problems += folders.problems
    report.notes += folders.notes
    return report


def _check_identity(loaded: Loaded, report: Report) -> None:
    identity = report.attempt(
        lambda: identities.load(
            loaded.path(loaded.settings.identity.folder),
            renewed=loaded.path(loaded.settings.state.folder) / identities.RENEWED,
        )
    )
    if identity is None:
        return
    now = datetime.now(UTC)
    report.attempt(lambda: tls_context(endpoint(identity, loaded.settings.uplink), now))
    expiry = identity.certificate.not_valid_after_utc
    if now < expiry < now + RENEW:
        report.notes.append(
            f"{identity.folder}: the certificate expires on {expiry:%Y-%m-%d}; "
            "the agent renews it when it is connected, so let it connect before that day"
        )
    report.facts["vehicle"] = identity.vehicle


def _check_databases(plans: dict[str, BusPlan], report: Report, *, strict: bool) -> None:
    for bus, plan in plans.items():
        found = report.problems if strict else report.notes
        found += [f"bus.{bus}: {note}" for note in plan.notes]
    report.facts["buses"] = {
        bus: {"messages": len(plan.messages), "signals": sum(len(message.signals) for message in plan.with_contained)}
        for bus, plan in plans.items()
    }


def _check_sources(loaded: Loaded, report: Report) -> None:
    sources: list[Source] = []
    for number in range(len(loaded.settings.sources)):
        source = report.attempt(lambda n=number: make_source(loaded, n, lambda _: None))  # type: ignore[misc]
        if source is not None:
            sources.append(source)
    buses = report.attempt(lambda: source_buses(sources))
    if sources and buses is not None:
        _check_tables(loaded, buses, report)
    if not loaded.settings.sources:
        report.notes.append(f"{loaded.file}: {NO_SOURCES}")
    report.facts["sources"] = [source.name for source in sources]
    for number, configured in enumerate(loaded.settings.sources):
        if isinstance(configured, PythonCanSettings):
            _check_interface(f"{loaded.file}: sources[{number}].interface", configured.interface, report)
        elif isinstance(configured, PacketRingSettings) and interfaces.is_can(configured.interface) is False:
            where = f"{loaded.file}: sources[{number}].interface"
            report.problems.append(f"{where}: {configured.interface} is not a CAN interface; name another one")
    _check_capture(
        [s for s in loaded.settings.sources if isinstance(s, PythonCanSettings | PacketRingSettings)], report
    )


def _check_tables(loaded: Loaded, buses: Sequence[str], report: Report) -> None:
    """Report buses without a table `[bus.*]`, and tables whose bus no source delivers.

    They are problems if no bus has both: no campaign can then collect anything.
    """
    tables = loaded.settings.bus
    if buses and tables and not tables.keys() & set(buses):
        for bus in tables:
            near = nearest(bus, buses) or (buses[0] if len(buses) == 1 else None)
            remedy = f"name the table [bus.{near}]" if near else "name the table after one of these buses"
            report.problems.append(
                f"{loaded.file}: [bus.{bus}]: no source delivers this bus, and no bus of the sources "
                f"({', '.join(buses)}) has a table, so no campaign can collect anything; {remedy}"
            )
        return
    for bus in buses:
        if bus not in tables:
            report.notes.append(f"bus {bus} has no [bus.{bus}] table with databases, so its frames are only counted")
    for bus in tables:
        if bus not in buses:
            report.notes.append(
                f"[bus.{bus}]: no source delivers this bus; the sources deliver {', '.join(buses) or 'no bus'}"
            )


def _check_interface(where: str, name: str, report: Report) -> None:
    """Report a problem if neither python-can nor one of its plug-ins has the interface `name`."""
    # Importing python-can takes half of the time of a check, and most configurations do not use it.
    from can import VALID_INTERFACES

    if name not in VALID_INTERFACES:
        remedy = did_you_mean(name, VALID_INTERFACES) or f"its interfaces are {', '.join(sorted(VALID_INTERFACES))}"
        report.problems.append(f"{where}: python-can has no interface {name!r}; {remedy}")


def _check_capture(sources: Sequence[PythonCanSettings | PacketRingSettings], report: Report) -> None:
    """Report how the frames of each live bus are captured, and why."""
    reason = ring_socket.unavailable()
    ring = f"packet ring (CAP_NET_RAW is held, kernel {os.uname().release} supports it)"
    if reason is not None:
        ring = f"python-can (socketcan), because packet rings cannot be used: {reason}"
    if reason == ring_socket.NO_CAPABILITY:
        ring = "packet ring in the service, which has CAP_NET_RAW; python-can (socketcan) for this user, which lacks it"
    rings = [source for source in sources if isinstance(source, PacketRingSettings)]
    if sources:
        report.facts["capture"] = {
            source.bus: ring if source in rings else f"python-can ({source.interface}), as configured"
            for source in sources
        }
    if rings and reason is not None:
        report.notes.append(f"packet_ring: {_fall_back(reason)}")
    for source in rings:
        up = interfaces.interface_up(source.interface)
        if not up:
            state = "does not exist" if up is None else "is down"
            report.notes.append(
                f"source {source.bus}: interface {source.interface} {state}; the agent waits until it is up"
            )


def _fall_back(reason: str) -> str:
    slow = "falls back to python-can, which takes ten times the processor time"
    if reason == ring_socket.NO_CAPABILITY:
        return (
            "this user lacks CAP_NET_RAW. The service unit grants it, so the service uses the packet ring; "
            f"an agent that this user starts {slow}"
        )
    return f"the agent {slow}: {reason}"


def _check_campaigns(
    campaigns: Sequence[CampaignFile], plans: dict[str, BusPlan], loaded: Loaded, report: Report
) -> None:
    tables = SignalTables(tuple(plans), plans)
    names = tables.names
    # The names of a broken database are unknown, and the database itself has already been reported as a problem.
    known = bool(plans) and plans.keys() == loaded.settings.bus.keys()
    folder = loaded.path(loaded.settings.telemetry.campaigns)
    for file in campaigns:
        for name in names_in(file.campaign):
            if known and not names.knows(name):
                near = names.suggest(name)
                remedy = "; check its spelling" if near is None else f"; did you mean {near!r}?"
                report.notes.append(f"{file.source}: {name!r} matches no signal of the databases{remedy}")
    if known:
        _check_conditions(campaigns, tables, loaded.settings.telemetry.rings_max_bytes, report)
    if not folder.is_dir() and loaded.settings.telemetry.campaigns != TelemetrySettings().campaigns:
        report.problems.append(
            f"{loaded.file}: telemetry.campaigns: {folder} is not a folder; make the folder, or name another one"
        )
    elif not campaigns:
        report.notes.append(f"{folder}: there are no campaigns; nothing is collected until the fleet publishes one")
    report.facts["campaigns"] = [f"{file.campaign.name}@{file.campaign.revision}" for file in campaigns]


def _check_conditions(
    campaigns: Sequence[CampaignFile], tables: SignalTables, rings_max_bytes: int, report: Report
) -> None:
    """Report the condition-based campaigns that this vehicle would refuse, and the memory that the others take."""
    sources = {file.campaign.name: file.source for file in campaigns}
    conditional = [file.campaign for file in campaigns if file.campaign.condition and not file.campaign.suspended]
    collectors = [ConditionCollector(campaign, tables) for campaign in conditional]
    admitted, refused = admit(collectors, tables.names, rings_max_bytes)
    report.problems += [f"{sources[each.campaign]}: {each.reason}" for each in refused]
    if collectors:
        report.facts["rings"] = {each.campaign.name: f"up to {each.ring_bytes:,} bytes" for each in admitted}
