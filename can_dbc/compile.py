"""Compile cantools' objects to a bit plan.  Pure.

Where a database contradicts itself, the plan does as cantools does when it decodes, and says so in `BusPlan.notes`:

- Two messages have one identifier: the last one in a file wins, and the first file of a bus wins.
- Two signals of one name are in the same place of a message: one value comes out, as in cantools' dictionary.
- Signals of one byte order overlap or exceed the message: its frames are refused (`defect`); in a multiplexed group,
  only the frames that select the group.
- No multiplexer value ever selects a signal: the signal is left out.  So is a signal of more than 64 bits.
- A container (ARXML) lies in another one: it is refused.
- Two contained messages have the same header id: the container is refused, because cantools fails on it.
- A contained message has no header id that a frame can have: the message is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from can_dbc.errors import DatabaseError
from can_dbc.plan import (
    HEADER_IDS,
    BusPlan,
    Match,
    MessagePlan,
    MultiplexerPlan,
    SignalPlan,
    as_raw,
    match_key,
)
from can_dbc.values import WORD_BITS, Kind

if TYPE_CHECKING:
    from cantools.database.can import Database, Message, Signal

_FLOAT_OF_BITS: Final = {16: Kind.FLOAT16, 32: Kind.FLOAT32, 64: Kind.FLOAT64}


def compile_plan(databases: "Sequence[Database]", match: Match = Match.EXACT) -> BusPlan:
    """Compile the plan of a bus that `databases` describe together; earlier ones have precedence.

    Raises: DatabaseError if a value is beyond float64, an IEEE float has no such size, a signal starts before its
    message, or a message has a negative length.
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
                # The first database of a bus wins, so that a file can override another by standing before it.
                notes.append(f"{plan.name}: hidden by {messages[key].name} of an earlier database")
            else:
                messages[key] = plan
    return BusPlan(tuple(messages.values()), match, tuple(notes))


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
    # Multiplexers have unique names here (see _selected), other signals need not have.
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
    """Return the signals that cantools can decode, in the order given, and their multiplexers, parents first."""
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
            # cantools looks multiplexers up by name, so of two with one name only the first selects.
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
        # cantools returns unscaled floats as they are.  Adding -0.0 keeps even -0.0, which adding 0.0 would not.
        offset = -0.0
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


def _compile_multiplexer(index: int, signal: "Signal", drafts: Sequence[SignalPlan], length: int) -> MultiplexerPlan:
    choices = dict(signal.conversion.choices or {})
    # A number that only the value table lists selects no signal, and cantools accepts its frames.
    groups: dict[int, list[int]] = {int(number): [] for number in choices}
    for child, draft in enumerate(drafts):
        if draft.multiplexer == index:
            for number in draft.multiplexer_ids:
                groups.setdefault(number, []).append(child)
    distinct = {tuple(group) for group in groups.values()}
    broken = {group for group in distinct if not _consistent([drafts[i] for i in group], length)}
    # cantools selects by the text where the value table has one: two numbers of one text select as the last of them.
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
    """Return whether signals of one byte order neither overlap nor exceed `length` bytes (cantools' condition)."""
    # cantools checks little-endian and big-endian signals apart from each other, so the two may overlap.
    ends = {True: 0, False: 0}
    for signal in sorted(signals, key=lambda s: s.first_bit):
        if signal.first_bit < ends[signal.big_endian]:
            return False
        ends[signal.big_endian] = signal.first_bit + signal.bits
    return max(ends.values()) <= 8 * length


def _kept(
    message: str, drafts: Sequence[SignalPlan], notes: list[str]
) -> tuple[tuple[SignalPlan, ...], Mapping[int, int]]:
    """Return the signals that come out, and the index among them of each draft's value.

    Drafts with the same name in the same place give one value.
    """
    # cantools' dictionary keeps the bits that were unpacked last, under the conversion of the signal listed last.
    # bitstruct unpacks big endian before little endian; of big-endian signals the last one in network order remains, of
    # little-endian ones the first.
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
