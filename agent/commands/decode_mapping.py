"""`headunit-agent decode --mapping`: decodes a recorded log into samples of VSS paths.

With `--out F.jsonl`, each line is an object with `t_us` (microseconds since the Unix epoch), `path` and `value`.  With
`--out F.csv`, the columns are `t` (seconds), `path` and `value`.
"""

import csv
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from agent.commands.log_blocks import buses_of, whole_blocks
from agent.commands.log_plans import DatabaseReading, LogPlans
from agent.commands.mapping_files import read_catalog, read_mapping
from agent.commands.replaced_file import replaced_file
from agent.errors import Permanent
from agent.formats.down.mapping.catalog import Catalog
from agent.formats.down.mapping.catalog_check import check_against, upgrade_report
from agent.formats.down.mapping.entries import VssMapping
from agent.system.command_line import printable
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from agent.telemetry.collect.vss import VssSample, VssSampler
from can_dbc.decoder import Decoded, Refused
from can_dbc.frames import FrameBlock


@dataclass(slots=True)
class MappingSummary:
    """Counts the frames of a log and the samples of each VSS path.

    `decoded` counts the frames of messages that the mapping needs, and `refused` those that cannot be decoded although
    a database has them, by reason, bus and message.  `truncated` says that the end of the log is missing; it is empty
    for a whole log.
    """

    log: str
    frames: int = 0
    decoded: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    truncated: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all fields in plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def count(self, decoded: Decoded, block: FrameBlock) -> None:
        """Add the outcomes of the frames in one block."""
        self.frames += len(block)
        self.decoded += sum(len(columns.rows) for columns in decoded.columns)
        for refusal in decoded.refusals:
            if refusal.kind is not Refused.UNKNOWN:
                where = f"{block.buses[refusal.bus]}: {refusal.message or f'{refusal.can_id:X}'}"
                self.refused[f"{refusal.kind.value}: {where}"] += refusal.frames

    def text(self) -> str:
        """Return the summary for a person."""
        paths = len(self.samples)
        lines = [
            f"{self.log}: {self.frames:,} frames, {self.samples.total():,} samples of {paths:,} VSS paths "
            f"in {self.seconds:.1f} s",
            *(f"  {count:>9,}  {path}" for path, count in sorted(self.samples.items())),
            *(f"not decoded: {what}: {count:,} frames" for what, count in sorted(self.refused.items())),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(map(printable, lines))


def decode_mapping(
    log: Path,
    databases: Mapping[str | None, Sequence[Path]],
    mappings: Sequence[tuple[str | None, Path]],
    out: Path | None,
    *,
    reading: DatabaseReading,
    buses: Sequence[str] | None = None,
    zone: str = "",
    catalogs: Sequence[Path] = (),
) -> MappingSummary:
    """Decode `log`, and write the samples that `mappings` give to `out`; without `out`, only count them.

    Each mapping is for one bus, or for all buses if the bus is None.  `catalogs` has the catalog of VSS that the
    mappings are checked against, and perhaps the one of another version, to report what an upgrade changes.  The other
    arguments are those of `agent.commands.decode.decode_log`.

    Raises: Permanent if the log, a database, a mapping or the output cannot be read or written.
    """
    started_s = time.monotonic()
    checks = [read_catalog(path) for path in catalogs]
    summary = MappingSummary(str(log))
    read = [(bus, read_mapping(path)) for bus, path in mappings]
    names = tuple(buses or buses_of(log, zone))
    plans = LogPlans(databases, reading, summary.notes)
    tables = SignalTables(names, plans.of(names))
    samplers = [VssSampler(mapping, tables, bus) for bus, mapping in read]
    for (_, mapping), sampler in zip(read, samplers, strict=True):
        summary.notes += [*mapping.notes, *sampler.notes, *_catalog_notes(mapping, sampler, checks)]
    for bus, _ in mappings:
        if bus is not None and bus not in names:
            raise Permanent(f"--mapping {bus}=: the log has no frame on bus {bus}; its buses are {', '.join(names)}")
    decoder = tables.decoder(all_wants(sampler.wants for sampler in samplers))
    with _writing(out) as write:
        for block in whole_blocks(log, names, zone, summary, progress=True):
            decoded = decoder.decode(block)
            summary.count(decoded, block)
            blocks = tables.blocks(decoded.columns)
            for sampler in samplers:
                for sample in sampler.take_blocks(blocks):
                    summary.samples[sample.path] += 1
                    write(sample)
        plans.refuse_silence(log, summary.decoded)
    plans.note_silent_buses()
    summary.seconds = round(time.monotonic() - started_s, 3)
    return summary


def _catalog_notes(mapping: VssMapping, sampler: VssSampler, catalogs: Sequence[Catalog]) -> list[str]:
    """Return what contradicts the first catalog, and what the second one would change."""
    if not catalogs:
        return []
    present, *newer = catalogs
    upgrades = [f"upgrade: {change}" for other in newer for change in upgrade_report(mapping, present, other)]
    return [*check_against(mapping, present, sampler.units), *upgrades]


class _Write(Protocol):
    def __call__(self, sample: VssSample, /) -> object: ...


@contextmanager
def _writing(out: Path | None) -> Iterator[_Write]:
    if out is None:
        yield lambda sample: None
        return
    if out.suffix not in (".jsonl", ".csv"):
        raise Permanent(f"{out}: the format of the output is unknown; with --mapping, name the file *.jsonl or *.csv")
    with replaced_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield _json_lines(file) if out.suffix == ".jsonl" else _csv(file)


def _json_lines(file: TextIO) -> _Write:
    return lambda sample: file.write(json.dumps(sample._asdict(), ensure_ascii=False) + "\n")


def _csv(file: TextIO) -> _Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("t", "path", "value"))
    return lambda sample: writer.writerow((f"{sample.t_us / 1e6:.6f}", sample.path, sample.value))
