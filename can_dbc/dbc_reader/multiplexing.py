"""Finds out which multiplexer selects each signal of a message, and by which numbers.  Pure.

A DBC says this in two ways.  The marker of a signal (m7) has one number, and does not name the multiplexer.  An entry
SG_MUL_VAL_ names the multiplexer and has ranges of numbers, and it takes precedence.  Both ways use the short names of
signals.  A marker without an entry has one meaning only if the message has one multiplexer that can be meant (Vector,
AN-ION-1-0521: a message with several multiplexers needs SG_MUL_VAL_ entries).

If it is not clear what selects a signal, the signal is left out, with a note.  Its values would otherwise come from
frames that do not hold the signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from can_dbc.dbc_reader.entries import SignalEntry
from can_dbc.dbc_reader.notes import Notes

# The decoder keeps a table with a column for each number of a multiplexer.  No real multiplexer has more than 16 bits.
MOST_NUMBERS: Final = 65_536
_MOST_OF_MESSAGE: Final = 131_072


@dataclass(frozen=True, slots=True)
class Selection:
    """An SG_MUL_VAL_ entry: the signal `name` is selected by the multiplexer `by` and the numbers in `ranges`."""

    name: str
    by: str
    ranges: tuple[tuple[int, int], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Selected:
    """Says what selects a signal.  If `by` is None, the signal is in every frame of its message."""

    signal: SignalEntry
    by: SignalEntry | None = None
    numbers: tuple[int, ...] = ()


def selected(message: str, signals: Sequence[SignalEntry], table: Sequence[Selection], notes: Notes) -> list[Selected]:
    """Return the signals of a message with what selects them, and add to `notes` those that are left out."""
    by_name: dict[str, list[SignalEntry]] = {}
    for signal in signals:
        by_name.setdefault(signal.name, []).append(signal)
    entries: dict[str, list[Selection]] = {}
    for entry in table:
        if entry.name not in by_name or entry.by not in by_name:
            unknown = entry.name if entry.name not in by_name else entry.by
            notes.add(
                entry.line, f"SG_MUL_VAL_ of the signal {unknown}, which the message does not have, is ignored", message
            )
        else:
            entries.setdefault(entry.name, []).append(entry)
    named = {entry.by for listed in entries.values() for entry in listed}
    multiplexers = [signal for signal in signals if signal.selects or signal.name in named]
    found, left = [], _MOST_OF_MESSAGE
    for signal in signals:
        listed = entries.get(signal.name, [])
        one = _by_table(signal, listed, by_name) if listed else _by_marker(signal, multiplexers)
        name = f"{message}.{signal.name}"
        if isinstance(one, str):
            notes.add(signal.line, one, name)
            continue
        left -= len(one.numbers)
        if left < 0:
            notes.add(
                signal.line, f"the message has more than {_MOST_OF_MESSAGE} multiplexer numbers; {_LEFT_OUT}", name
            )
            continue
        if listed and not signal.marker:
            notes.add(signal.line, "the signal has no m in SG_, but SG_MUL_VAL_ selects it, so it is multiplexed", name)
        elif listed and len(by_name[signal.name]) == 1 and signal.number not in (None, *one.numbers):
            notes.add(signal.line, "the number after m is not in SG_MUL_VAL_, which takes precedence", name)
        found.append(one)
    return found


_LEFT_OUT: Final = "the signal is left out"


def _by_table(
    signal: SignalEntry, listed: Sequence[Selection], by_name: Mapping[str, Sequence[SignalEntry]]
) -> Selected | str:
    parents = {entry.by for entry in listed}
    if len(parents) > 1 or len(by_name[listed[0].by]) > 1:
        return f"SG_MUL_VAL_ names several multiplexers, so it is not clear which one selects the signal; {_LEFT_OUT}"
    parent = by_name[listed[0].by][0]
    if parent is signal:
        return f"SG_MUL_VAL_ lets the signal select itself; {_LEFT_OUT}: name another multiplexer"
    if len(by_name[signal.name]) > 1 and signal.number is not None:
        # An entry cannot say which of several signals with one name it means.  Their markers can tell them apart.
        return Selected(signal, parent, (signal.number,))
    if any(last - first >= MOST_NUMBERS for entry in listed for first, last in entry.ranges):
        return f"SG_MUL_VAL_ has a range of more than {MOST_NUMBERS} numbers; {_LEFT_OUT}: narrow the range"
    numbers = {number for entry in listed for first, last in entry.ranges for number in range(first, last + 1)}
    return Selected(signal, parent, tuple(sorted(numbers)))


def _by_marker(signal: SignalEntry, multiplexers: Sequence[SignalEntry]) -> Selected | str:
    number = signal.number
    if number is None:
        return Selected(signal)
    parents = [multiplexer for multiplexer in multiplexers if multiplexer is not signal]
    if len(parents) == 1:
        return Selected(signal, parents[0], (number,))
    if not parents:
        return f"no signal of the message is a multiplexer (M), so nothing selects the signal; {_LEFT_OUT}"
    names = " or ".join(dict.fromkeys(parent.name for parent in parents))
    return (
        f"it is not clear whether {names} selects the signal; {_LEFT_OUT}: "
        "add an SG_MUL_VAL_ entry that names the multiplexer"
    )
