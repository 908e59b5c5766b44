"""`headunit-agent decode`: decodes a recorded log into a table of samples (see `agent.commands.sample_tables`).

A frame that cannot be decoded does not end the command.  Such frames are counted by reason, bus and message.  If the
end of the log is missing, the table still has all whole frames, but the command fails.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.commands.decode_mapping import MappingSummary, decode_mapping
from agent.commands.log_blocks import whole_blocks
from agent.commands.log_plans import DatabaseReading, LogPlans
from agent.commands.long_form import LongForm
from agent.commands.sample_tables import writing
from agent.errors import Permanent
from agent.sources.logs import Truncated
from agent.system.arguments import add_json, add_log_timezone, add_strict, bus_and_file, file_and_encoding
from agent.system.command_line import printable
from can_dbc.decoder import Decoded, Refusal, Refused
from can_dbc.frames import FrameBlock
from can_dbc.plan import Match


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--log",
        type=Path,
        required=True,
        metavar="F",
        help="the recorded log: candump, ASC, BLF, TRC, MF4, ...; plain or compressed",
    )
    parser.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        required=True,
        metavar="[BUS=]F",
        help="a database (DBC, ARXML, KCD, SYM) for one bus, or for all buses without BUS=; may be repeated, and the "
        "first database that has a message is used; F#NAME is the bus NAME of a file that describes several",
    )
    parser.add_argument(
        "--match",
        choices=[match.value for match in Match],
        default=Match.EXACT.value,
        help="find messages by their whole identifier (exact, the default) or by their J1939 parameter group number",
    )
    parser.add_argument(
        "--encoding",
        type=file_and_encoding,
        action="append",
        default=[],
        metavar="[F=]CODE",
        help="the encoding of the database F (DBC, SYM), or of all of them without F=, such as gbk or cp1250; "
        "without this option the encoding is detected, or guessed with a note; may be repeated",
    )
    parser.add_argument(
        "--mapping",
        type=bus_and_file,
        action="append",
        metavar="[BUS=]F",
        help="give samples of VSS paths instead of signals, as this mapping says (KUKSA's dbc2vss in JSON, *.vspec or "
        "*.yaml) for one bus, or for all buses without BUS=; may be repeated; --out is then *.jsonl or *.csv",
    )
    parser.add_argument(
        "--catalog",
        type=Path,
        metavar="F",
        help="with --mapping: check paths, datatypes and units against this catalog of VSS (JSON of vss-tools)",
    )
    parser.add_argument(
        "--upgrade-catalog",
        type=Path,
        metavar="F",
        help="with --catalog: say what the catalog F of another version of VSS would change for the mapping",
    )
    add_strict(parser)
    parser.add_argument("--bus", action="append", metavar="BUS", help="decode only this bus; may be repeated")
    add_log_timezone(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="F",
        help="write the samples to this file, *.parquet or *.csv, and replace an existing file; without --out, only "
        "count frames and samples",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Decode the log, print the summary and return 0.

    Raises: Permanent if a file cannot be read or written.  Truncated, after the summary, if the log's end is missing.
    """
    databases: dict[str | None, list[Path]] = {}
    for bus, file in options.dbc:
        databases.setdefault(bus, []).append(file)
    reading = DatabaseReading(Match(options.match), dict(options.encoding), options.strict)
    log, out, buses, zone = options.log, options.out, options.bus, options.log_timezone
    summary: DecodeSummary | MappingSummary
    if options.catalog and not options.mapping:
        raise Permanent("--catalog checks a mapping; add --mapping FILE")
    if options.upgrade_catalog and not options.catalog:
        raise Permanent("--upgrade-catalog is compared with the present catalog; add --catalog FILE")
    if options.mapping:
        catalogs = [path for path in (options.catalog, options.upgrade_catalog) if path is not None]
        summary = decode_mapping(
            log, databases, options.mapping, out, reading=reading, buses=buses, zone=zone, catalogs=catalogs
        )
    else:
        summary = decode_log(log, databases, out, reading=reading, buses=buses, progress=True, zone=zone)
    print(json.dumps(summary.as_dict(), indent=2) if options.json else summary.text())
    if summary.truncated:
        raise Truncated(summary.truncated)
    return 0


@dataclass(slots=True)
class DecodeSummary:
    """Counts the frames of a log by their outcome, and the samples.

    `containers` counts the frames that hold PDUs.  Each PDU has an outcome of its own, and the container has none:

        frames - containers + pdus = decoded + all counts in `unknown` and `errors`

    `unknown[bus][identifier]` and `errors[reason][bus][message]` count frames.  Identifiers have the notation of
    candump: 3 hex digits for 11 bits, 8 for 29.  In `errors`, the identifier replaces the name of an unknown message.
    `unlisted[bus][Message.Multiplexer]` counts decoded frames whose multiplexer has a number that the database does not
    list, so that they lack the signals that it selects.
    `truncated` says that the end of the log is missing; it is empty for a whole log.
    """

    log: str
    match: str
    frames: int = 0
    containers: int = 0
    pdus: int = 0
    decoded: int = 0
    samples: int = 0
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    unlisted: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    truncated: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all fields in plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self) -> str:
        """Return the summary for a person."""
        lines = [
            f"{self.log}: {self.frames:,} frames, {self.decoded:,} decoded, {self.samples:,} samples "
            f"in {self.seconds:.1f} s"
        ]
        if self.containers:
            lines.append(
                f"{self.containers:,} frames are containers; each of the {self.pdus:,} PDUs in them counts as a frame"
            )
        for reason, buses in {"unknown": self.unknown, **self.errors}.items():
            for bus, frames in buses.items():
                named = ", ".join(f"{name} ({count:,})" for name, count in sorted(frames.items()))
                lines.append(f"{reason:<10}{bus}: {named}")
        for bus, frames in self.unlisted.items():
            named = ", ".join(f"{name} ({count:,})" for name, count in sorted(frames.items()))
            lines.append(
                f"unlisted  {bus}: {named}: decoded without the signals of the multiplexer, because the database does "
                "not list its number"
            )
        return "\n".join(map(printable, [*lines, *(f"note: {note}" for note in self.notes)]))

    def count(self, decoded: Decoded, block: FrameBlock) -> None:
        """Add the outcomes of the frames in one block."""
        self.frames += len(block)
        self.containers += decoded.containers
        self.pdus += decoded.pdus
        self.decoded += sum(len(columns.rows) for columns in decoded.columns)
        for refusal in decoded.refusals:
            self._refused(refusal, block.buses[refusal.bus])
        for unlisted in decoded.unlisted:
            frames = self.unlisted.setdefault(block.buses[unlisted.bus], {})
            name = f"{unlisted.message}.{unlisted.multiplexer}"
            frames[name] = frames.get(name, 0) + unlisted.frames

    def _refused(self, refusal: Refusal, bus: str) -> None:
        identifier = f"{refusal.can_id:0{8 if refusal.extended else 3}X}"
        reasons = self.unknown if refusal.kind is Refused.UNKNOWN else self.errors.setdefault(refusal.kind.value, {})
        frames = reasons.setdefault(bus, {})
        name = refusal.message or identifier
        frames[name] = frames.get(name, 0) + refusal.frames


def decode_log(
    log: Path,
    databases: Mapping[str | None, Sequence[Path]],
    out: Path | None = None,
    *,
    match: Match = Match.EXACT,
    reading: DatabaseReading | None = None,
    buses: Sequence[str] | None = None,
    progress: bool = False,
    zone: str = "",
) -> DecodeSummary:
    """Decode `log` with `databases` and write its samples to `out`; without `out`, only count frames and samples.

    The keys of `databases` are buses; None stands for every bus.  `reading` is used in place of `match`, if it is
    given.  `buses` selects buses of the log; None selects all.  `progress` shows a progress bar on a terminal.  `zone`
    is the time zone of dates in the log that name none.

    If the end of the log is missing, the table has all whole frames, and `truncated` of the summary says what is
    missing.

    Raises: Permanent if the log, a database or the output cannot be read or written.
    """
    started = time.monotonic()
    reading = DatabaseReading(match) if reading is None else reading
    summary = DecodeSummary(str(log), reading.match.value)
    plans = LogPlans(databases, reading, summary.notes)
    form = LongForm()
    with writing(out, form, wide_raw=plans.have_unsigned_64) as sink:
        for block in whole_blocks(log, buses, zone, summary, progress=progress):
            decoded = plans.decoder(block.buses).decode(block)
            summary.count(decoded, block)
            samples = form.arrange(decoded, block)
            summary.samples += len(samples)
            sink.write(samples)
        # This check comes before the table gets its name, so a wrong --dbc cannot replace a good table by an empty one.
        plans.refuse_silence(log, summary.decoded)
    plans.note_silent_buses()
    summary.seconds = round(time.monotonic() - started, 3)
    return summary
