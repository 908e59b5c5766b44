"""The bit plan: what a database says about each message, in plain values, compiled once from cantools' objects.

Pure.  A plan holds no cantools object and no array, so it can be compared, cached and sent.  Where a file contradicts
itself the plan does as cantools does when it decodes, and says so in `BusPlan.notes`:

- two messages with one identifier: the last in a file wins, the first file of a bus wins;
- two signals with one name in the same place of a message: one value comes out, as in cantools' dictionary;
- signals of one byte order that overlap, or that exceed the message: its frames are refused (`defect`), for a
  multiplexed group the frames that select the group;
- a signal that no multiplexer value ever selects is left out; so is one of more than 64 bits;
- a container (ARXML) that lies in another one is refused; so is one that gives two contained messages the same header
  id, since cantools fails on it; a contained message without a header id that a frame can have is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.errors import DatabaseError
from can_dbc.values import WORD_BITS, Kind

if TYPE_CHECKING:
    from cantools.database.can import Database, Message, Signal

EXTENDED_KEY: Final = 1 << 31
_PDU1_MASK: Final = 0x03FF0000  # J1939-21: below PDU format 240 the next byte is a destination address
_PDU2_MASK: Final = 0x03FFFF00
_PDU2_FIRST: Final = 240
HEADER_IDS: Final = 1 << 24  # AUTOSAR's short header: 3 bytes of id, 1 of length


class Match(StrEnum):
    """How a frame's identifier finds its message."""

    EXACT = "exact"
    PGN = "pgn"


_FLOAT_OF_BITS: Final = {16: Kind.FLOAT16, 32: Kind.FLOAT32, 64: Kind.FLOAT64}


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """One signal of a message.

    `start` is the DBC start bit (least significant bit where little endian, most significant where big endian), `bits`
    the length.  Physical value: raw * scale + offset in float64.  `texts` is the value table, by raw value as int64 (of
    IEEE floats: by the value without its fraction, as cantools looks it up).  `multiplexer` is the index, within the
    message, of the signal that selects this one, with `multiplexer_ids` (ascending) the numbers that do; None: always
    present.
    """

    name: str
    unit: str | None
    kind: Kind
    bits: int
    start: int
    big_endian: bool
    scale: float
    offset: float
    texts: Mapping[int, str]
    multiplexer: int | None = None
    multiplexer_ids: tuple[int, ...] = ()

    @property
    def first_bit(self) -> int:
        """Position of the first bit: of the most significant one in network order, or of the least significant one."""
        return 8 * (self.start // 8) + 7 - self.start % 8 if self.big_endian else self.start


@dataclass(frozen=True, slots=True)
class MultiplexerPlan:
    """A signal that selects others.

    `numbers` (ascending) are the multiplexer numbers that the database lists: a frame with another one is refused.
    `broken` are those whose group of signals overlaps or exceeds the message.  The number is `named[raw]` where there,
    else the whole part of raw * scale + offset (integers stay exact), as cantools selects by the scaled value.
    """

    signal: int
    numbers: tuple[int, ...]
    broken: frozenset[int]
    named: Mapping[int, int]
    scale: int | float
    offset: int | float

    @property
    def plain(self) -> bool:
        """Whether the raw value is the number."""
        return not self.named and self.scale == 1 and self.offset == 0


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """One message: its signals in cantools' order, its multiplexers with selecting ones before selected ones.

    `length` in bytes.  `defect`: why every frame of it is refused, or None.  A container has `contained` messages in
    place of signals, and `length` is the most that its frames have; each of them has the container's identifier, and
    the `header_id` by which it is found in a frame.
    """

    name: str
    can_id: int
    extended: bool
    length: int
    signals: tuple[SignalPlan, ...]
    multiplexers: tuple[MultiplexerPlan, ...] = ()
    defect: str | None = None
    header_id: int | None = None
    contained: "tuple[MessagePlan, ...]" = ()


@dataclass(frozen=True, slots=True)
class BusPlan:
    """The messages of one bus, one for each key (`match_key`), and what a maintainer of the databases should know."""

    messages: tuple[MessagePlan, ...]
    match: Match
    notes: tuple[str, ...] = ()

    @property
    def with_contained(self) -> Iterator[MessagePlan]:
        """The messages, each followed by those that it contains: all that samples are named by."""
        for message in self.messages:
            yield message
            yield from message.contained


def compile_plan(databases: "Sequence[Database]", match: Match = Match.EXACT) -> BusPlan:
    """The plan of a bus that `databases` describe together, the first having precedence.

    Raises DatabaseError where a value is beyond float64, an identifier beyond 29 bits, a signal before its message, a
    message of less than no bytes.
    """
    messages: dict[int, MessagePlan] = {}
    notes: list[str] = []
    for database in databases:
        of_file: dict[int, MessagePlan] = {}
        for message in database.messages:
            plan = _compile_message(message, notes)
            key = match_key(plan.can_id, plan.extended, match)
            if key in of_file:
                notes.append(f"{of_file[key].name}: hidden by {plan.name}, which has the same identifier")
            of_file[key] = plan
        for key, plan in of_file.items():
            if key in messages:
                notes.append(f"{plan.name}: hidden by {messages[key].name} of an earlier database")
            else:
                messages[key] = plan
    return BusPlan(tuple(messages.values()), match, tuple(notes))


def match_key(can_id: int, extended: bool, match: Match) -> int:
    """What identifies a message on a bus: identifier and its type; for Match.PGN the parameter group of 29-bit ones.

    J1939-21: priority and source address do not count, nor does the destination address of PDU1 formats.  An 11-bit
    identifier is none of J1939 and is compared whole.
    """
    if not extended:
        return can_id
    if match is Match.PGN:
        pdu_format = can_id >> 16 & 0xFF
        can_id &= _PDU2_MASK if pdu_format >= _PDU2_FIRST else _PDU1_MASK
    return can_id | EXTENDED_KEY


def pgn_masked(can_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """`match_key` of many 29-bit identifiers for Match.PGN, without EXTENDED_KEY."""
    return can_id & np.where((can_id >> 16 & 0xFF) >= _PDU2_FIRST, _PDU2_MASK, _PDU1_MASK)


def _compile_message(message: "Message", notes: list[str]) -> MessagePlan:
    if message.length < 0:
        raise DatabaseError(f"{message.name}: a message of {message.length} bytes")
    plan = MessagePlan(message.name, message.frame_id, message.is_extended_frame, message.length, ())
    if message.is_container:
        return _compile_container(message, plan, notes)
    selected, parents = _selected(message.signals)
    reached = {id(signal) for signal in selected}
    for signal in message.signals:
        if id(signal) not in reached:
            notes.append(f"{message.name}.{signal.name}: no multiplexer value selects it; left out")
    index = {signal.name: selected.index(signal) for signal in parents}
    drafts = [_compile_signal(message.name, signal, index) for signal in selected]
    multiplexers = [_compile_multiplexer(index[s.name], s, drafts, message.length) for s in parents]
    for multiplexer in multiplexers:
        if multiplexer.broken:
            listed = ", ".join(map(str, sorted(multiplexer.broken)[:8]))
            name = f"{message.name}.{drafts[multiplexer.signal].name}"
            notes.append(f"{name} = {listed}: signals overlap or do not fit; those frames are refused")
    defect = None
    if not _consistent([s for s in drafts if s.multiplexer is None], message.length):
        notes.append(f"{message.name}: signals overlap or do not fit; its frames are refused")
        defect = "layout"
    signals, moved = _kept(message.name, drafts, notes)
    return replace(
        plan,
        signals=signals,
        multiplexers=tuple(replace(m, signal=moved[m.signal]) for m in multiplexers if m.numbers),
        defect=defect,
    )


def _compile_container(container: "Message", plan: MessagePlan, notes: list[str]) -> MessagePlan:
    contained: list[MessagePlan] = []
    for message in container.contained_messages:
        header_id = message.header_id
        if header_id is None or not 0 <= header_id < HEADER_IDS:
            notes.append(f"{container.name}.{message.name}: header id {header_id}, which no frame can have; left out")
        elif message.is_container:
            notes.append(f"{container.name}.{message.name}: a container in a container; it is refused")
            contained.append(replace(plan, name=message.name, header_id=header_id, defect="container"))
        else:
            inner = _compile_message(message, notes)
            contained.append(replace(inner, can_id=plan.can_id, extended=plan.extended, header_id=header_id))
    if not contained or len({message.header_id for message in contained}) < len(contained):
        why = "contained messages share a header id" if contained else "no contained message has a header id"
        notes.append(f"{container.name}: {why}; its frames are refused")
        return replace(plan, defect="container")
    return replace(plan, contained=tuple(contained))


def _selected(signals: "Sequence[Signal]") -> "tuple[list[Signal], list[Signal]]":
    """The signals that cantools can decode, in the order given, and the multiplexers among them, parents first."""
    parents: list[Signal] = []
    reached: set[int] = set()
    fringe: list[Signal | None] = [None]
    for parent in fringe:
        for signal in signals:
            if parent is None:
                selects = signal.multiplexer_signal is None
            else:
                selects = signal.multiplexer_signal == parent.name and bool(signal.multiplexer_ids)
            if not selects or id(signal) in reached:
                continue
            reached.add(id(signal))
            if signal.is_multiplexer and not any(signal.name == other.name for other in parents):
                parents.append(signal)
                fringe.append(signal)
    return [signal for signal in signals if id(signal) in reached], parents


def _compile_signal(message: str, signal: "Signal", index: Mapping[str, int]) -> SignalPlan:
    conversion = signal.conversion
    if conversion.is_float:
        kind = _FLOAT_OF_BITS.get(signal.length)
        if kind is None:
            raise DatabaseError(f"{message}.{signal.name}: no IEEE float has {signal.length} bits")
    else:
        kind = Kind.INT if signal.is_signed else Kind.UINT
    if signal.start < 0:
        raise DatabaseError(f"{message}.{signal.name}: starts at bit {signal.start}")
    try:
        scale, offset = float(conversion.scale), float(conversion.offset)
    except OverflowError as error:
        raise DatabaseError(f"{message}.{signal.name}: scale or offset is beyond float64") from error
    if conversion.is_float and scale == 1 and offset == 0:
        offset = -0.0  # adds nothing, not even to -0.0: cantools gives unscaled floats as they are
    texts = {}
    for value, text in (conversion.choices or {}).items():
        raw = as_raw(kind, signal.length, value)
        if raw is not None:
            texts[raw] = str(text)
    selector = signal.multiplexer_signal
    return SignalPlan(
        name=signal.name,
        unit=signal.unit,
        kind=kind,
        bits=signal.length,
        start=signal.start,
        big_endian=signal.byte_order == "big_endian",
        scale=scale,
        offset=offset,
        texts=texts,
        multiplexer=None if selector is None else index[selector],
        multiplexer_ids=() if selector is None else tuple(sorted(set(signal.multiplexer_ids or ()))),
    )


def as_raw(kind: Kind, bits: int, value: int) -> int | None:
    """`value` as a raw int64 of a signal of `kind` and `bits`; None where the signal never has it."""
    if kind is Kind.UINT:
        if not 0 <= value < 1 << min(bits, WORD_BITS):
            return None
        return value - (1 << WORD_BITS) if value >> WORD_BITS - 1 else value
    limit = 1 << min(bits, WORD_BITS) - 1 if kind is Kind.INT else 1 << WORD_BITS - 2
    return value if -limit <= value < limit else None


def _compile_multiplexer(index: int, signal: "Signal", drafts: Sequence[SignalPlan], length: int) -> MultiplexerPlan:
    choices = dict(signal.conversion.choices or {})
    groups: dict[int, list[int]] = {int(number): [] for number in choices}
    for child, draft in enumerate(drafts):
        if draft.multiplexer == index:
            for number in draft.multiplexer_ids:
                groups.setdefault(number, []).append(child)
    distinct = {tuple(group) for group in groups.values()}
    broken = {group for group in distinct if not _consistent([drafts[i] for i in group], length)}
    number_of_text = {str(text): int(number) for number, text in choices.items()}
    named = {int(raw): number_of_text[str(text)] for raw, text in choices.items()}
    scale, offset = signal.conversion.scale, signal.conversion.offset
    if scale == 1 and offset == 0 and not signal.conversion.is_float:
        named = {raw: number for raw, number in named.items() if raw != number}
    return MultiplexerPlan(
        signal=index,
        numbers=tuple(sorted(groups)),
        broken=frozenset(number for number, group in groups.items() if tuple(group) in broken),
        named=named,
        scale=scale,
        offset=offset,
    )


def _consistent(signals: Iterable[SignalPlan], length: int) -> bool:
    """Whether signals of one byte order keep clear of each other and within `length` bytes (cantools' condition)."""
    ends = {True: 0, False: 0}
    for signal in sorted(signals, key=lambda s: s.first_bit):
        if signal.first_bit < ends[signal.big_endian]:
            return False
        ends[signal.big_endian] = signal.first_bit + signal.bits
    return max(ends.values()) <= 8 * length


def _kept(
    message: str, drafts: Sequence[SignalPlan], notes: list[str]
) -> tuple[tuple[SignalPlan, ...], Mapping[int, int]]:
    """The signals that come out, and where each draft's value now stands.

    Of drafts with one name in one place, cantools' dictionary keeps a single value: the bits that were unpacked last
    (little endian after big endian, of those the first, of these the last in network order), under the conversion
    of the signal that is listed last.
    """
    places: dict[tuple[str, int | None, tuple[int, ...]], list[int]] = {}
    for number, draft in enumerate(drafts):
        if draft.bits > WORD_BITS:
            notes.append(f"{message}.{draft.name}: {draft.bits} bits; signals of more than 64 bits are left out")
        else:
            places.setdefault((draft.name, draft.multiplexer, draft.multiplexer_ids), []).append(number)
    moved: dict[int, int] = {}
    signals: list[SignalPlan] = []
    for (name, _, _), numbers in places.items():
        for number in numbers:
            moved[number] = len(signals)
        same = [drafts[number] for number in numbers]
        little = [draft for draft in same if not draft.big_endian]
        bits = little[0] if little else max(same, key=lambda draft: draft.first_bit)
        last = same[-1]
        signals.append(replace(bits, unit=last.unit, scale=last.scale, offset=last.offset, texts=last.texts))
        if len(same) > 1:
            notes.append(f"{message}.{name}: {len(same)} signals of this name; one value comes out")
    if any(s.multiplexer is not None and s.multiplexer not in moved for s in signals):
        raise DatabaseError(f"{message}: a multiplexer of more than 64 bits cannot be decoded")
    return tuple(
        replace(s, multiplexer=None if s.multiplexer is None else moved[s.multiplexer]) for s in signals
    ), moved
