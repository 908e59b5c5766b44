"""Compiles the messages of databases into a bit plan.  Pure.

The messages come from our reader of DBC files or from cantools.  If a database contradicts itself, the plan takes what
has exactly one meaning, and a note in `BusPlan.notes` says what the plan leaves out:

- Two messages of one file match the same frames: the later message is used, as in cantools.
- Messages of two buses of one file match the same frames, but differ: the file is refused until a bus is chosen.
- Messages of two files of a bus match the same frames: the message of the earlier file is used.
- A signal cannot be decoded, for example because it exceeds its message: the signal is left out (`can_dbc.defects`).
- Two signals of one name can be in the same frame: the first one is used (`can_dbc.defects`).
- No multiplexer value selects a signal: the signal is left out.
- Two messages of a bus have the same name: both are decoded under this name.
- A container (ARXML) lies in another container: the data of the inner container is refused.
- Two contained messages have the same header id: the container is refused, because cantools fails on it.
- A contained message has no header id that a frame can carry: it is left out.  A container with none left is refused.

Signals that overlap do not contradict each other, because each of them says where its own bits are.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from can_dbc.buses import refuse_two_meanings
from can_dbc.defects import place_of, usable
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
from can_dbc.values import FLOAT_OF_BITS, Kind

if TYPE_CHECKING:
    from cantools.database.can import Database

    from can_dbc.defects import AnyMessage, AnySignal
    from can_dbc.description import Description


def compile_plan(databases: "Sequence[Database | Description]", match: Match = Match.EXACT) -> BusPlan:
    """Compile the plan of the bus that `databases` describe together; an earlier database takes precedence."""
    messages: dict[int, MessagePlan] = {}
    notes: list[str] = []
    for database in databases:
        notes += getattr(database, "notes", ())
        of_file: dict[int, MessagePlan] = {}
        places: dict[int, str] = {}
        bus_of: dict[int, str | None] = {}
        for message in database.messages:
            if message.length < 0:
                notes.append(
                    f"{place_of(message)}{message.name}: the message has a length of {message.length} bytes, so it is "
                    "left out; correct the length in the database"
                )
                continue
            plan = _compile_message(message, notes)
            key = match_key(plan.can_id, plan.extended, match)
            bus = getattr(message, "bus_name", None)
            if key in of_file and bus != bus_of[key]:
                refuse_two_meanings(of_file[key], bus_of[key], plan, bus)
            elif key in of_file:
                notes.append(
                    f"{places[key]}{of_file[key].name}: the message is ignored, because {plan.name}, a later one, "
                    "matches the same frames; remove one of them"
                )
            of_file[key], bus_of[key], places[key] = plan, bus, place_of(message)
        for key, plan in of_file.items():
            if key in messages:
                # The first database of a bus wins, so that a file can override a later one.
                notes.append(
                    f"{places[key]}{plan.name}: the message is ignored, because {messages[key].name} of an earlier "
                    "database matches the same frames; to use this message, list its database first"
                )
            else:
                messages[key] = plan
    notes += [
        f"{name}: {count} messages share this name, so their samples cannot be told apart by it; give each its own name"
        for name, count in Counter(plan.name for plan in messages.values()).items()
        if count > 1
    ]
    return BusPlan(tuple(messages.values()), match, tuple(notes))


def _compile_message(message: "AnyMessage", notes: list[str]) -> MessagePlan:
    plan = MessagePlan(message.name, message.frame_id, message.is_extended_frame, message.length, ())
    if message.is_container:
        return _compile_container(message, plan, notes)
    sound = usable(message, notes)
    selected, parents = _selected(sound)
    reached = {id(signal) for signal in selected}
    notes += [
        f"{place_of(signal)}{message.name}.{signal.name}: no multiplexer value selects the signal, so it is left out; "
        "correct its multiplexing in the database"
        for signal in sound
        if id(signal) not in reached
    ]
    # Multiplexers have unique names here (see _selected), but other signals may share a name.
    index = {signal.name: selected.index(signal) for signal in parents}
    signals = tuple(_compile_signal(signal, index) for signal in selected)
    multiplexers = [_compile_multiplexer(index[parent.name], parent, signals) for parent in parents]
    return replace(plan, signals=signals, multiplexers=tuple(m for m in multiplexers if m.numbers))


def _compile_container(container: "AnyMessage", plan: MessagePlan, notes: list[str]) -> MessagePlan:
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


def _selected(signals: "Sequence[AnySignal]") -> "tuple[list[AnySignal], list[AnySignal]]":
    """Return two lists: the signals that some frame holds, and the multiplexers among these signals.

    The first list keeps the given order.  In the second list, a multiplexer comes before the multiplexers that it
    selects.
    """
    parents: list[AnySignal] = []
    reached: set[int] = set()
    fringe: list[AnySignal | None] = [None]
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


def _compile_signal(signal: "AnySignal", index: Mapping[str, int]) -> SignalPlan:
    conversion = signal.conversion
    kind = Kind.INT if signal.is_signed else Kind.UINT
    if conversion.is_float:
        kind = FLOAT_OF_BITS[signal.length]
    scale, offset = float(conversion.scale), float(conversion.offset)
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
        **_limits(signal),
        multiplexer=None if selector is None else index[selector],
        multiplexer_ids=() if selector is None else tuple(sorted(set(signal.multiplexer_ids or ()))),
    )


def _limits(signal: "AnySignal") -> dict[str, float | None]:
    """Return the limits of the physical value.  Editors of databases write [0|0] where there are none."""
    limits = [
        None if limit is None or math.isnan(limit) else float(limit) for limit in (signal.minimum, signal.maximum)
    ]
    if limits == [0, 0]:
        limits = [None, None]
    return {"minimum": limits[0], "maximum": limits[1]}


def _compile_multiplexer(index: int, signal: "AnySignal", signals: Sequence[SignalPlan]) -> MultiplexerPlan:
    choices = dict(signal.conversion.choices or {})
    # A number that only the value table lists selects no signal, but it is a known number.
    numbers = {int(number) for number in choices}
    numbers.update(number for other in signals if other.multiplexer == index for number in other.multiplexer_ids)
    # If the value table has a text for a number, cantools selects by the text.  Numbers that share a text therefore
    # all select the signals of the last such number.
    number_of_text = {str(text): int(number) for number, text in choices.items()}
    named = {int(raw): number_of_text[str(text)] for raw, text in choices.items()}
    scale, offset = signal.conversion.scale, signal.conversion.offset
    if scale == 1 and offset == 0 and not signal.conversion.is_float:
        named = {raw: number for raw, number in named.items() if raw != number}
    return MultiplexerPlan(index, tuple(sorted(numbers)), named, scale, offset)
