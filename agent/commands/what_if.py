"""`headunit-agent replay --what-if`: says when campaigns would trigger on a recorded drive, and what they would send.

Nothing is connected or stored: the frames of the log pass through the code of the running agent for conditions.  The
report has the triggers of each condition-based campaign on a time line, and for every campaign the samples and bytes of
an hour (`headunit-agent estimate`), the memory of its rings, and the names that no database has.

`--records` writes the triggers and samples of one campaign, one JSON object a line, and `--picture` draws its signals
with a line at each trigger.  Start and expiry of a campaign count for triggers, records and picture, but not for the
figures of an hour.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.commands.estimate import Drive, Estimate, estimate, plans_of, read_campaigns
from agent.commands.mapping_files import read_mapping
from agent.errors import Permanent
from agent.formats.down.campaign import Campaign
from agent.system.arguments import bus_and_file
from agent.system.command_line import printable
from agent.system.words import counted
from agent.telemetry.collect.conditions.collections import Collection
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.records import records_in
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.plan import Match


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only `--what-if` uses."""
    group = parser.add_argument_group("what if", "try campaigns on the log, without a configuration or a broker")
    group.add_argument("--what-if", type=Path, action="append", metavar="F", help="a campaign to try; may be repeated")
    group.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        default=[],
        metavar="[BUS=]F",
        help="a database for one bus, or for all buses without BUS=; may be repeated",
    )
    group.add_argument(
        "--mapping",
        type=bus_and_file,
        action="append",
        default=[],
        metavar="[BUS=]F",
        help="a mapping to VSS paths (KUKSA's dbc2vss) for one bus, or for all buses without BUS=; may be repeated",
    )
    group.add_argument(
        "--match",
        choices=[match.value for match in Match],
        default=Match.EXACT.value,
        help="find messages by their whole identifier (exact, the default) or by their J1939 parameter group number",
    )
    group.add_argument(
        "--records", type=Path, metavar="F", help="write the triggers and samples of the campaign, a JSON object a line"
    )
    group.add_argument(
        "--picture", type=Path, metavar="F", help="draw the signals of the campaign with its triggers, as a PNG file"
    )
    group.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the report and return 0.  Raises: Permanent if a file cannot be used."""
    if not options.dbc:
        raise Permanent("--what-if needs the databases that decode the log; give them with --dbc")
    campaigns = read_campaigns(options.what_if)
    databases: dict[str | None, list[Path]] = {}
    for bus, file in options.dbc:
        databases.setdefault(bus, []).append(file)
    drive = Drive(options.log, options.log_timezone)
    mappings = [(bus, read_mapping(file)) for bus, file in options.mapping]
    plans = plans_of(databases, drive.buses, Match(options.match))
    tables = SignalTables(drive.buses, plans, mappings=mappings)
    estimates = estimate(campaigns, tables, drive)
    tried = [_Trial(campaign, tables) for _, campaign in campaigns if campaign.condition and not campaign.suspended]
    _run(tried, tables, drive)
    _write_files(options, tried, tables, drive)
    triggers = {trial.campaign.name: trial.triggers() for trial in tried}
    if options.json:
        result = {
            "log": str(drive.path),
            "seconds": round(drive.seconds, 3),
            "campaigns": [msgspec.to_builtins(each) | {"triggers": triggers.get(each.name, [])} for each in estimates],
        }
        print(json.dumps(result, indent=2))
    else:
        for each in estimates:
            for line in _lines(each, triggers.get(each.name)):
                print(printable(line))
    return 0


class _Trial:
    """Holds a condition-based campaign and what its triggers have sent."""

    def __init__(self, campaign: Campaign, tables: SignalTables) -> None:
        self.campaign = campaign
        self.collector = ConditionCollector(campaign, tables)
        self.collections: list[Collection] = []

    def triggers(self) -> list[dict[str, Any]]:
        """Return each trigger with the number of its samples, as plain values."""
        found = []
        for collection in self.collections:
            samples = sum(group.raw.size for group in collection.groups) + len(collection.edges)
            trigger, *_ = records_in([collection])
            found.append({key: value for key, value in trigger.items() if key != "k"} | {"samples": samples})
        return found


def _run(tried: Sequence[_Trial], tables: SignalTables, drive: Drive) -> None:
    decoders = [(trial, tables.decoder(trial.collector.wants)) for trial in tried]
    for block in drive.blocks() if tried else ():
        for trial, decoder in decoders:
            trial.collector.take_blocks(tables.blocks(decoder.decode(block).columns))
            trial.collections += trial.collector.take_closed()
    for trial in tried:
        trial.collector.close()
        trial.collections += trial.collector.take_closed()


def _write_files(options: argparse.Namespace, tried: Sequence[_Trial], tables: SignalTables, drive: Drive) -> None:
    if options.records is None and options.picture is None:
        return
    if len(tried) != 1:
        raise Permanent(
            f"--records and --picture are for one condition-based campaign that is not suspended, and --what-if names "
            f"{counted(len(tried), 'such campaign')}; give one"
        )
    (trial,) = tried
    try:
        if options.records is not None:
            with options.records.open("w") as file:
                file.writelines(json.dumps(record) + "\n" for record in records_in(trial.collections))
        if options.picture is not None:
            from agent.commands.what_if_picture import draw

            draw(trial.campaign, trial.collections, tables, drive, options.picture)
    except OSError as error:
        raise Permanent(f"{error.filename}: {error.strerror}; name another file") from error


def _lines(made: Estimate, triggers: Sequence[dict[str, Any]] | None) -> Iterator[str]:
    figures = f"{made.samples_per_hour or 0:,.0f} samples and {made.bytes_per_hour or 0:,.0f} bytes an hour"
    rings = f"; its rings take up to {made.ring_bytes:,} bytes of memory" if made.ring_bytes else ""
    yield f"{made.source}: campaign {made.name} collects {counted(made.signals, 'signal')}, {figures}{rings}"
    for name, near in made.unknown.items():
        remedy = f"did you mean {near!r}?" if near else "check its spelling"
        yield f"note: {made.source}: {name!r} matches no signal of the databases; {remedy}"
    if triggers is None:
        return
    yield f"{made.source}: {counted(len(triggers), 'trigger')} on this drive"
    for each in triggers:
        time = datetime.fromtimestamp(each["t_us"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        after_s = (each["until_us"] - each["t_us"]) / 1e6
        names = " ".join(each.get("names", ()))
        what = f"{each['samples']:>7,} samples, until {after_s:,.3f} s later"
        yield f"  {each['n']:>6}  {time} UTC  {what}  {names}".rstrip()
