"""Loads KCD databases with cantools, and corrects or reports what cantools silently ignores.  Pure.

The document is corrected before cantools reads it:

- A `LabelGroup` gives one text to a range of values.  cantools ignores it, so it becomes a `Label` for each value.
- A message with an identifier of more than 11 bits is read as an extended one, even if its `format` does not say so.
- A `single` signal that is not 32 bits long, or a `double` signal that is not 64 bits long, is left out, because its
  type and its length contradict each other.
- A message, signal or label is left out if its name, identifier, offset, length, scaling or value is missing or
  malformed.  cantools would refuse the whole file.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import cantools.database
from cantools.database.can import Database

from can_dbc.noted import NotedDatabase

_FLOAT_BITS: Final = {"single": 32, "double": 64}
_STANDARD_IDS: Final = 1 << 11
_MOST_LABELS: Final = 4096
"""The most values that the texts of one signal may list.  The limit bounds the catalogue, which carries all texts."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}(\.0*)?")


def parse(text: str) -> NotedDatabase:
    """Return the database in `text`.

    Raises: ElementTree.ParseError if the text is not XML, UnsupportedDatabaseFormatError if cantools refuses it.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - expat refuses entity bombs, and resolves no external entities
    notes: list[str] = []
    for bus in root:
        if _tag(bus) == "Bus":
            _keep(bus, "Message", partial(_correct_message, bus.get("name", "?"), notes), notes)
    database = cantools.database.load_string(ElementTree.tostring(root, "unicode"), "kcd", strict=False)
    assert isinstance(database, Database)
    return NotedDatabase(database.messages, database.buses, notes)


def _correct_message(bus: str, notes: list[str], message: Element) -> str | None:
    """Correct `message`, and return why it must be left out, or None."""
    name = message.get("name")
    try:
        identifier = int(message.get("id", ""), 0)
    except ValueError:
        identifier = -1
    if not name or identifier < 0:
        return f"{bus}.{name or '?'}: the message is left out, because it has no name or no identifier; add them"
    if identifier >= _STANDARD_IDS and message.get("format") != "extended":
        message.set("format", "extended")
        notes.append(
            f"{name}: the identifier {identifier:#x} has more than 11 bits, so it is read as an extended one; "
            'write format="extended"'
        )
    if not re.fullmatch("auto|[0-9]{1,5}", message.get("length", "auto")):
        return f"{name}: the message is left out, because its length is {message.get('length')!r}; correct it"
    _keep(message, "Signal", partial(_correct_signal, name, notes), notes)
    for multiplex in list(message):
        if _tag(multiplex) == "Multiplex":
            wrong = _correct_signal(name, notes, multiplex)
            if wrong is not None:
                notes.append(wrong + "; the signals that it selects are left out as well")
                message.remove(multiplex)
                continue
            _keep(multiplex, "MuxGroup", partial(_correct_group, name, notes), notes)
    return None


def _correct_group(message: str, notes: list[str], group: Element) -> str | None:
    if not _WHOLE.fullmatch(group.get("count", "")):
        return f"{message}: a MuxGroup is left out, because its count is {group.get('count')!r}; write a whole number"
    group.set("count", str(_whole(group.get("count", ""))))
    _keep(group, "Signal", partial(_correct_signal, message, notes), notes)
    return None


def _correct_signal(message: str, notes: list[str], signal: Element) -> str | None:
    """Correct `signal`, and return why it must be left out, or None."""
    named = f"{message}.{signal.get('name') or '?'}"
    offset, length = signal.get("offset", ""), signal.get("length", "1")
    if not signal.get("name") or not re.fullmatch("[0-9]{1,6}", offset) or not re.fullmatch("[0-9]{1,6}", length):
        return f"{named}: the signal is left out, because its name, offset or length is missing or wrong; correct them"
    for child in signal:
        if _tag(child) == "Value":
            kind = child.get("type", "unsigned")
            if _FLOAT_BITS.get(kind, int(length)) != int(length):
                return (
                    f"{named}: the signal is left out, because it is of type {kind} but has {length} bits; "
                    f"give it {_FLOAT_BITS[kind]} bits or another type"
                )
            for key in ("slope", "intercept"):
                try:
                    float(child.get(key, "0"))
                except ValueError:
                    return f"{named}: the signal is left out, because its {key} is {child.get(key)!r}; write a number"
            for key in ("min", "max"):  # These limits change no value, so a wrong one is removed.
                try:
                    float(child.get(key, "0"))
                except ValueError:
                    del child.attrib[key]
        elif _tag(child) == "LabelSet":
            _spread_groups(named, child, notes)
    return None


def _spread_groups(signal: str, labels: Element, notes: list[str]) -> None:
    """Replace each LabelGroup by a Label for each of its values, and remove labels without value or name."""
    texts: dict[int, str] = {}
    for label in list(labels):
        labels.remove(label)
        single = _tag(label) == "Label"
        first, last = (label.get(key, "") for key in (("value", "value") if single else ("from", "to")))
        name = label.get("name")
        if _tag(label) not in ("Label", "LabelGroup"):
            continue
        if not (name and _WHOLE.fullmatch(first) and _WHOLE.fullmatch(last)):
            notes.append(
                f"{signal}: the text {name!r} is left out, because its value is not a whole number; correct it"
            )
            continue
        values = range(_whole(first), _whole(last) + 1)
        if len(texts) + len(values) > _MOST_LABELS:
            notes.append(
                f"{signal}: the text {name!r} is left out, because the texts would list more than {_MOST_LABELS} values"
            )
            continue
        for value in values:
            if texts.setdefault(value, name) != name:
                notes.append(f"{signal}: the value {value} has the texts {texts[value]!r} and {name!r}; use one")
    for value, name in texts.items():
        ElementTree.SubElement(labels, labels.tag.replace("LabelSet", "Label"), name=name, value=str(value))


def _keep(parent: Element, tag: str, correct: Callable[[Element], str | None], notes: list[str]) -> None:
    """Correct each child of `parent` that has this tag, and remove it if `correct` says why it must be left out."""
    for child in list(parent):
        if _tag(child) == tag and (wrong := correct(child)) is not None:
            notes.append(wrong)
            parent.remove(child)


def _whole(text: str) -> int:
    return int(text.partition(".")[0])


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]
