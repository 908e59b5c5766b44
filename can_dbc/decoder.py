"""The decoder: FrameBlock in, raw integers by message as columns out, equal to cantools value for value.  Pure.

Frames of a block are grouped by bus and identifier with one stable sort, so each message costs one set of array
operations whatever its number of signals.  On a bus that is matched by PGN (J1939) the frames of a message come apart
by source address: one parameter group from two control units is two signals.  Nothing in a block can make decoding
fail: a frame that does not decode is refused, and every refusal is counted by kind, bus and identifier.

Frames of a container are taken apart (can_dbc/containers.py), and the PDUs of a contained message are decoded together
as if they were frames of their own, with the identifier and time of the frame that they came in.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.bits import Extraction, Words
from can_dbc.containers import Unpacked
from can_dbc.errors import DecodeError
from can_dbc.frames import ERROR, EXTENDED, FD_BYTES, REMOTE, FrameBlock
from can_dbc.plan import EXTENDED_KEY, BusPlan, Match, MessagePlan, match_key, pgn_masked
from can_dbc.selector import Selector

Wanted = Callable[[int, MessagePlan], Sequence[int]]
_BUS_SHIFT: Final = 32  # a key is bus, type of identifier (bit 31), identifier
_ID_BITS: Final = EXTENDED_KEY - 1
_STANDARD_IDS: Final = 1 << 11
_BUFFER_VALUES: Final = 128  # numpy buffers smaller rows, and then shifts them three times as slowly
_SOURCE_ADDRESS: Final = 0xFF  # J1939-21: the last byte of an identifier


class Refused(StrEnum):
    """Why a frame was not decoded."""

    UNKNOWN = "unknown"  # no message of the bus has this identifier
    SHORT = "short"  # fewer data bytes than the message has
    MUX = "mux"  # a multiplexer number that the database does not list
    LAYOUT = "layout"  # the database's signals overlap or do not fit
    CONTAINER = "container"  # a container that contradicts itself, or lies in another one
    LONG = "long"  # more data bytes than the container may have
    TRUNCATED = "truncated"  # a PDU of the container reaches beyond its data
    HEADER = "header"  # a PDU of a container: no contained message has this header id
    REMOTE = "remote"  # a remote request carries no data
    ERROR = "error"  # an error frame is not bus traffic


@dataclass(frozen=True, slots=True)
class Refusal:
    """`frames` frames of one identifier refused for one reason; `message` is its name, or None where it is unknown.

    Of contained messages, and of Refused.HEADER, these are PDUs.
    """

    kind: Refused
    bus: int
    can_id: int
    extended: bool
    message: str | None
    frames: int


class SignalColumns(msgspec.Struct, frozen=True, eq=False):
    """The decoded frames of one message on one bus, of one sender where `source_address` says which, in block order.

    Of a contained message its PDUs; a frame may hold several.
    `rows` (n,) int64: their places in the block; `t_ns` (n,) int64; `signals` (S,): indices into `message.signals`;
    `raw` (S, n) int64: unsigned 64-bit values and IEEE floats as their bit pattern; `valid` (S, n) bool: whether the
    frame's multiplexers select the signal (raw means something only there), or None where all are valid;
    `source_address`: 0 to 255 for 29-bit identifiers of a bus that is matched by PGN, else None.
    """

    bus: int
    message: MessagePlan
    rows: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    signals: tuple[int, ...]
    raw: NDArray[np.int64]
    valid: NDArray[np.bool_] | None
    source_address: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What became of a block: every frame is in one of `columns`, was refused, was taken apart, or was not wanted.

    So is every PDU of the frames that were taken apart.
    """

    columns: tuple[SignalColumns, ...]
    _refused: "_RefusedFrames"

    @property
    def containers(self) -> int:
        """How many frames were taken apart."""
        return self._refused.containers

    @property
    def pdus(self) -> int:
        """How many PDUs those held."""
        return self._refused.pdus

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The refused frames by reason and identifier; worked out anew each time."""
        return self._refused.by_identifier()

    @property
    def refused(self) -> Counter[Refused]:
        """How many frames were refused, by reason."""
        return self._refused.by_kind()


class Decoder:
    """Decodes blocks by the plans of their buses, or only the signals that `wanted` names.

    `plans` by index of the bus in the block.  `wanted(bus, message)` is asked once for each message: indices into
    `message.signals`; an empty answer skips the message altogether, refusals included.  Of a container the contained
    messages are asked for, and it is skipped where none of them is wanted.  A frame is refused by the same
    rules however few of its signals are wanted.  Raises DecodeError where `wanted` names a signal the message has not.
    """

    def __init__(self, plans: Mapping[int, BusPlan], wanted: Wanted | None = None) -> None:
        self._messages: list[_Message | _Container] = []
        self._pgn_buses = [bus for bus, plan in plans.items() if plan.match is Match.PGN]
        groups: dict[int, int] = {}
        for bus, plan in plans.items():
            for message in plan.messages:
                key = bus << _BUS_SHIFT | match_key(message.can_id, message.extended, plan.match)
                has_source = message.extended and plan.match is Match.PGN
                made = _made(bus, message, wanted, has_source=has_source)
                groups[key] = -1 if made is None else len(self._messages)
                if made is not None:
                    self._messages.append(made)
        count = len(self._messages)
        self._unknown, self._dead, self._skipped = count, count + 1, count + 2
        # Narrow numbers make numpy's stable sort a radix sort, of one pass a byte.
        number = np.min_scalar_type(self._skipped) if self._skipped <= np.iinfo(np.uint16).max else np.int64
        known = sorted(groups)
        self._keys = np.array([*known, np.iinfo(np.int64).max], np.int64)
        numbers = [self._skipped if groups[key] < 0 else groups[key] for key in known]
        self._group_of_key = np.array([*numbers, self._unknown], number)
        # Identifiers of 11 bits are looked up in a table: a row for each bus, the last for those without a plan; the
        # last entry of each for what has more bits.
        self._buses = min(max(plans, default=-1) + 1, np.iinfo(np.uint8).max)
        self._standard = np.full((self._buses + 1, _STANDARD_IDS + 1), self._unknown, number)
        for key, group in zip(known, numbers, strict=True):
            if not key & EXTENDED_KEY and key & _ID_BITS < _STANDARD_IDS:
                self._standard[key >> _BUS_SHIFT, key & _ID_BITS] = group

    def decode(self, block: FrameBlock) -> Decoded:
        """Decode all frames of `block`; its buses without a plan count as unknown."""
        refused = _RefusedFrames(block)
        columns: list[SignalColumns] = []
        if not len(block):
            return Decoded((), refused)
        group = self._group(block)
        # A block of one message is in order as it is.
        alone = bool((group == group[0]).all())
        order = np.arange(len(group)) if alone else np.argsort(group, kind="stable")
        ordered = group if alone else group.take(order)
        changes = ((ordered[1:] != ordered[:-1]).nonzero()[0] + 1).tolist()
        starts, stops = [0, *changes], [*changes, len(group)]
        numbers: list[int] = ordered.take(starts).tolist()
        known = bisect_left(numbers, self._unknown)
        if known:
            used = order[: stops[known - 1]]
            frames = _frames(block, None if alone else used)
            shortest = np.minimum.reduceat(frames.length, starts[:known]).tolist()
            usual = np.setbufsize(_BUFFER_VALUES)
            try:
                for number, start, stop, length in zip(numbers, starts, stops, shortest, strict=False):
                    message = self._messages[number]
                    for decoded in message.decode(frames, start, stop, length, refused):
                        columns += _by_source(decoded, block) if message.has_source else (decoded,)
            finally:
                np.setbufsize(usual)
        for number, start, stop in zip(numbers[known:], starts[known:], stops[known:], strict=True):
            self._refuse(block, number, order[start:stop], refused)
        return Decoded(tuple(columns), refused)

    def _group(self, block: FrameBlock) -> NDArray[np.int64] | NDArray[np.uint16]:
        """The number of each frame's message, or one of the numbers that stand for unknown, dead and skipped."""
        flags = block.flags
        group: NDArray[np.int64] | NDArray[np.uint16]
        entry = block.can_id
        if entry.max() > _STANDARD_IDS:
            entry = np.minimum(entry & _ID_BITS, _STANDARD_IDS)
        if (highest := block.bus.max()) > 0:
            row = block.bus if highest < self._buses else np.minimum(block.bus, self._buses)
            entry = entry + row.astype(np.uint32) * np.uint32(_STANDARD_IDS + 1)
        group = self._standard.take(entry)
        if not flags.any():
            return group
        extended = np.flatnonzero(flags & EXTENDED)
        if len(extended):
            bus, can_id = block.bus[extended].astype(np.int64), block.can_id[extended].astype(np.int64) & _ID_BITS
            if self._pgn_buses:
                can_id = np.where(np.isin(bus, self._pgn_buses), pgn_masked(can_id), can_id)
            key = bus << _BUS_SHIFT | EXTENDED_KEY | can_id
            place = np.searchsorted(self._keys, key)
            group[extended] = np.where(self._keys[place] == key, self._group_of_key[place], self._unknown)
        group[(flags & (REMOTE | ERROR)).astype(bool)] = self._dead
        return group

    def _refuse(self, block: FrameBlock, number: int, rows: NDArray[np.intp], refused: "_RefusedFrames") -> None:
        """Count the frames at `rows`, whose `number` is that of no message."""
        if number == self._unknown:
            refused.add(Refused.UNKNOWN, rows, None)
        elif number == self._dead:
            errors = (block.flags[rows] & ERROR).astype(bool)
            refused.add(Refused.ERROR, rows[errors], None)
            refused.add(Refused.REMOTE, rows[~errors], None)


def _by_source(columns: SignalColumns, block: FrameBlock) -> Iterator[SignalColumns]:
    """The columns of each sender."""
    addresses = block.can_id[columns.rows] & _SOURCE_ADDRESS
    present = np.flatnonzero(np.bincount(addresses)).tolist()
    for address in present:
        if len(present) == 1:
            yield msgspec.structs.replace(columns, source_address=address)
            return
        chosen = addresses == address
        yield msgspec.structs.replace(
            columns,
            rows=columns.rows[chosen],
            t_ns=columns.t_ns[chosen],
            raw=columns.raw[:, chosen],
            valid=None if columns.valid is None else columns.valid[:, chosen],
            source_address=address,
        )


class _RefusedFrames:
    """The refused frames of a block, by reason and name of the message, as places in the block.

    `containers` and `pdus` count the frames that were taken apart, and what they held.
    """

    def __init__(self, block: FrameBlock) -> None:
        self.containers = self.pdus = 0
        self._block = block
        self._rows: list[tuple[Refused, str | None, NDArray[np.intp]]] = []

    def add(self, kind: Refused, rows: NDArray[np.intp], message: str | None) -> None:
        if len(rows):
            self._rows.append((kind, message, rows))

    def by_kind(self) -> Counter[Refused]:
        found: Counter[Refused] = Counter()
        for kind, _, rows in self._rows:
            found[kind] += len(rows)
        return found

    def by_identifier(self) -> tuple[Refusal, ...]:
        found: Counter[tuple[Refused, int, int, bool, str | None]] = Counter()
        for kind, message, rows in self._rows:
            for key, frames in _frames_of_keys(self._block, rows):
                found[kind, key >> _BUS_SHIFT, key & _ID_BITS, bool(key & EXTENDED_KEY), message] += frames
        return tuple(Refusal(*identity, frames) for identity, frames in found.items())


def _frames_of_keys(block: FrameBlock, rows: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """How many of the frames have each bus and identifier: (key, count)."""
    can_id, bus = block.can_id[rows] & _ID_BITS, block.bus[rows].astype(np.int64)
    extended = block.flags[rows] & EXTENDED
    if not extended.any() and can_id.max() < _STANDARD_IDS:  # counting is faster than sorting
        counts = np.bincount(bus * _STANDARD_IDS + can_id)
        for key in np.flatnonzero(counts).tolist():
            yield key // _STANDARD_IDS << _BUS_SHIFT | key % _STANDARD_IDS, int(counts[key])
        return
    keys = bus << _BUS_SHIFT | extended.astype(np.int64) << 31 | can_id
    yield from zip(*(a.tolist() for a in np.unique(keys, return_counts=True)), strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """All frames that have a message, by message: places in the block, times, lengths, zero-padded data.

    `data` is that of the whole block, `words` the same by message.
    """

    rows: NDArray[np.intp]
    t_ns: NDArray[np.int64]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]
    words: Words


def _frames(block: FrameBlock, rows: NDArray[np.intp] | None) -> _Frames:
    """Those at `rows` of the block, or all of them as they are."""
    if rows is None:
        return _Frames(np.arange(len(block)), block.t_ns, block.length, block.data, Words(block.data, None))
    return _Frames(rows, block.t_ns.take(rows), block.length.take(rows), block.data, Words(block.data, rows))


def _made(bus: int, plan: MessagePlan, wanted: Wanted | None, *, has_source: bool) -> "_Message | _Container | None":
    """A message made ready, None where nothing of it is wanted."""
    if plan.contained:
        inner = [(m, _made(bus, m, wanted, has_source=has_source)) for m in plan.contained]
        parts = [(m, made) for m, made in inner if isinstance(made, _Message)]
        return _Container(plan, parts, has_source=has_source) if parts else None
    signals = range(len(plan.signals)) if wanted is None else wanted(bus, plan)
    if wanted is not None and not len(signals):
        return None
    return _Message(bus, plan, tuple(signals), has_source=has_source)


class _Container:
    """A container made ready, with those of its contained messages that are wanted."""

    def __init__(self, plan: MessagePlan, parts: Sequence[tuple[MessagePlan, "_Message"]], *, has_source: bool) -> None:
        self._plan, self._parts = plan, parts
        self._header_ids = [message.header_id for message in plan.contained if message.header_id is not None]
        self.has_source = has_source

    def decode(
        self, frames: _Frames, start: int, stop: int, _shortest: int, refused: _RefusedFrames
    ) -> Iterator[SignalColumns]:
        """Columns of the contained messages in the frames start to stop-1; `refused` gets what does not decode."""
        name, rows = self._plan.name, frames.rows[start:stop]
        long = frames.length[start:stop] > self._plan.length
        refused.add(Refused.LONG, rows[long], name)
        held = start + np.flatnonzero(~long)
        rows, t_ns, length = frames.rows[held], frames.t_ns[held], frames.length[held]
        unpacked = Unpacked(frames.data[rows], length, self._header_ids)
        refused.add(Refused.TRUNCATED, rows[unpacked.truncated], name)
        refused.add(Refused.HEADER, rows[unpacked.unlisted], name)
        refused.containers += int(np.count_nonzero(~unpacked.truncated))
        refused.pdus += unpacked.count
        for plan, message in self._parts:
            assert plan.header_id is not None
            pdus = unpacked.of(plan.header_id, min(plan.length, FD_BYTES))
            if count := len(pdus.frame):
                words = Words(pdus.data, None)
                inner = _Frames(rows[pdus.frame], t_ns[pdus.frame], pdus.length, pdus.data, words)
                yield from message.decode(inner, 0, count, int(pdus.length.min()), refused)


class _Message:
    """One message made ready: which signals to cut out, and how its multiplexers select.

    `has_source`: whether its identifiers end in a source address.
    """

    def __init__(self, bus: int, plan: MessagePlan, wanted: tuple[int, ...], *, has_source: bool) -> None:
        if any(not 0 <= index < len(plan.signals) for index in wanted):
            raise DecodeError(f"{plan.name} has signals 0 to {len(plan.signals) - 1}, wanted are {wanted}")
        self._bus, self._plan, self._wanted = bus, plan, wanted
        self.has_source = has_source
        self._defect = None if plan.defect is None else Refused(plan.defect)
        # Multiplexers are always cut out, behind the wanted signals: they decide whether the frame is refused.
        rows = list(wanted) + [m.signal for m in plan.multiplexers if m.signal not in wanted]
        cut = [plan.signals[index] for index in rows]
        self._extraction = None
        if self._defect is None and plan.length <= FD_BYTES:
            self._extraction = Extraction(cut)
        self._selectors = [Selector(m, plan, rows) for m in plan.multiplexers]
        self._selected = any(signal.multiplexer is not None for signal in cut[: len(wanted)])

    def decode(
        self, frames: _Frames, start: int, stop: int, shortest: int, refused: _RefusedFrames
    ) -> tuple[SignalColumns, ...]:
        """Columns of those of the frames start to stop-1 that decode, none where none does; `refused` gets the others.

        `shortest` is the least length among them.
        """
        name = self._plan.name
        rows, t_ns = frames.rows[start:stop], frames.t_ns[start:stop]
        if self._defect is not None:
            refused.add(self._defect, rows, name)
            return ()
        enough: NDArray[np.bool_] | None = None
        if shortest < self._plan.length:
            enough = frames.length[start:stop] >= self._plan.length
            refused.add(Refused.SHORT, rows[~enough], name)
            if not enough.any():
                return ()
        assert self._extraction is not None  # a message beyond FD_BYTES never finds enough data
        raw = self._extraction(frames.words, start, stop)
        if enough is not None:
            rows, t_ns, raw = rows[enough], t_ns[enough], raw[:, enough]
        valid = None
        if self._selectors:
            valid, unlisted, broken = self._select(raw)
            if (wrong := unlisted | broken).any():
                refused.add(Refused.MUX, rows[unlisted], name)
                refused.add(Refused.LAYOUT, rows[broken & ~unlisted], name)
                rows, t_ns, raw, valid = rows[~wrong], t_ns[~wrong], raw[:, ~wrong], valid[:, ~wrong]
                if not len(rows):
                    return ()
        count = len(self._wanted)
        shown = valid[:count] if valid is not None and self._selected else None
        if len(raw) > count:
            raw = raw[:count]
        return (SignalColumns(self._bus, self._plan, rows, t_ns, self._wanted, raw, shown),)

    def _select(self, raw: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Validity (rows, n), frames with an unlisted multiplexer number, frames whose group cannot be decoded."""
        valid = np.ones(raw.shape, np.bool_)
        unlisted = np.zeros(raw.shape[1], np.bool_)
        broken = np.zeros(raw.shape[1], np.bool_)
        for selector in self._selectors:
            asked = valid[selector.row]
            column = selector.columns(raw[selector.row])
            unlisted |= asked & (column == selector.unlisted)
            broken |= asked & selector.broken[column]
            valid[selector.children] = selector.table[:, column] & asked
        return valid, unlisted, broken
