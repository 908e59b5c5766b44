"""Write the tables of `headunit-agent decode`: Parquet or CSV, one row for each sample, in the order of the log.

- `t` is the time: in Parquet a timestamp in microseconds (UTC), in CSV seconds of Unix time with 6 decimals.
- `bus`, `message` and `signal` are names.
- `raw` is the raw integer, or null for an IEEE float.  In Parquet its type is int64, or decimal(20, 0) if a database
  has an unsigned signal of 64 bits, because int64 cannot hold all its values.
- `value` is the physical value, raw * scale + offset, as float64.
- `text` is the text in the value table, or null.  `unit` is null if the signal has none.
- `source_address` is the sender of a J1939 message, or null.

The file appears under its name only when it is complete.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.commands.long_form import LongForm, Samples
from agent.commands.replaced_file import replaced_file
from agent.errors import Permanent
from can_dbc.values import WORD_BITS

COLUMNS: Final = ("t", "bus", "message", "signal", "raw", "value", "text", "unit", "source_address")


class _Sink(Protocol):
    """A table that takes blocks of samples, and is closed after the last block."""

    def write(self, samples: Samples) -> None: ...

    def close(self) -> None: ...


class _NoSink:
    """Discards all samples, for a command that only counts."""

    def write(self, samples: Samples) -> None:
        pass

    def close(self) -> None:
        pass


class _ParquetSink:
    """Writes a Parquet file with one row group for each block, and dictionary columns for names and texts."""

    def __init__(self, path: Path, form: LongForm, *, wide_raw: bool) -> None:
        # A vehicle does not need pyarrow, so pyarrow may be missing.
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as error:
            raise Permanent(
                "Parquet needs pyarrow. Write .csv, or install pyarrow in a checkout with: pip install '.[fleet]'"
            ) from error
        self._arrow, self._form = pyarrow, form
        names = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        # A decimal of 20 digits holds every integer of 64 bits, signed or not.
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
        # `samples.raw` has the bits of these values, which int64 reads as negative.
        unsigned = self._arrow.array(samples.raw.view(np.uint64), mask=samples.is_float)
        return self._arrow.compute.if_else(self._arrow.array(samples.beyond_int64), unsigned.cast(kind), raw.cast(kind))

    def _named(self, places: NDArray[np.int32], strings: Sequence[str]) -> Any:
        indices = self._arrow.array(places, mask=places < 0)
        return self._arrow.DictionaryArray.from_arrays(indices, self._arrow.array(strings, self._arrow.string()))

    def close(self) -> None:
        self._writer.close()


class _CsvSink:
    """Writes a CSV file in UTF-8 with a header.  Null is an empty field, and floats have their shortest exact form."""

    def __init__(self, path: Path, form: LongForm, *, wide_raw: bool) -> None:
        # CSV holds integers of any size, so `wide_raw` makes no difference.
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
    # Index -1 selects the last element, which stands for null.
    with_none = [*strings, None]
    return [with_none[place] for place in places.tolist()]


_SINKS: Final[Mapping[str, type[_ParquetSink] | type[_CsvSink]]] = {".parquet": _ParquetSink, ".csv": _CsvSink}


def _opened(out: Path, temporary: Path, form: LongForm, *, wide_raw: bool) -> _Sink:
    try:
        return _SINKS[out.suffix](temporary, form, wide_raw=wide_raw)
    except Permanent as error:
        raise Permanent(f"{out}: {error}") from error


@contextmanager
def writing(out: Path | None, form: LongForm, *, wide_raw: bool) -> Iterator[_Sink]:
    """Yield a sink that writes the file `out`; without `out`, the sink discards all samples.

    If the `with` block fails, an older file `out` stays.

    Raises: Permanent if the format is unknown or the file cannot be written.
    """
    if out is None:
        yield _NoSink()
        return
    if out.suffix not in _SINKS:
        raise Permanent(f"{out}: the format of the output is unknown; name the file *{' or *'.join(_SINKS)}")
    with replaced_file(out) as temporary:
        sink = _opened(out, temporary, form, wide_raw=wide_raw)
        try:
            yield sink
        finally:
            sink.close()
