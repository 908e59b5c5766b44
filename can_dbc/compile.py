"""Compiles the messages that cantools has loaded into a bit plan.  Pure.

If a database contradicts itself, the plan follows cantools, and a note in `BusPlan.notes` says so:

- Two messages of one file match the same frames: the later message is used.
- Messages of two buses of one file match the same frames, but differ: the file is refused until a bus is chosen.
- Messages of two files of a bus match the same frames: the message of the earlier file is used.
- Two signals of a message share a name and a multiplexed group: only the value that cantools returns is decoded.
- Signals of one byte order overlap or exceed the message: all frames of the message are refused (`defect`).  If the
  signals belong to a multiplexed group, only the frames that select the group are refused.
- No multiplexer value selects a signal, or a signal has more than 64 bits: the signal is left out.
- A container (ARXML) lies in another container: the data of the inner container is refused.
- Two contained messages have the same header id: the container is refused, because cantools fails on it.
- A contained message has no header id that a frame can carry: it is left out, and a container with none left refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from can_dbc.buses import refuse_two_meanings
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
    """Compile the plan of the bus that `databases` describe together; an earlier database takes precedence.

    Raises: DatabaseError if a scale or offset exceeds float64, an IEEE float has an unsupported size, a signal starts
    before its message, a message has a negative length, or a multiplexer has more than 64 bits.
    """
    messages: dict[int, MessagePlan] = {}
    notes: list[str] = []
    for database in databases:
        of_file: dict[int, MessagePlan] = {}
        bus_of: dict[int, str | None] = {}
        notes.extend(getattr(database, "notes", ()))
        for message in database.messages:
            plan = _compile_message(message, notes)
            key = match_key(plan.can_id, plan.extended, match)
            bus = getattr(message, "bus_name", None)
            if key in of_file and bus != bus_of[key]:
                refuse_two_meanings(of_file[key], bus_of[key], plan, bus)
            elif key in of_file:
                notes.append(
                    f"{of_file[key].name}: the message is ignored, because {plan.name} matches the same frames; "
                    "remove one of them"
                )
            of_file[key], bus_of[key] = plan, bus
        for key, plan in of_file.items():
            if key in messages:
                # The first database of a bus wins, so that a file can override a later one.
                notes.append(
                    f"{plan.name}: the message is ignored, because {messages[key].name} of an earlier database matches "
                    "the same frames; to use this message, list its database first"
                )
            else:
                messages[key] = plan
    return BusPlan(tuple(messages.values()), match, tuple(notes))


def _compile_message(message: "Message", notes: list[str]) -> MessagePlan:
    if message.length < 0:
        raise DatabaseError(
            f"{message.name}: the message has a length of {message.length} bytes; correct the length in the database"
        )
    plan = MessagePlan(message.name, message.frame_id, message.is_extended_frame, message.length, ())
    if message.is_container:
        return _compile_container(message, plan, notes)
    selected, parents = _selected(message.signals)
    reached = {id(signal) for signal in selected}
    for signal in message.signals:
        if id(signal) not in reached:
            notes.append(
                f"{message.name}.{signal.name}: no multiplexer value selects the signal, so it is left out; "
                "correct its multiplexing in the database"
            )
    # Multiplexers have unique names here (see _selected); others need not.
    index = {signal.name: selected.index(signal) for signal in parents}
    drafts = [_compile_signal(message.name, signal, index) for signal in selected]
    multiplexers = [_compile_multiplexer(index[s.name], s, drafts, message.length) for s in parents]
    for multiplexer in multiplexers:
        if multiplexer.broken:
            listed = ", ".join(map(str, sorted(multiplexer.broken)[:8]))
            name = f"{message.name}.{drafts[multiplexer.signal].name}"
            notes.append(
                f"{name} = {listed}: the selected signals overlap or exceed the message, so frames that select them "
                "are refused; correct the start or length of the signals in the database"
            )
    defect = None
    if not _consistent([s for s in drafts if s.multiplexer is None], message.length):
        notes.append(
            f"{message.name}: signals overlap or exceed the message, so all its frames are refused; "
            "correct the start or length of the signals in the database"
        )
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
            notes.append(
                f"{container.name}.{message.name}: the message is left out, because its header id is {header_id}; "
                "give it a header id from 0 to 0xFFFFFF"
            )
        elif message.is_container:
            notes.append(
                f"{container.name}.{message.name}: the container lies in another container, so its data is refused; "
                "move its messages to the outer container"
            )
            contained.append(replace(plan, name=message.name, header_id=header_id, defect="container"))
        else:
            inner = _compile_message(message, notes)
            contained.append(replace(inner, can_id=plan.can_id, extended=plan.extended, header_id=header_id))
    if not contained or len({message.header_id for message in contained}) < len(contained):
        why = "contained messages share a header id" if contained else "no contained message has a valid header id"
        notes.append(f"{container.name}: {why}, so its frames are refused; correct the header ids")
        return replace(plan, defect="container")
    return replace(plan, contained=tuple(contained))


def _selected(signals: "Sequence[Signal]") -> "tuple[list[Signal], list[Signal]]":
    """Return two lists: the signals that cantools can decode, and the multiplexers among these signals.

    The first list keeps the given order.  In the second list, a multiplexer comes before the multiplexers that it
    selects.
    """
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
            # cantools looks multiplexers up by name, so only the first of two with the same name selects signals.
            if signal.is_multiplexer and not any(signal.name == other.name for other in parents):
                parents.append(signal)
                fringe.append(signal)
    return [signal for signal in signals if id(signal) in reached], parents


def _compile_signal(message: str, signal: "Signal", index: Mapping[str, int]) -> SignalPlan:
    conversion = signal.conversion
    if conversion.is_float:
        kind = _FLOAT_OF_BITS.get(signal.length)
        if kind is None:
            raise DatabaseError(
                f"{message}.{signal.name}: the signal is an IEEE float of {signal.length} bits; use 16, 32 or 64 bits"
            )
    else:
        kind = Kind.INT if signal.is_signed else Kind.UINT
    if signal.start < 0:
        raise DatabaseError(
            f"{message}.{signal.name}: the signal starts at bit {signal.start}; correct its start in the database"
        )
    try:
        scale, offset = float(conversion.scale), float(conversion.offset)
    except OverflowError as error:
        raise DatabaseError(
            f"{message}.{signal.name}: the scale or offset exceeds float64; correct it in the database"
        ) from error
    if conversion.is_float and scale == 1 and offset == 0:
        # cantools returns unscaled floats unchanged.  Adding -0.0 does the same, but adding 0.0 would turn -0.0 into
        # 0.0.
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
    # A number that only the value table lists selects no signal, but cantools accepts frames with it.
    groups: dict[int, list[int]] = {int(number): [] for number in choices}
    for child, draft in enumerate(drafts):
        if draft.multiplexer == index:
            for number in draft.multiplexer_ids:
                groups.setdefault(number, []).append(child)
    distinct = {tuple(group) for group in groups.values()}
    broken = {group for group in distinct if not _consistent([drafts[i] for i in group], length)}
    # If the value table has a text for a number, cantools selects by the text.  Numbers that share a text therefore
    # all select the signals of the last such number.
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
    """Return whether all signals fit in `length` bytes, and no two signals of the same byte order overlap."""
    # Signals of different byte order may overlap, because cantools checks each byte order separately.
    ends = {True: 0, False: 0}
    for signal in sorted(signals, key=lambda s: s.first_bit):
        if signal.first_bit < ends[signal.big_endian]:
            return False
        ends[signal.big_endian] = signal.first_bit + signal.bits
    return max(ends.values()) <= 8 * length


def _kept(
    message: str, drafts: Sequence[SignalPlan], notes: list[str]
) -> tuple[tuple[SignalPlan, ...], Mapping[int, int]]:
    """Merge `drafts`, the plans of a message's signals as its database lists them, into the signals to decode.

    Drafts that share a name and a multiplexed group become one signal.  Drafts of more than 64 bits are left out.
    Return the signals, and a map from the index of each remaining draft to the index of its signal.

    Raises: DatabaseError if a multiplexer of more than 64 bits selects a signal.
    """
    # If signals share a name, cantools keeps the bits that bitstruct unpacks last, and converts them with the scale and
    # texts of the signal that is listed last.  The bits that are unpacked last are those of the first little-endian
    # signal.  If there is none, they are those of the last big-endian signal in network order.
    places: dict[tuple[str, int | None, tuple[int, ...]], list[int]] = {}
    for number, draft in enumerate(drafts):
        if draft.bits > WORD_BITS:
            notes.append(
                f"{message}.{draft.name}: the signal has {draft.bits} bits, so it is left out; "
                "split it into signals of at most 64 bits"
            )
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
            notes.append(
                f"{message}.{name}: {len(same)} signals share this name, so only one value is decoded; "
                "give each signal its own name"
            )
    if any(s.multiplexer is not None and s.multiplexer not in moved for s in signals):
        raise DatabaseError(
            f"{message}: a multiplexer of more than 64 bits cannot be decoded; shorten it in the database"
        )
    return tuple(
        replace(s, multiplexer=None if s.multiplexer is None else moved[s.multiplexer]) for s in signals
    ), moved
