"""Reads the text of a DBC.  Pure.

Only what changes values is read: messages, signals, texts of values, types, multiplexing and long names.  Everything
else in the file is skipped, whatever its form.  An entry that cannot be read costs only what it describes:
a text, a signal or a message.  A note names the line of everything that was repaired or left out.
"""

import re
from collections.abc import Callable
from typing import Final

from can_dbc.dbc_reader import entries
from can_dbc.dbc_reader.describing import INDEPENDENT_SIGNALS, Draft, Entries, described
from can_dbc.dbc_reader.entries import MessageEntry
from can_dbc.dbc_reader.multiplexing import Selection
from can_dbc.dbc_reader.notes import Notes
from can_dbc.dbc_reader.statements import UNREADABLE, Statement, statements
from can_dbc.description import Description
from can_dbc.errors import DatabaseError

MOST_BYTES: Final = 65_535
"""The longest message that is read.  No bus carries a longer one, and a wrong number must not exhaust memory."""
_EXTENDED: Final = 1 << 31  # This bit of an identifier says that it has 29 bits.
_ODD_NAME: Final = "the name is not an identifier of the C language; it is used as it is"
_LIKE_A_MESSAGE: Final = re.compile(r"\d+\s+[A-Za-z_]\w*|[A-Za-z_]\w*\s*:\s*\d")
_LIKE_A_SIGNAL: Final = re.compile(r"\d\s*\|\s*\d+\s*@")
_STANDARD_IDS: Final = 1 << 11
_EXTENDED_IDS: Final = 1 << 29


def read(text: str, source: str) -> Description:
    """Return the messages of the DBC `text`; `source` names the file in notes and errors.

    Raises: DatabaseError if the text has no entry of a DBC.
    """
    notes, found = Notes(source), Entries()
    reader = _Reader(found, notes)
    empty = True
    for statement in statements(text.replace("\r\n", "\n").replace("\r", "\n"), notes):
        reader.take(statement)
        empty = empty and statement.keyword == UNREADABLE
    if empty:
        raise DatabaseError(
            f"{source}: line 1: the file has no entry of a DBC; name a DBC file, or export it again with the tool that "
            "made it"
        )
    return described(found, notes, source)


class _Reader:
    """Takes the statements of a file in their order, and adds what they say to `found`."""

    def __init__(self, found: Entries, notes: Notes) -> None:
        self._found, self._notes = found, notes
        self._astray: int | None = None  # the line of what may be a message that cannot be read
        self._take: dict[str, Callable[[Statement], None]] = {
            UNREADABLE: self._unreadable,
            "BO_": self._message,
            "SG_": self._signal,
            "VAL_": self._value_texts,
            "SIG_VALTYPE_": self._float_type,
            "SG_MUL_VAL_": self._selection,
            "BA_DEF_": self._attribute_definition,
            "BA_": self._attribute,
        }

    def take(self, statement: Statement) -> None:
        """Take the next statement of the file."""
        if statement.keyword in self._take:
            self._take[statement.keyword](statement)

    def _unreadable(self, statement: Statement) -> None:
        # Signals after the line need a message.  Before the first message, it can only be this line.
        needed = not self._found.messages or _LIKE_A_MESSAGE.search(statement.body)
        if needed and not _LIKE_A_SIGNAL.search(statement.body):
            self._astray = statement.line

    def _message(self, statement: Statement) -> None:
        self._astray = None
        entry = entries.message(statement.body)
        if entry is None:
            self._notes.add(statement.line, "BO_ cannot be read, so the message is left out; correct the entry")
        elif entry.name != INDEPENDENT_SIGNALS:
            entry = self._sound(entry, statement.line)
        # Even a message that is left out takes the signals that follow it.  They would otherwise go to the one before.
        self._found.messages.append(Draft(entry, statement.line))

    def _sound(self, entry: MessageEntry, line: int) -> MessageEntry | None:
        known = entry.can_id - _EXTENDED < _EXTENDED_IDS if entry.can_id & _EXTENDED else entry.can_id < _STANDARD_IDS
        if not known or entry.can_id >= 2 * _EXTENDED:
            self._notes.add(
                line,
                f"the identifier {entry.can_id} has more than 11 bits (or more than 29 besides bit 31, which marks a "
                "29-bit identifier), so the message is left out; correct the identifier",
                entry.name,
            )
        elif entry.length > MOST_BYTES:
            self._notes.add(
                line, f"the message is longer than {MOST_BYTES} bytes and is left out; correct its length", entry.name
            )
        else:
            if not entry.name.isidentifier():
                self._notes.add(line, _ODD_NAME, entry.name)
            for repair in entry.repairs:
                self._notes.add(line, repair, entry.name)
            return entry
        return None

    def _signal(self, statement: Statement) -> None:
        entry = entries.signal(statement.body, statement.line)
        if self._astray is not None:
            reason = f"it is not clear to which message the signal belongs, because line {self._astray} cannot be read"
            name = "" if entry is None else entry.name
            self._notes.add(statement.line, f"{reason}, so the signal is left out; correct that line", name)
            return
        if not self._found.messages:
            self._notes.add(
                statement.line, "SG_ stands before the first BO_, so the signal is left out; move it below its BO_"
            )
            return
        message = self._found.messages[-1]
        name = "" if message.entry is None else message.entry.name
        if entry is None:
            self._notes.add(statement.line, "SG_ cannot be read, so the signal is left out; correct the entry", name)
            return
        for repair in entry.repairs:
            self._notes.add(statement.line, repair, f"{name}.{entry.name}")
        if not entry.name.isidentifier():
            self._notes.add(statement.line, _ODD_NAME, f"{name}.{entry.name}")
        message.signals.append(entry)

    def _value_texts(self, statement: Statement) -> None:
        if entries.is_of_variable(statement.body):
            return
        found = entries.of_signal(statement.body)
        if found is None:
            self._notes.add(statement.line, "VAL_ cannot be read, so its texts are left out; correct the entry")
            return
        can_id, name, rest = found
        texts, complete = entries.texts_of_values(rest)
        if not complete:
            self._notes.add(
                statement.line,
                "VAL_ has a value that no raw value can have, a value with two texts, or a part that cannot be read; "
                "the rest of the entry is used, and of two texts the last one",
                name,
            )
        if texts:
            if self._found.texts.get((can_id, name), (texts, 0))[0] != texts:
                self._notes.add(statement.line, "the signal has several VAL_ entries; the last one is used", name)
            self._found.texts[can_id, name] = texts, statement.line

    def _float_type(self, statement: Statement) -> None:
        found = entries.of_signal(statement.body)
        kind = None if found is None else entries.float_type(found[2])
        if found is None or kind is None:
            self._notes.add(statement.line, "SIG_VALTYPE_ cannot be read and is ignored; correct the entry")
        else:
            self._found.types[found[0], found[1]] = kind, statement.line

    def _selection(self, statement: Statement) -> None:
        found = entries.of_signal(statement.body)
        chosen = None if found is None else entries.selection(found[2])
        if found is None or chosen is None:
            self._notes.add(statement.line, "SG_MUL_VAL_ cannot be read and is ignored; correct the entry")
        else:
            self._found.selections.setdefault(found[0], []).append(Selection(found[1], *chosen, statement.line))

    def _attribute_definition(self, statement: Statement) -> None:
        self._found.attributes.add(entries.attribute(statement.body))

    def _attribute(self, statement: Statement) -> None:
        if found := entries.long_name(statement.body):
            can_id, name, long = found
            if self._found.long_names.setdefault((can_id, name), long) != long:
                self._found.doubtful_names.add((can_id, name))
        self._found.used_attributes.append((entries.attribute(statement.body), statement.line))
