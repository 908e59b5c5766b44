"""Makes the description of a DBC from all of its entries, which may refer to each other in any order.  Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from can_dbc.dbc_reader.entries import MessageEntry, SignalEntry
from can_dbc.dbc_reader.multiplexing import Selected, Selection, selected
from can_dbc.dbc_reader.notes import Notes
from can_dbc.description import Conversion, Description, Message, Signal

INDEPENDENT_SIGNALS: Final = "VECTOR__INDEPENDENT_SIG_MSG"
"""The pseudo-message in which Vector's tools keep signals that belong to no message."""
_EXTENDED: Final = 1 << 31  # This bit of an identifier says that it has 29 bits.
_FLOAT_BITS: Final = {1: 32, 2: 64}  # by the number in SIG_VALTYPE_
_SignalKey = tuple[int, str]


@dataclass(slots=True)
class Draft:
    """A message with the signals that were read so far; `entry` is None if the message is left out."""

    entry: MessageEntry | None
    line: int
    signals: list[SignalEntry] = field(default_factory=list)


@dataclass(slots=True)
class Entries:
    """Holds what was read from a file.  The keys have the identifier and short name of a signal as the file has them.

    `texts` and `types` (number in SIG_VALTYPE_) have the line of the entry beside the value.  In `long_names`, the name
    None stands for the message itself.  `used_attributes` are the attributes to which the file gives values, with the
    line.  `doubtful_names` are the keys of `long_names` to which the file gives several names.
    """

    messages: list[Draft] = field(default_factory=list)
    texts: dict[_SignalKey, tuple[dict[int, str], int]] = field(default_factory=dict)
    types: dict[_SignalKey, tuple[int, int]] = field(default_factory=dict)
    selections: dict[int, list[Selection]] = field(default_factory=dict)
    long_names: dict[tuple[int, str | None], str] = field(default_factory=dict)
    doubtful_names: set[tuple[int, str | None]] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    used_attributes: list[tuple[str, int]] = field(default_factory=list)


def described(found: Entries, notes: Notes, source: str) -> Description:
    """Return the messages of a file, and add to `notes` the entries that contradict each other or refer to nothing."""
    messages = [
        _message(draft, draft.entry, found, notes, source)
        for draft in found.messages
        if draft.entry is not None and draft.entry.name != INDEPENDENT_SIGNALS
    ]
    _note_unused(found, notes)
    return Description(tuple(messages), notes.texts())


def _message(draft: Draft, entry: MessageEntry, found: Entries, notes: Notes, source: str) -> Message:
    signals = selected(entry.name, draft.signals, found.selections.get(entry.can_id, ()), notes)
    names = _names(entry, signals, found, notes)
    multiplexers = {id(one.by) for one in signals}
    made = []
    for one in signals:
        signal, by = one.signal, one.by
        texts, _ = found.texts.get((entry.can_id, signal.name), (None, 0))
        kind, line = found.types.get((entry.can_id, signal.name), (0, 0))
        # A signal with any other number of bits is not a float at all, and a note of the compiler says so.
        if _FLOAT_BITS.get(kind, signal.bits) != signal.bits and signal.bits in _FLOAT_BITS.values():
            text = f"SIG_VALTYPE_ means {_FLOAT_BITS[kind]} bits, but the signal has {signal.bits}, which are used"
            notes.add(line, text, f"{entry.name}.{signal.name}")
        made.append(
            Signal(
                name=names[signal.name],
                start=signal.start,
                length=signal.bits,
                byte_order="big_endian" if signal.big_endian else "little_endian",
                is_signed=signal.signed,
                unit=signal.unit or None,
                minimum=signal.minimum,
                maximum=signal.maximum,
                conversion=Conversion(signal.scale, signal.offset, kind in _FLOAT_BITS, texts),
                is_multiplexer=signal.selects or id(signal) in multiplexers,
                multiplexer_signal=None if by is None else names.get(by.name, by.name),
                multiplexer_ids=None if by is None else one.numbers,
                place=f"{source}: line {signal.line}",
            )
        )
    return Message(
        found.long_names.get((entry.can_id, None), entry.name),
        entry.can_id & ~_EXTENDED,
        bool(entry.can_id & _EXTENDED),
        entry.length,
        # Catalogues number signals in the order of their first bits.
        tuple(sorted(made, key=_first_bit)),
        f"{source}: line {draft.line}",
    )


def _first_bit(signal: Signal) -> int:
    start = signal.start
    return 8 * (start // 8) + 7 - start % 8 if signal.byte_order == "big_endian" else start


def _names(entry: MessageEntry, signals: Sequence[Selected], found: Entries, notes: Notes) -> dict[str, str]:
    """Return the name to use for each short name: the long name, if the signal has one that no other signal has."""
    names = {one.signal.name: found.long_names.get((entry.can_id, one.signal.name), one.signal.name) for one in signals}
    bearers, shared = Counter(names.values()), Counter(one.signal.name for one in signals)
    for one in signals:
        short = one.signal.name
        if (entry.can_id, short) in found.doubtful_names or (names[short] != short and shared[short] > 1):
            # A tool cut two long names to the same short name, or the file contradicts itself.
            text = "it is not clear which signal the long name is for, so the short name is used"
        elif names[short] != short and bearers[names[short]] > 1:
            text = "another signal of the message has the same long name, so the short name is used"
        else:
            continue
        notes.add(one.signal.line, text, f"{entry.name}.{short}")
        names[short] = short
    return names


def _note_unused(found: Entries, notes: Notes) -> None:
    messages = {draft.entry.can_id for draft in found.messages if draft.entry is not None}
    signals = {(d.entry.can_id, s.name) for d in found.messages if d.entry is not None for s in d.signals}
    for keyword, lines in (
        ("VAL_", {key: line for key, (_, line) in found.texts.items()}),
        ("SIG_VALTYPE_", {key: line for key, (_, line) in found.types.items()}),
    ):
        for key, line in lines.items():
            if key not in signals:
                text = f"{keyword} of a signal that the file does not have is ignored; delete the entry, or correct it"
                notes.add(line, text, f"{key[0]} {key[1]}")
    for can_id, selections in found.selections.items():
        for selection in selections if can_id not in messages else ():
            text = "SG_MUL_VAL_ of a message that the file does not have is ignored; delete the entry, or correct it"
            notes.add(selection.line, text, f"{can_id} {selection.name}")
    for attribute, line in found.used_attributes:
        if attribute not in found.attributes:
            notes.add(line, "BA_ of an attribute without BA_DEF_ changes no value; define the attribute", attribute)
