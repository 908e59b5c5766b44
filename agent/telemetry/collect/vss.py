"""Turns samples of CAN signals into samples of VSS paths, as a mapping says.  This file is pure.

For each sample, in the order of the frames, an entry does the following:

1. A number outside the limits in the database, and without a text, is no value.
2. The interval: the sample is used if it comes `interval_us` or more after the last used one, or if the clock was set
   back.  It counts as used even if a later step drops it.
3. The transform, which may have no result.
4. With `on_change`, a value that equals the last one that was given is dropped.

The samples of all messages, buses and senders that feed an entry share its state.  An entry of several signals is used
once for each frame that has at least one of them, with the newest value of each, and not before each has had one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from agent.formats.down.mapping.entries import Entry, Scalar, VssMapping
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.names import Place
from agent.telemetry.collect.signal_tables import SignalTables, Wants, all_wants
from agent.telemetry.collect.thinning import spaced
from can_dbc.values import WORD_BITS, Kind, physical, text_keys

_MOST_KNOWN: Final = 4_096
"""So many results are remembered, because a transform gives the same result for the same raw values."""


class VssSample(NamedTuple):
    """A value of a VSS path, at a time in microseconds since the Unix epoch."""

    t_us: int
    path: str
    value: Scalar


class _Signal:
    """One CAN signal of an entry.  `place` is where it stands in the signal tables."""

    def __init__(self, tables: SignalTables, place: Place) -> None:
        self.place = place
        table = tables.tables[place.table]
        self._info, self._texts = table.signals[place.signal]
        self._minimum, self._maximum = table.limits[place.signal] if table.limits else (None, None)
        self._keys = np.array(sorted(self._texts), np.int64)
        self.scaled = self._info.scale != 1 or self._info.offset != 0
        self._whole = (
            self._info.kind in (Kind.INT, Kind.UINT)
            and float(self._info.scale).is_integer()
            and float(self._info.offset).is_integer()
        )

    def possible(self, raw: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which raw values have a text, or lie within the limits of the database (same shape)."""
        if self._minimum is None and self._maximum is None:
            return np.ones(raw.shape, np.bool_)
        values = physical(self._info, raw)
        within = np.ones(raw.shape, np.bool_)
        if self._minimum is not None:
            within &= ~(values < self._minimum)
        if self._maximum is not None:
            within &= ~(values > self._maximum)
        return within | np.isin(text_keys(self._info, raw), self._keys)

    def value(self, raw: int) -> tuple[float | int, str | None]:
        """Return the physical value, a whole number if it always is one, and the text of a raw value."""
        one = np.array([raw], np.int64)
        text = self._texts.get(int(text_keys(self._info, one)[0]))
        if not self._whole:
            return float(physical(self._info, one)[0]), text
        number = raw + (1 << WORD_BITS) if raw < 0 and self._info.kind is Kind.UINT else raw
        return number * int(self._info.scale) + int(self._info.offset), text


class _Rows(NamedTuple):
    """Samples in the order of their frames: rows (n,), times (n,), raw values (n,), and the number of each signal."""

    rows: NDArray[np.int64]
    t_us: NDArray[np.int64]
    raw: NDArray[np.int64]
    signal: NDArray[np.int64]


class _Feed:
    """Finds the samples of signals that count as one input of an entry."""

    def __init__(self, tables: SignalTables, places: Sequence[Place]) -> None:
        self.signals = [_Signal(tables, place) for place in places]

    def rows(self, blocks: Mapping[int, Sequence[SignalBlock]]) -> _Rows:
        """Return the possible samples of all signals, in the order of their frames."""
        parts = [part for number in range(len(self.signals)) for part in self._of_signal(number, blocks)]
        if not parts:
            nothing = np.empty(0, np.int64)
            return _Rows(nothing, nothing, nothing, nothing)
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        order = np.argsort(joined[0], kind="stable")
        return _Rows(*(column[order] for column in joined))

    def _of_signal(self, number: int, blocks: Mapping[int, Sequence[SignalBlock]]) -> Iterator[_Rows]:
        signal = self.signals[number]
        for block in blocks.get(signal.place.table, ()):
            if signal.place.signal not in block.signals or block.rows is None:
                continue
            line = block.signals.index(signal.place.signal)
            kept = signal.possible(block.raw[line])
            if block.valid is not None:
                kept &= block.valid[line]
            rows = block.rows[kept]
            yield _Rows(rows, block.t_ns[kept] // 1_000, block.raw[line][kept], np.full(len(rows), number))


class Use(NamedTuple):
    """A value that an entry gives, with the row and time of its frame, and the raw integer of its first signal."""

    row: int
    t_us: int
    value: Scalar
    raw: int


class EntryState:
    """Computes one entry, and remembers across blocks what its rules need."""

    def __init__(self, entry: Entry, feeds: Mapping[str, _Feed]) -> None:
        self.entry = entry
        self._feeds = feeds
        self._newest: dict[str, tuple[int, int]] = {}  # number of the signal and raw value, by name of the input
        self._last_us: int | None = None
        self._given: Scalar | None = None
        self._known: dict[tuple[tuple[int, int], ...], Scalar | None] = {}

    @classmethod
    def at(cls, entry: Entry, tables: SignalTables, places: Mapping[str, Sequence[Place]]) -> Self:
        """Return the state of an entry that the signals at `places` feed, by their names in the entry."""
        return cls(entry, {name: _Feed(tables, found) for name, found in places.items()})

    @property
    def places(self) -> Iterator[Place]:
        """Yield the places of the signals that feed the entry."""
        for feed in self._feeds.values():
            for signal in feed.signals:
                yield signal.place

    def take(self, blocks: Mapping[int, Sequence[SignalBlock]]) -> Iterator[Use]:
        """Yield the values of the path."""
        for row, t_us, inputs in self._used(blocks):
            value = self._value(inputs)
            if value is None or (self.entry.on_change and _equal(value, self._given)):
                continue
            self._given = value
            yield Use(row, t_us, value, inputs[0][1])

    def _used(
        self, blocks: Mapping[int, Sequence[SignalBlock]]
    ) -> Iterator[tuple[int, int, tuple[tuple[int, int], ...]]]:
        """Yield row, time and inputs of each use that the interval allows."""
        found = {name: feed.rows(blocks) for name, feed in self._feeds.items()}
        if self.entry.combines:
            rows, times, inputs = self._joined(found)
        else:
            (one,) = found.values()
            rows, times, inputs = one.rows, one.t_us, np.stack([one.signal, one.raw], axis=1)[:, None, :]
        for use in self._spaced(times):
            self._last_us = int(times[use])
            yield int(rows[use]), self._last_us, tuple((int(signal), int(raw)) for signal, raw in inputs[use])

    def _spaced(self, t_us: NDArray[np.int64]) -> Sequence[int]:
        if self.entry.interval_us == 0:
            return range(len(t_us))
        last_ns = None if self._last_us is None else self._last_us * 1_000
        return spaced(t_us * 1_000, last_ns, self.entry.interval_us * 1_000)

    def _joined(self, found: Mapping[str, _Rows]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return rows (n,), times (n,) and inputs (n, names, 2) of the frames at which every input has had a value."""
        rows, first = np.unique(np.concatenate([each.rows for each in found.values()]), return_index=True)
        times = np.concatenate([each.t_us for each in found.values()])[first]
        inputs = np.zeros((len(rows), len(found), 2), np.int64)
        complete = np.ones(len(rows), np.bool_)
        for column, (name, each) in enumerate(found.items()):
            newest = np.searchsorted(each.rows, rows, side="right") - 1
            before = self._newest.get(name)
            if before is None:
                complete &= newest >= 0
            else:
                inputs[newest < 0, column] = before
            seen = newest >= 0
            inputs[seen, column, 0] = each.signal[newest[seen]]
            inputs[seen, column, 1] = each.raw[newest[seen]]
            if len(each.rows):
                self._newest[name] = int(each.signal[-1]), int(each.raw[-1])
        return rows[complete], times[complete], inputs[complete]

    def _value(self, inputs: tuple[tuple[int, int], ...]) -> Scalar | None:
        if inputs not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[inputs] = self._computed(inputs)
        return self._known[inputs]

    def _computed(self, inputs: tuple[tuple[int, int], ...]) -> Scalar | None:
        values = {}
        for (name, feed), (number, raw) in zip(self._feeds.items(), inputs, strict=True):
            signal = feed.signals[number]
            value, text = signal.value(raw)
            if not self.entry.combines:
                return self.entry.of_one(value, text, scaled=signal.scaled)
            values[name] = value if text is None else text
        return self.entry.of_several(values)


class VssSampler:
    """Computes the samples of all paths of a mapping.

    `notes` says which CAN signals are missing, and which names mean signals of several messages.
    """

    def __init__(self, mapping: VssMapping, tables: SignalTables, bus: str | None = None) -> None:
        """Find the signals on `bus`, or on all buses."""
        self.notes: list[str] = []
        self._tables = tables.tables
        self._states: list[EntryState] = []
        for entry in mapping.entries:
            places = {name: tables.names.find_bare(signal, bus) for name, signal in entry.signals.items()}
            for name, signal in entry.signals.items():
                self._note(entry, signal, places[name], tables)
            if all(places.values()):
                self._states.append(EntryState.at(entry, tables, places))

    @property
    def units(self) -> dict[str, list[str]]:
        """Return the units of the CAN signals of each path, as the databases spell them."""
        found: dict[str, list[str]] = {}
        for state in self._states:
            infos = [self._tables[place.table].signals[place.signal][0] for place in state.places]
            found.setdefault(state.entry.path, []).extend(info.unit for info in infos if info.unit)
        return found

    @property
    def wants(self) -> Wants:
        """Return the signals that the mapping needs."""
        return all_wants({place.table: (place.signal,)} for state in self._states for place in state.places)

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> list[VssSample]:
        """Return the samples that these blocks give, in the order of the frames."""
        found = [(use, state.entry.path) for state in self._states for use in state.take(by_table(blocks))]
        found.sort(key=lambda given: given[0].row)
        return [VssSample(use.t_us, path, use.value) for use, path in found]

    def _note(self, entry: Entry, signal: str, places: Sequence[Place], tables: SignalTables) -> None:
        if not places:
            near = tables.names.suggest_bare(signal)
            hint = "" if near is None else f"; did you mean {near}?"
            self.notes.append(f"{entry.path}: no database has the signal {signal}, so this path has no values{hint}")
        elif len(places) > 1:
            infos = [tables.tables[place.table].signals[place.signal][0] for place in places]
            named = ", ".join(f"{info.name} on {info.bus}" for info in infos)
            self.notes.append(f"{entry.path}: {signal} means {named}; all of them feed this path")


def by_table(blocks: Sequence[SignalBlock]) -> dict[int, list[SignalBlock]]:
    """Return the blocks of each signal table, by its number."""
    found: dict[int, list[SignalBlock]] = {}
    for block in blocks:
        found.setdefault(block.table, []).append(block)
    return found


def _equal(value: Scalar, other: Scalar | None) -> bool:
    return other is not None and isinstance(value, str) is isinstance(other, str) and value == other
