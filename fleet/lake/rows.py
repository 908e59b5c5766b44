"""Turns opened batches into rows of the lake.  Pure.

The rows are Arrow tables.  They are built from whole columns, without a loop over samples.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agent.formats.up.columns import ColumnGroup, EventValue, SignalInfo, physical_values
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.schema import BATCHES, DAY_US, EVENTS, SAMPLES, TIME

BatchRows = Mapping[str, pa.RecordBatch]
"""The rows of one batch in each table of the lake, by the name of the table."""


def rows_of(batch: OpenedBatch) -> BatchRows:
    """Return the rows of `batch` in every table of the lake."""
    return {"samples": _samples_of(batch), "events": _events_of(batch), "batches": _batch_of(batch)}


def day_of(rows: BatchRows) -> date:
    """Return the day whose partition of the lake gets the batch."""
    day = rows["batches"]["date"][0].as_py()
    assert isinstance(day, date)
    return day


def table_of(name: str, batches: Sequence[BatchRows]) -> pa.Table:
    """Return the rows of `batches` in the table `name`, batch after batch.

    Text columns of samples are dictionary-encoded, so each text takes 4 bytes a row.
    """
    return pa.Table.from_batches([rows[name] for rows in batches if rows[name].num_rows], schema=_ARROW_SCHEMAS[name])


def _events_of(batch: OpenedBatch) -> pa.RecordBatch:
    """Return a row for every event.  The column `fields` holds a JSON object."""
    rows = [
        {
            **_key(batch),
            "row": row,
            "time": event.t_us,
            "kind": event.kind,
            "reason": _text(event.fields.get("reason")),
            "fields": json.dumps({name: _finite(value) for name, value in event.fields.items()}),
        }
        for row, event in enumerate(batch.window.events)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=EVENTS)


def _batch_of(batch: OpenedBatch) -> pa.RecordBatch:
    row = {
        **_key(batch),
        "lane": batch.header.lane.label,
        "campaign": batch.window.campaign,
        "revision": batch.window.revision,
        "start": batch.window.start_us,
        "end": batch.window.end_us,
        "samples": batch.window.samples,
        "events": len(batch.window.events),
        "bytes": batch.sealed_bytes,
        "sealed": batch.header.sealed_at_us,
        "sealing_key": batch.header.key_id,
        "received": batch.received_at_us,
        "clock": batch.window.clock.quality.name.lower(),
        "boot_id": batch.window.clock.boot_id,
        "clock_wall": batch.window.clock.wall_us,
        "clock_boottime_us": batch.window.clock.boottime_us,
        "window": batch.window.id or None,
    }
    return pa.RecordBatch.from_pylist([row], schema=BATCHES)


def _samples_of(batch: OpenedBatch) -> pa.RecordBatch:
    """Return the rows of one batch, ordered by column group, then by signal, then by arrival on the bus."""
    groups = [group for group in batch.window.groups if group.raw.size]
    if not groups:
        return pa.RecordBatch.from_pylist([], schema=_ARROW_SCHEMAS["samples"])
    signals = [signal for group in groups for signal in group.signals]
    # `of_signal` holds, for each row, the index of its signal in `signals`.
    lengths = np.concatenate([np.full(len(group.signals), group.t_us.size) for group in groups])
    of_signal = np.repeat(np.arange(len(signals), dtype=np.int32), lengths)
    rows = of_signal.size
    key = _key(batch)

    def by_signal(entry: Callable[[SignalInfo], str | None]) -> pa.DictionaryArray:
        codes, values = _codes([entry(signal) for signal in signals])
        return _dictionary(codes[of_signal], values)

    columns = {
        "date": pa.array(np.full(rows, key["date"], np.int32)).cast(pa.date32()),
        "vehicle": _constant(batch.header.vehicle, rows),
        "epoch": _constant(batch.header.epoch, rows),
        "seq": pa.array(np.full(rows, batch.header.seq, np.int64)),
        "digest": _constant(batch.digest.hex(), rows),
        "row": pa.array(np.arange(rows, dtype=np.int32)),
        "campaign": _constant(batch.window.campaign, rows),
        "bus": by_signal(lambda signal: signal.bus),
        "signal": by_signal(lambda signal: signal.name),
        "time": pa.array(np.concatenate([np.tile(group.t_us, len(group.signals)) for group in groups])).cast(TIME),
        "raw": pa.array(np.concatenate([group.raw.reshape(-1) for group in groups])),
        "value": pa.array(np.concatenate([physical_values(group).reshape(-1) for group in groups])),
        "unit": by_signal(lambda signal: signal.unit),
        "text": _texts(groups, rows),
        "source_address": _source_addresses(groups, lengths, rows),
        "trigger": _triggers(groups, lengths, rows),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SAMPLES.names], schema=_ARROW_SCHEMAS["samples"])


def _source_addresses(groups: Sequence[ColumnGroup], lengths: NDArray[np.int64], rows: int) -> pa.Array:
    if all(group.source_address is None for group in groups):
        return pa.nulls(rows, pa.int16())
    # An address has 8 bits, so -1 can mean "no address".
    of_signal = [
        -1 if group.source_address is None else group.source_address for group in groups for _ in group.signals
    ]
    addresses = np.repeat(np.array(of_signal, np.int16), lengths)
    return pa.array(addresses, mask=addresses < 0)


def _triggers(groups: Sequence[ColumnGroup], lengths: NDArray[np.int64], rows: int) -> pa.Array:
    if all(group.trigger is None for group in groups):
        return pa.nulls(rows, pa.int64())
    # Triggers are numbered from 1, so 0 can mean "no trigger".
    of_signal = [group.trigger or 0 for group in groups for _ in group.signals]
    triggers = np.repeat(np.array(of_signal, np.int64), lengths)
    return pa.array(triggers, mask=triggers == 0)


def _texts(groups: Sequence[ColumnGroup], rows: int) -> pa.DictionaryArray:
    """Return the text for each raw value, or null for a value that has no text in the CAN database."""
    values: dict[str, int] = {}
    codes = np.full(rows, -1, np.int32)
    start = 0
    for group in groups:
        for texts, raw in zip(group.texts, group.raw, strict=True):
            if texts:
                raws = np.array(sorted(texts), np.int64)
                code_of = np.array([values.setdefault(texts[value], len(values)) for value in raws.tolist()], np.int32)
                # searchsorted returns a place even for a value that is not in `raws`, so the result is checked below.
                nearest = np.minimum(np.searchsorted(raws, raw), len(raws) - 1)
                codes[start : start + raw.size] = np.where(raws[nearest] == raw, code_of[nearest], -1)
            start += raw.size
    return _dictionary(codes, list(values))


def _codes(entries: Sequence[str | None]) -> tuple[NDArray[np.int32], list[str]]:
    """Return a code for each entry, and the list of distinct texts.  A code is an index of the list, or -1 for None."""
    values: dict[str, int] = {}
    codes = [-1 if entry is None else values.setdefault(entry, len(values)) for entry in entries]
    return np.array(codes, np.int32), list(values)


def _dictionary(codes: NDArray[np.int32], values: Sequence[str]) -> pa.DictionaryArray:
    """Return an array whose row i is values[codes[i]], or null if codes[i] is -1."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(values, pa.string()))


def _constant(value: str, rows: int) -> pa.DictionaryArray:
    return _dictionary(np.zeros(rows, np.int32), [value])


def _encoded(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with dictionary-encoded text columns."""
    encoded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(encoded) if field.type == pa.string() else field for field in schema])


def _key(batch: OpenedBatch) -> dict[str, str | int]:
    return {
        "date": batch.window.start_us // DAY_US,
        "vehicle": batch.header.vehicle,
        "epoch": batch.header.epoch,
        "seq": batch.header.seq,
        "digest": batch.digest.hex(),
    }


def _text(value: EventValue | None) -> str | None:
    return value if isinstance(value, str) else None


def _finite(value: EventValue) -> EventValue:
    # Infinities and NaN become text, because JSON cannot hold them.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


_ARROW_SCHEMAS: Final = {"samples": _encoded(SAMPLES), "events": EVENTS, "batches": BATCHES}
