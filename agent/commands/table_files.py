"""Tables of samples as files: Parquet or CSV, whole under their name or not at all.

The columns are those that `headunit-agent decode` promises (agent/commands/decode.py).
"""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.commands.long_form import LongForm, Samples
from agent.errors import Permanent
from can_dbc.values import WORD_BITS

COLUMNS: Final = ("t", "bus", "message", "signal", "raw", "value", "text", "unit", "source_address")


class Sink(Protocol):
    """Takes the samples of a table."""

    def write(self, samples: Samples) -> None:
        """Write the next rows."""

    def close(self) -> None:
        """Finish the file: all rows are written."""


class _NoSink:
    """Takes samples that are only counted."""

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


def _opened(out: Path, temporary: Path, form: LongForm, *, wide_raw: bool) -> Sink:
    try:
        return _SINKS[out.suffix](temporary, form, wide_raw=wide_raw)
    except Permanent as error:
        raise Permanent(f"{out}: {error}") from error


@contextmanager
def writing(out: Path | None, form: LongForm, *, wide_raw: bool) -> Iterator[Sink]:
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
        with suppress(OSError):  # the first error was reported above
            temporary.unlink(missing_ok=True)
