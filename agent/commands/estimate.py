"""`headunit-agent estimate`: says what campaigns would send, by collecting a recorded log as the agent would.

The log passes through the code of the running agent: batcher, decoder, campaigns and encoder.  Only the disk and the
broker are left out.  Every batch counts with its seal.  Batches refer to a catalogue, as with the receiver of
this project (`ack = "receiver"`); the catalogue itself is sent once for each revision of a campaign, and is left out.

An hour is an hour of capturing: pauses of the log that are longer than the agent's own limit of silence do not count.
Start and expiry of a campaign do not count either, because a log is older than the campaign that it is tried with.

Without a log, the command only names the signals of the campaigns that no database has.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from tqdm import tqdm

from agent.commands.mapping_files import read_mapping
from agent.errors import Permanent
from agent.formats.down.campaign import Campaign, names_in, parse_campaigns
from agent.formats.up.catalogue import Catalogue, catalogue_of
from agent.formats.up.columns import Clock, ClockQuality, Window
from agent.formats.up.encode import encode_fragments
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES
from agent.runtime.limits import Limits
from agent.settings.sections import TelemetrySettings
from agent.sources.replay import read_blocks
from agent.system.arguments import add_json, add_log_timezone, bus_and_file
from agent.system.command_line import printable
from agent.system.words import counted
from agent.telemetry.collect.batcher import Batcher, Tick
from agent.telemetry.collect.buffer import Buffer, frames_of
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.conditions.admission import refuse_undefined
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.window import window_of
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.errors import DatabaseError
from can_dbc.frames import FrameBlock, concatenate
from can_dbc.plan import BusPlan, Match

_EVERY_BUS: Final = "*"
"""The name of the bus for databases of all buses, while there is no log that names the buses."""
_FOREVER_NS: Final = 2**63 - 1
_SHORT_S: Final = 60.0
"""A note is added for a shorter log, because a few windows say little about an hour."""


class Estimate(msgspec.Struct, frozen=True):
    """Says what one campaign would send.

    `signals` is the number of signals that it collects.  `unknown` are the names in it that no database has, each with
    the nearest known name or None.  `ring_bytes` is the most memory that its rings take; a time-based campaign has no
    rings and no triggers.  Without a log, the figures are None.
    """

    source: str
    name: str
    revision: str
    signals: int
    unknown: dict[str, str | None]
    samples_per_hour: float | None = None
    bytes_per_hour: float | None = None
    ring_bytes: int = 0
    triggers_per_hour: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--campaign", type=Path, action="append", required=True, metavar="F", help="a campaign; may be repeated"
    )
    parser.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        required=True,
        metavar="[BUS=]F",
        help="a database for one bus, or for all buses without BUS=; may be repeated",
    )
    parser.add_argument(
        "--log", type=Path, metavar="F", help="a recorded drive: candump, ASC, BLF, TRC, MF4, ...; plain or compressed"
    )
    parser.add_argument(
        "--match",
        choices=[match.value for match in Match],
        default=Match.EXACT.value,
        help="find messages by their whole identifier (exact, the default) or by their J1939 parameter group number",
    )
    parser.add_argument(
        "--mapping",
        type=bus_and_file,
        action="append",
        default=[],
        metavar="[BUS=]F",
        help="a mapping (KUKSA's dbc2vss), so that campaigns may name VSS paths; may be repeated",
    )
    add_log_timezone(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the estimates and return 0.  Raises: Permanent if a file cannot be used."""
    campaigns = read_campaigns(options.campaign)
    databases: dict[str | None, list[Path]] = {}
    for bus, file in options.dbc:
        databases.setdefault(bus, []).append(file)
    drive = None if options.log is None else Drive(options.log, options.log_timezone)
    buses = drive.buses if drive is not None else tuple(bus or _EVERY_BUS for bus in databases)
    mappings = [(bus, read_mapping(file)) for bus, file in options.mapping]
    tables = SignalTables(buses, plans_of(databases, buses, Match(options.match)), mappings=mappings)
    estimates = estimate(campaigns, tables, drive)
    result = {
        "log": None if drive is None else str(drive.path),
        "seconds": None if drive is None else round(drive.seconds, 3),
        "campaigns": [msgspec.to_builtins(each) for each in estimates],
    }
    result["notes"] = tables.mapping_notes
    notes = "".join(f"\nnote: {printable(note)}" for note in tables.mapping_notes)
    print(json.dumps(result, indent=2) if options.json else _text(estimates, drive) + notes)
    return 0


def read_campaigns(files: Iterable[Path]) -> tuple[tuple[str, Campaign], ...]:
    """Return each file with its campaign.  Raises: Permanent naming the file that is wrong."""
    return parse_campaigns((str(file), _read(file)) for file in files)


def estimate(
    campaigns: Sequence[tuple[str, Campaign]], tables: SignalTables, drive: "Drive | None"
) -> tuple[Estimate, ...]:
    """Return the estimate of each (source, campaign) pair, with figures if there is a recorded drive."""
    always = [
        (source, msgspec.structs.replace(campaign, start_ns=0, expiry_ns=_FOREVER_NS, suspended=False))
        for source, campaign in campaigns
    ]
    timed = {each.name: CampaignCollector(each, tables) for _, each in always if each.condition is None}
    conditions = {each.name: _condition(each, tables, source) for source, each in always if each.condition is not None}
    sent = {name: _Sent(collector) for name, collector in timed.items()}
    sent |= {name: _Sent(collector) for name, collector in conditions.items()}
    if drive is not None:
        _collect(drive, tables, timed, conditions, sent)
    return tuple(_estimate(source, sent[campaign.name], tables, drive) for source, campaign in always)


def _condition(campaign: Campaign, tables: SignalTables, source: str) -> ConditionCollector:
    refuse_undefined(campaign, tables.names, source)
    return ConditionCollector(campaign, tables)


def _estimate(source: str, sent: "_Sent", tables: SignalTables, drive: "Drive | None") -> Estimate:
    collector, names = sent.collector, tables.names
    campaign = collector.campaign
    unknown = {name: names.suggest(name) for name in names_in(campaign) if not names.knows(name)}
    made = Estimate(source, campaign.name, campaign.revision, len(collector.described), unknown)
    if isinstance(collector, ConditionCollector):
        made = msgspec.structs.replace(made, ring_bytes=collector.ring_bytes)
    if drive is None:
        return made
    hours = drive.seconds / 3_600
    return msgspec.structs.replace(
        made,
        samples_per_hour=sent.samples / hours,
        bytes_per_hour=sent.size_bytes / hours,
        triggers_per_hour=None if campaign.condition is None else sent.triggers / hours,
    )


class Drive:
    """A recorded log.  It is read once to learn its buses and its length, and again when its frames are collected."""

    def __init__(self, path: Path, zone: str) -> None:
        self.path, self._zone = path, zone
        self.buses: tuple[str, ...] = ()
        silence_ns = round(Limits().silence_s * 1e9)
        passed_ns, last_ns = 0, None
        for block in self._blocks("reading"):
            self.buses = block.buses
            t_ns = block.t_ns if last_ns is None else np.concatenate([[last_ns], block.t_ns])
            steps = np.diff(t_ns)
            passed_ns += int(steps[(steps > 0) & (steps <= silence_ns)].sum())
            last_ns = block.t_ns[-1]
        self.seconds = passed_ns / 1e9
        if not self.seconds:
            raise Permanent(f"{path}: the log covers no time; give a log of a drive")

    def blocks(self) -> Iterator[FrameBlock]:
        """Yield the frames in the order of the log."""
        return self._blocks("collecting", self.buses)

    def _blocks(self, what: str, buses: Sequence[str] | None = None) -> Iterator[FrameBlock]:
        # `disable=None` makes tqdm draw on a terminal only.
        bar = tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False)
        with bar:

            def at(position_bytes: int, size_bytes: int) -> None:
                bar.total = size_bytes
                bar.update(position_bytes - bar.n)

            yield from read_blocks(self.path, channels=buses, progress=at, zone=self._zone)


class _Sent:
    """Counts what one campaign would send."""

    def __init__(self, collector: CampaignCollector | ConditionCollector) -> None:
        campaign = collector.campaign
        self.collector = collector
        self.triggers = 0
        self.samples = 0
        self.size_bytes = 0
        self._catalogue: Catalogue | None = None
        if collector.described:
            self._catalogue = catalogue_of(campaign.name, campaign.revision, collector.described)

    def count(self, window: Window) -> None:
        if not window.samples and not window.events:
            return
        self.triggers += len(window.events)
        self.samples += window.samples
        room = Limits().batch_max_bytes - SEAL_OVERHEAD_BYTES
        for _, body in encode_fragments(window, room, self._catalogue):
            self.size_bytes += len(body) + SEAL_OVERHEAD_BYTES


def _collect(
    drive: Drive,
    tables: SignalTables,
    collectors: Mapping[str, CampaignCollector],
    conditions: Mapping[str, ConditionCollector],
    sent: Mapping[str, _Sent],
) -> None:
    limits = Limits()
    batcher = Batcher(
        {name: collector.campaign.period_ms * 1_000_000 for name, collector in collectors.items()},
        increment_ns=round(TelemetrySettings().increment_s * 1e9),
        silence_ns=round(limits.silence_s * 1e9),
        max_frames=limits.increment_max_frames,
        max_window_samples=limits.window_max_samples,
    )
    decoder = tables.decoder(all_wants(collector.wants for collector in collectors.values()))
    buffer = Buffer()

    def carry_out(tick: Tick) -> None:
        frames = frames_of(buffer.take(tick.frames))
        if frames:
            blocks = tables.blocks(decoder.decode(concatenate(frames)).columns)
            for collector in collectors.values():
                collector.take_blocks(blocks)
        full = [batcher.collected(name, collector.samples) for name, collector in collectors.items()]
        for span in (*tick.closing, *(each for each in full if each is not None)):
            start_us, end_us = span.start_ns // 1_000, span.end_ns // 1_000
            clock = Clock(ClockQuality.RECORDED, "", end_us, 0)
            sent[span.campaign].count(collectors[span.campaign].close(start_us=start_us, end_us=end_us, clock=clock))

    early = tables.decoder(all_wants(collector.wants for collector in conditions.values()))

    def count_closed() -> None:
        for name, collector in conditions.items():
            for closed in collector.take_closed():
                # A vehicle takes in frames every 100 ms, so most triggers have a batch of their own.
                sent[name].count(window_of(collector.campaign, [closed], Clock(ClockQuality.RECORDED, "", 0, 0)))

    for block in drive.blocks():
        if conditions:
            blocks = tables.blocks(early.decode(block).columns)
            for collector in conditions.values():
                collector.take_blocks(blocks)
            count_closed()
        buffer.append(block)
        for tick in batcher.add_times(block.t_ns, 0):
            carry_out(tick)
    for tick in batcher.flush():
        carry_out(tick)
    for collector in conditions.values():
        collector.close()
    count_closed()


def plans_of(databases: Mapping[str | None, Sequence[Path]], buses: Sequence[str], match: Match) -> dict[str, BusPlan]:
    """Compile the databases of each bus.  Raises: Permanent naming the database or the bus at fault."""
    try:
        loaded = {path: load(path) for paths in databases.values() for path in paths}
        plans = {}
        for bus in buses:
            # Databases of one bus come before those of all buses, because the first one that has a message is used.
            paths = [*databases.get(bus, ()), *databases.get(None, ())]
            if paths:
                plans[bus] = compile_plan([loaded[path] for path in paths], match)
    except DatabaseError as error:
        raise Permanent(str(error)) from error
    strange = [bus for bus in databases if bus is not None and bus not in buses]
    if strange:
        raise Permanent(
            f"--dbc {strange[0]}=...: the log has no frame on bus {strange[0]}; its buses are {', '.join(buses)}"
        )
    return plans


def _text(estimates: Sequence[Estimate], drive: Drive | None) -> str:
    lines = []
    for each in estimates:
        figures = ""
        if each.bytes_per_hour is not None:
            figures = f", {each.samples_per_hour:,.0f} samples and {each.bytes_per_hour:,.0f} bytes an hour"
        if each.triggers_per_hour is not None:
            figures += f" from {each.triggers_per_hour:,.0f} triggers"
        if each.ring_bytes:
            figures += f"; its rings take up to {each.ring_bytes:,} bytes of memory"
        lines.append(f"{each.source}: campaign {each.name} collects {counted(each.signals, 'signal')}{figures}")
        lines += [
            f"note: {each.source}: {name!r} matches no signal of the databases"
            + (f"; did you mean {near!r}?" if near else "; check its spelling")
            for name, near in each.unknown.items()
        ]
    if drive is not None:
        short = "; a longer log gives a better estimate" if drive.seconds < _SHORT_S else ""
        lines.append(f"{drive.path}: {drive.seconds:,.1f} s of capturing{short}")
    return "\n".join(map(printable, lines))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Permanent(f"{path}: {error.strerror}; check the path and its permissions") from error
