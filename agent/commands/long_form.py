"""Arrange decoded columns in the long form: one row for each sample, in bus order.  Pure.

Bus order is the order of the frames in the log.  Samples of one frame keep the order of `message.signals`; samples of
a container's frame come message by message.

Every column is an array, so that numpy handles all samples at once.  A name or text is represented by its index in a
list.  Strings are only appended to the list, so an index stays valid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from can_dbc.decoder import Decoded, SignalColumns
from can_dbc.frames import FrameBlock
from can_dbc.plan import MessagePlan, SignalPlan
from can_dbc.values import WORD_BITS, Kind, physical, text_keys


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Holds `m` samples as columns, each of shape (m,).

    - `t_us` is the time since the Unix epoch, in microseconds.
    - `bus`, `message`, `signal`, `unit` and `text` are indices into the lists of `LongForm`; -1 means none.
    - `raw` is the raw integer.
    - `is_float` marks an IEEE float, for which `raw` has no meaning.
    - `beyond_int64` marks an unsigned integer above 2^63-1.  `raw` is then this integer minus 2^64.
    - `value` is the physical value.
    - `source_address` is the sender of a J1939 message; -1 means none.
    """

    t_us: NDArray[np.int64]
    bus: NDArray[np.int32]
    message: NDArray[np.int32]
    signal: NDArray[np.int32]
    raw: NDArray[np.int64]
    is_float: NDArray[np.bool_]
    beyond_int64: NDArray[np.bool_]
    value: NDArray[np.float64]
    text: NDArray[np.int32]
    unit: NDArray[np.int32]
    source_address: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.t_us)


class Index:
    """Keeps distinct strings in a list that only grows, and finds the index of each."""

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._place: dict[str, int] = {}

    def place(self, string: str) -> int:
        """Return the index of `string`, and append the string if it is new."""
        place = self._place.setdefault(string, len(self.strings))
        if place == len(self.strings):
            self.strings.append(string)
        return place


@dataclass(frozen=True, slots=True, eq=False)
class _MessageNames:
    """Holds the indices of the strings that the samples of one message refer to.

    `signals` and `units` have one index for each signal.  `texts` has the value table of each signal as two arrays: the
    keys in ascending order, and the indices of their texts.  A signal without a value table has None.
    """

    message: int
    signals: NDArray[np.int32]
    units: NDArray[np.int32]
    texts: tuple[tuple[NDArray[np.int64], NDArray[np.int32]] | None, ...]


class LongForm:
    """Arranges decoded blocks, and keeps the lists of strings that all their samples refer to.

    A later block may have more buses.  The messages of a bus must be the same in all blocks, because their names are
    looked up only once.
    """

    def __init__(self) -> None:
        self.buses: tuple[str, ...] = ()
        self.messages, self.signals, self.units, self.texts = Index(), Index(), Index(), Index()
        self._names: dict[tuple[int, int, bool, int | None], _MessageNames] = {}

    def arrange(self, decoded: Decoded, block: FrameBlock) -> Samples:
        """Return the samples of one decoded block in bus order."""
        self.buses = block.buses
        rows, counts = _frames(decoded.columns)
        order = np.argsort(rows, kind="stable")
        starts = np.empty_like(counts)
        starts[order] = np.cumsum(counts[order]) - counts[order]
        total, rows, repeats = int(counts.sum()), rows[order], counts[order]
        samples = Samples(
            t_us=np.repeat(block.t_ns[rows] // 1000, repeats),
            bus=np.repeat(block.bus[rows].astype(np.int32), repeats),
            message=np.empty(total, np.int32),
            signal=np.empty(total, np.int32),
            raw=np.empty(total, np.int64),
            is_float=np.zeros(total, np.bool_),
            beyond_int64=np.zeros(total, np.bool_),
            value=np.empty(total, np.float64),
            text=np.full(total, -1, np.int32),
            unit=np.empty(total, np.int32),
            source_address=np.full(total, -1, np.int16),
        )
        stop = 0
        for columns in decoded.columns:
            start, stop = stop, stop + len(columns.rows)
            self._place(columns, starts[start:stop], samples)
        return samples

    def _place(self, columns: SignalColumns, starts: NDArray[np.int64], samples: Samples) -> None:
        """Write the samples of one message into `samples`; `starts` (n,) has the index of each frame's first sample."""
        names = self._names_of(columns.bus, columns.message)
        rank = np.arange(len(columns.signals), dtype=np.int64)[:, None]
        if columns.valid is not None:
            rank = np.cumsum(columns.valid, axis=0) - 1
        place = starts + rank
        for row, index in enumerate(columns.signals):
            signal = columns.message.signals[index]
            at, raw = place[row], columns.raw[row]
            if columns.valid is not None:
                at, raw = at[columns.valid[row]], raw[columns.valid[row]]
            samples.message[at] = names.message
            samples.signal[at] = names.signals[index]
            samples.unit[at] = names.units[index]
            if columns.source_address is not None:
                samples.source_address[at] = columns.source_address
            samples.raw[at] = raw
            samples.value[at] = physical(signal, raw)
            if signal.kind not in (Kind.INT, Kind.UINT):
                samples.is_float[at] = True
            elif signal.kind is Kind.UINT and signal.bits == WORD_BITS:
                samples.beyond_int64[at] = raw < 0
            if (table := names.texts[index]) is not None:
                samples.text[at] = _looked_up(table, text_keys(signal, raw))

    def _names_of(self, bus: int, message: MessagePlan) -> _MessageNames:
        # All messages in a container have the identifier of the container, and differ only in their header id.
        key = (bus, message.can_id, message.extended, message.header_id)
        known = self._names.get(key)
        if known is None:
            known = self._names[key] = _MessageNames(
                message=self.messages.place(message.name),
                signals=np.array([self.signals.place(s.name) for s in message.signals], np.int32),
                units=np.array([-1 if s.unit is None else self.units.place(s.unit) for s in message.signals], np.int32),
                texts=tuple(self._table(signal) for signal in message.signals),
            )
        return known

    def _table(self, signal: SignalPlan) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        texts: Mapping[int, str] = signal.texts
        if not texts:
            return None
        keys = sorted(texts)
        return np.array(keys, np.int64), np.array([self.texts.place(texts[key]) for key in keys], np.int32)


def _frames(columns: Sequence[SignalColumns]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two arrays: the row of each frame in its block, and the number of samples of each frame.

    Both arrays have the frames in the order of `columns`.
    """
    rows = [np.zeros(0, np.int64), *(decoded.rows for decoded in columns)]
    counts = [np.zeros(0, np.int64)]
    for decoded in columns:
        if decoded.valid is None:
            counts.append(np.full(len(decoded.rows), len(decoded.signals), np.int64))
        else:
            counts.append(np.count_nonzero(decoded.valid, axis=0))
    return np.concatenate(rows), np.concatenate(counts)


def _looked_up(table: tuple[NDArray[np.int64], NDArray[np.int32]], keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the index of each key's text, or -1 if the table has no text for the key."""
    listed, places = table
    found = np.minimum(np.searchsorted(listed, keys), len(listed) - 1)
    return np.where(listed[found] == keys, places[found], -1).astype(np.int32)
