"""`headunit-agent decode`: a recorded log through its databases into a table of samples, one row each, in bus order.

Columns: `t` (Parquet: timestamp in microseconds, UTC; CSV: seconds with 6 decimals), `bus`, `message`, `signal`, `raw`
(Parquet: int64; decimal(20, 0) where a database has an unsigned signal of 64 bits, whose values int64 cannot hold),
`value` (float64: raw * scale + offset), `text` (of the value table, else null), `unit`, `source_address` (of J1939,
else null).  `raw` is null for IEEE floats, whose number is in `value`.  A frame that does not decode is counted by
reason and name, never fatal.  The output appears whole under its name, or not at all.
"""

import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from agent.commands.long_form import LongForm, Samples
from agent.errors import Permanent
from agent.sources.replay import read_blocks
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.decoder import Decoded, Decoder, Refusal, Refused
from can_dbc.errors import DatabaseError
from can_dbc.frames import FrameBlock
from can_dbc.plan import WORD_BITS, BusPlan, Match

COLUMNS: Final = ("t", "bus", "message", "signal", "raw", "value", "text", "unit", "source_address")
_BLOCK_FRAMES: Final = 32_768  # some hundred thousand samples a row group


@dataclass(slots=True)
class DecodeSummary:
    """What became of a log: `frames` - `containers` + `pdus` = `decoded` + those in `unknown` and `errors`.

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
    with _writing(out, form, wide_raw=plans.have_unsigned_64) as sink, _Bar(log, shown=progress) as bar:
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


class _Sink(Protocol):
    """Where samples go; closed when all are written."""

    def write(self, samples: Samples) -> None: ...

    def close(self) -> None: ...


class _NoSink:
    """For counting only."""

    def write(self, samples: Samples) -> None:
        pass

    def close(self) -> None:
        pass


class _ParquetSink:
    """One row group a block; names and texts are dictionary columns.  `wide_raw`: `raw` is a decimal."""

    def __init__(self, path: Path, form: LongForm, *, wide_raw: bool) -> None:
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as error:
            raise Permanent("Parquet needs pyarrow; install headunit-agent[fleet], or write .csv") from error
        self._arrow, self._form = pyarrow, form
        names = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        raw = pyarrow.decimal128(20, 0) if wide_raw else pyarrow.int64()
        types = {"t": pyarrow.timestamp("us", tz="UTC"), "raw": raw, "value": pyarrow.float64()}
        types["source_address"] = pyarrow.int16()
        self._schema = pyarrow.schema([(column, types.get(column, names)) for column in COLUMNS])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, samples: Samples) -> None:
        if not len(samples):
            return
        form = self._form
        arrays = [
            self._arrow.array(samples.t_us, self._schema.field("t").type),
            self._named(samples.bus, form.buses),
            self._named(samples.message, form.messages.strings),
            self._named(samples.signal, form.signals.strings),
            self._raw(samples),
            self._arrow.array(samples.value),
            self._named(samples.text, form.texts.strings),
            self._named(samples.unit, form.units.strings),
            self._arrow.array(samples.source_address, mask=samples.source_address < 0),
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def _raw(self, samples: Samples) -> Any:
        raw = self._arrow.array(samples.raw, mask=samples.is_float)
        kind = self._schema.field("raw").type
        if not samples.beyond_int64.any():
            return raw.cast(kind)
        unsigned = self._arrow.array(samples.raw.view(np.uint64), mask=samples.is_float)
        return self._arrow.compute.if_else(self._arrow.array(samples.beyond_int64), unsigned.cast(kind), raw.cast(kind))

    def _named(self, places: NDArray[np.int32], strings: Sequence[str]) -> Any:
        indices = self._arrow.array(places, mask=places < 0)
        return self._arrow.DictionaryArray.from_arrays(indices, self._arrow.array(strings, self._arrow.string()))

    def close(self) -> None:
        self._writer.close()


class _CsvSink:
    """Comma-separated UTF-8 with a header; null is an empty field, floats in their shortest exact form."""

    def __init__(self, path: Path, form: LongForm, *, wide_raw: bool) -> None:  # CSV holds integers of any size
        self._form = form
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def write(self, samples: Samples) -> None:
        form = self._form
        raw: list[int | None] = samples.raw.tolist()
        for place in np.flatnonzero(samples.is_float).tolist():
            raw[place] = None
        for place in np.flatnonzero(samples.beyond_int64).tolist():
            raw[place] = int(samples.raw[place]) + (1 << WORD_BITS)
        addresses: list[int | None] = samples.source_address.tolist()
        for place in np.flatnonzero(samples.source_address < 0).tolist():
            addresses[place] = None
        self._writer.writerows(
            zip(
                [f"{t_us / 1e6:.6f}" for t_us in samples.t_us.tolist()],
                _strings(samples.bus, form.buses),
                _strings(samples.message, form.messages.strings),
                _strings(samples.signal, form.signals.strings),
                raw,
                samples.value.tolist(),
                _strings(samples.text, form.texts.strings),
                _strings(samples.unit, form.units.strings),
                addresses,
                strict=True,
            )
        )

    def close(self) -> None:
        self._file.close()


def _strings(places: NDArray[np.int32], strings: Sequence[str]) -> list[str | None]:
    with_none = [*strings, None]  # place -1
    return [with_none[place] for place in places.tolist()]


_SINKS: Final[Mapping[str, type[_ParquetSink] | type[_CsvSink]]] = {".parquet": _ParquetSink, ".csv": _CsvSink}


def _opened(out: Path, temporary: Path, form: LongForm, *, wide_raw: bool) -> _Sink:
    try:
        return _SINKS[out.suffix](temporary, form, wide_raw=wide_raw)
    except Permanent as error:
        raise Permanent(f"{out}: {error}") from error


@contextmanager
def _writing(out: Path | None, form: LongForm, *, wide_raw: bool) -> Iterator[_Sink]:
    """A sink whose file takes the name `out` when all went well, and is removed otherwise."""
    if out is None:
        yield _NoSink()
        return
    if out.suffix not in _SINKS:
        raise Permanent(f"{out}: unknown output format; name it *{' or *'.join(_SINKS)}")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        sink = _opened(out, temporary, form, wide_raw=wide_raw)
        try:
            yield sink
        finally:
            sink.close()
        temporary.replace(out)
    except OSError as error:
        raise Permanent(
            f"{out}: cannot be written: {error.strerror or error}; make room or choose another place"
        ) from error
    finally:
        with suppress(OSError):  # told above
            temporary.unlink(missing_ok=True)
