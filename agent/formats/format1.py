"""Reading batches of format 1, which vehicles wrote before catalogues existed (telemetry.proto).  Pure.

Each group has a table of its own: its residuals stand by ascending width, within a width column after column, the byte
planes of a column together.  Every column names its wrap and its unit.  Nothing writes this format any more; its test
vectors are read for ever.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from agent.formats import delta
from agent.formats import telemetry_pb2 as pb
from agent.formats.columns import ColumnGroup
from agent.formats.descriptions import read_table

_WIDTHS = (1, 2, 4, 8)


def read_groups(message: pb.TelemetryBatch, max_values: int) -> tuple[ColumnGroup, ...]:
    """The samples of a batch.  Raises delta.MalformedError, before memory is taken for more than `max_values`."""
    signals = read_table(message.signals)
    _check_counts(message, len(signals), max_values)
    times = _read_times(message.times)
    groups = []
    first = 0
    for group in message.groups:
        t_us = times[group.time]
        described = signals[first : first + len(group.values.bases)]
        texts: tuple[Mapping[int, str], ...] = tuple(table for _, table in described)
        infos = tuple(info for info, _ in described)
        groups.append(ColumnGroup(t_us, infos, _read_values(group.values, len(t_us)), texts))
        first += len(described)
    return tuple(groups)


def _check_counts(message: pb.TelemetryBatch, signals: int, max_values: int) -> None:
    """Everything that decides how much will be allocated."""
    counts = message.times.counts
    if len(counts) != len(message.times.bases):
        raise delta.MalformedError("times and their counts of different number")
    if any(group.time >= len(counts) for group in message.groups):
        raise delta.MalformedError("a group of a time column that is not there")
    tables = [group.values for group in message.groups]
    if any(not table.bases for table in tables):
        raise delta.MalformedError("a group of no signals")
    if sum(len(table.bases) for table in tables) != signals:
        raise delta.MalformedError("descriptions of another number of signals than there are columns")
    values = sum(counts[group.time] * len(group.values.bases) for group in message.groups)
    if values + sum(counts) > max_values:
        raise delta.MalformedError(f"more than {max_values} values")


def _read_values(table: pb.DeltaTable, count: int) -> NDArray[np.int64]:
    """(S, count) values of one group, whose columns have no unit but 1."""
    _check_table(table)
    if any(unit != 1 for unit in table.units):
        raise delta.MalformedError("values in units")
    wraps = np.frombuffer(table.wraps, np.uint8) if table.wraps else np.zeros(len(table.widths), np.uint8)
    rows = count - 1
    pieces = {width: table.widths.count(width) * width * rows for width in _WIDTHS}
    if count < 1 or sum(pieces.values()) != len(table.residuals):
        raise delta.MalformedError("residuals of another length than their widths and counts say")
    planes = []
    start = 0
    for width, size in pieces.items():
        columns = np.frombuffer(table.residuals[start : start + size], np.uint8).reshape(-1, width, rows)
        planes.append(columns.transpose(1, 0, 2).tobytes())
        start += size
    deltas = _deltas(table, slice(None), b"".join(planes), wraps)
    return delta.decode(deltas, np.full(len(table.widths), count)).reshape(-1, count)


def _read_times(table: pb.DeltaTable) -> list[NDArray[np.int64]]:
    """Every time column; the residuals of each are cut out of those of all, which stand by width."""
    _check_table(table)
    widths, counts = np.frombuffer(table.widths, np.uint8), np.array(table.counts, np.int64)
    sizes = widths.astype(np.int64) * (counts - 1)
    if (sizes < 0).any() or int(sizes.sum()) != len(table.residuals):
        raise delta.MalformedError("residuals of times of another length than their widths and counts say")
    order = np.argsort(widths, kind="stable")
    starts = np.empty(len(order), np.int64)
    starts[order] = np.cumsum(sizes[order]) - sizes[order]
    times = []
    for i in range(len(counts)):
        residuals = table.residuals[starts[i] : starts[i] + sizes[i]]
        one = slice(i, i + 1)
        wraps = np.frombuffer(table.wraps[one] or b"\0", np.uint8)
        deltas = _deltas(table, one, residuals, wraps)
        unit = table.units[i] if table.units else 1
        if not 1 <= unit < 1 << 63:
            raise delta.MalformedError("a column of no unit, or of one beyond 63 bits")
        column = delta.decode(deltas, counts[one])
        times.append(column if unit == 1 else (column - column[0]) * unit + column[0])
    return times


def _check_table(table: pb.DeltaTable) -> None:
    columns = len(table.bases)
    if not len(table.steps) == len(table.widths) == columns:
        raise delta.MalformedError("columns of different number")
    if len(table.wraps) not in (0, columns) or len(table.units) not in (0, columns):
        raise delta.MalformedError("wraps or units of another number than columns")


def _deltas(table: pb.DeltaTable, columns: slice, residuals: bytes, wraps: NDArray[np.uint8]) -> delta.Deltas:
    return delta.Deltas(
        np.array(table.bases[columns], np.int64),
        np.array(table.steps[columns], np.int64),
        np.frombuffer(table.widths[columns], np.uint8),
        residuals,
        wraps,
    )
