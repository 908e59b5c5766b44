"""`headunit-agent decode`: a recorded log through its databases into a table of samples, one row each, in bus order.

Columns: `t` (Parquet: timestamp in microseconds, UTC; CSV: seconds with 6 decimals), `bus`, `message`, `signal`, `raw`
(Parquet: int64; decimal(20, 0) where a database has an unsigned signal of 64 bits, whose values int64 cannot hold),
`value` (float64: raw * scale + offset), `text` (of the value table, else null), `unit`, `source_address` (of J1939,
else null).  `raw` is null for IEEE floats, whose number is in `value`.  A frame that does not decode is counted by
reason and name, never fatal.  The output appears whole under its name, or not at all.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tqdm import tqdm

from agent.commands.long_form import LongForm
from agent.commands.table_files import writing
from agent.errors import Permanent
from agent.sources.replay import read_blocks
from can_dbc.database import load
from can_dbc.decoder import Decoded, Decoder, Refusal, Refused
from can_dbc.errors import DatabaseError
from can_dbc.frames import FrameBlock
from can_dbc.plan import BusPlan, Match, compile_plan
from can_dbc.values import WORD_BITS

_BLOCK_FRAMES: Final = 32_768  # some hundred thousand samples a row group


@dataclass(slots=True)
class DecodeSummary:
    """Counts what became of the frames of a log.

    `frames` - `containers` + `pdus` = `decoded` + those in `unknown` and `errors`.

    `containers`: frames that were taken apart; the `pdus` that they held count like frames.
    `unknown[bus][identifier]` and `errors[reason][bus][message]` count frames; identifiers as candump writes them (3
    digits for 11 bits, 8 for 29), which also stand for the message where there is none.
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
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """All fields, in plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def count(self, decoded: Decoded, block: FrameBlock) -> None:
        """Add the frames of one block."""
        self.frames += len(block)
        self.containers += decoded.containers
        self.pdus += decoded.pdus
        self.decoded += sum(len(columns.rows) for columns in decoded.columns)
        for refusal in decoded.refusals:
            self._refused(refusal, block.buses[refusal.bus])

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
    buses: Sequence[str] | None = None,
    progress: bool = False,
) -> DecodeSummary:
    """Decode `log` by `databases` (by bus; None: for every bus) into `out`, `*.parquet` or `*.csv`, or only count.

    `buses` restricts to these channels.  `progress` shows a bar on a terminal.  Raises Permanent: a log, database or
    output that cannot be read or written.
    """
    started = time.monotonic()
    summary = DecodeSummary(str(log), match.value)
    plans = _Plans(databases, match, summary.notes)
    form = LongForm()
    with writing(out, form, wide_raw=plans.have_unsigned_64) as sink, _Bar(log, shown=progress) as bar:
        for block in read_blocks(log, channels=buses, block_frames=_BLOCK_FRAMES, progress=bar.at):
            decoded = plans.decoder(block.buses).decode(block)
            summary.count(decoded, block)
            samples = form.arrange(decoded, block)
            summary.samples += len(samples)
            sink.write(samples)
        plans.refuse_silence(log, summary.decoded)
    plans.note_silent_buses()
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


class _Plans:
    """The decoder for the buses of a log, made anew when another bus appears."""

    def __init__(self, databases: Mapping[str | None, Sequence[Path]], match: Match, notes: list[str]) -> None:
        self._databases, self._match, self._notes = databases, match, notes
        try:
            self._loaded = {path: load(path) for paths in databases.values() for path in paths}
        except DatabaseError as error:
            raise Permanent(str(error)) from error
        self.have_unsigned_64 = any(
            signal.length == WORD_BITS and not signal.is_signed and not signal.is_float
            for database in self._loaded.values()
            for message in database.messages
            for signals in (message.signals, *(inner.signals for inner in message.contained_messages))
            for signal in signals
        )
        self._buses: tuple[str, ...] = ()
        self._plans: dict[int, BusPlan] = {}
        self._decoder = Decoder({})

    def decoder(self, buses: tuple[str, ...]) -> Decoder:
        if buses != self._buses:
            for number in range(len(self._buses), len(buses)):
                self._plans[number] = self._compiled(buses[number])
            self._buses, self._decoder = buses, Decoder(self._plans)
        return self._decoder

    def _compiled(self, bus: str) -> BusPlan:
        paths = [*self._databases.get(bus, ()), *self._databases.get(None, ())]
        try:
            plan = compile_plan([self._loaded[path] for path in paths], self._match)
        except DatabaseError as error:
            raise Permanent(f"{', '.join(map(str, paths))}: {error}") from error
        self._notes.extend(f"{bus}: {note}" for note in plan.notes)
        return plan

    def refuse_silence(self, log: Path, decoded: int) -> None:
        """Raises Permanent where nothing decoded and the databases are of buses that the log does not have."""
        if decoded or not self._databases or None in self._databases or set(self._databases) & set(self._buses):
            return
        named, found = ", ".join(map(str, self._databases)), ", ".join(self._buses)
        raise Permanent(f"{log}: no frame of {named}; its buses are {found}: name one of these with --dbc BUS=FILE")

    def note_silent_buses(self) -> None:
        """Name the buses that have a database but no frame: often a slip in the bus's name."""
        silent = [bus for bus in self._databases if bus is not None and bus not in self._buses]
        self._notes.extend(f"{bus}: has a database, but the log has no frame of it" for bus in silent)


class _Bar:
    """Progress by bytes of the log, drawn on a terminal only."""

    def __init__(self, log: Path, *, shown: bool) -> None:
        self._bar = tqdm(
            desc=log.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None if shown else True, leave=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def at(self, position_bytes: int, size_bytes: int) -> None:
        self._bar.total = size_bytes
        self._bar.update(position_bytes - self._bar.n)
