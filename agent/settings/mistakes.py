"""Find the mistakes in `agent.toml`, and turn each message of msgspec into `key: mistake; remedy`.  Pure.

A mistake in how several keys or tables fit together is found only when each of them is right by itself.
"""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Final, Literal, Union, get_args, get_origin

import msgspec

from agent.errors import did_you_mean
from agent.settings.sections import SOURCE_KINDS, BusSettings, DatabaseSettings, Settings, SourceSettings

_SOURCE_KINDS: Final = {
    ("socketcan", "can", "vcan", "slcan", "afpacket"): "for a SocketCAN interface write packet_ring",
    ("pcan", "kvaser", "vector", "ixxat", "udpmulticast", "virtual"): "write python_can, and this word as `interface`",
    ("candump", "asc", "blf", "mf4", "log", "file"): "for a recorded log write replay",
}
"""What to write as the kind of a source in place of a common word (here without blanks, hyphens, underscores)."""


def mistakes(document: Mapping[str, object], first: str) -> list[str]:
    """Return a message in the words of msgspec for every mistake in `document`.

    `first` is the one message that msgspec itself gave, because it stops at the first mistake.
    """
    found = _in_table("", document, Settings)
    for field in msgspec.structs.fields(Settings):
        value = document.get(field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) and isinstance(value, dict):
            found += _in_table(field.name, value, field.type)
    sources, buses = document.get("sources"), document.get("bus")
    for number, table in enumerate(sources if isinstance(sources, list) else ()):
        found += _in_source(f"sources[{number}]", table)
    for name, table in buses.items() if isinstance(buses, dict) else ():
        found += _in_table(f"bus.{name}", table, BusSettings)
    # A mistake that lies between two tables, such as two sources of one bus, shows only in the whole document.
    return found or [first]


def _in_source(where: str, table: object) -> list[str]:
    kinds = {kind.__struct_config__.tag: kind for kind in SOURCE_KINDS}
    name = table.get("kind") if isinstance(table, dict) else None
    kind = kinds.get(name) if isinstance(name, str) else None
    return _in_value(where, table, SourceSettings) if kind is None else _in_table(where, table, kind)


def _in_table(where: str, table: object, kind: type[msgspec.Struct]) -> list[str]:
    """Return the mistakes in the table at `where`, without the mistakes in the tables that it contains."""
    if not isinstance(table, dict):
        return _in_value(where, table, kind)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    found = []
    for key, value in table.items():
        if key not in fields:
            if key != kind.__struct_config__.tag_field:
                found.append(_located(where, f"Object contains unknown field `{key}`"))
        elif where or not isinstance(value, dict | list):
            found += _in_value(_joined(where, key), value, fields[key].type)
    missing = [name for name, field in fields.items() if field.required and name not in table]
    found += [_located(where, f"Object missing required field `{name}`") for name in missing]
    # A section can be checked as a whole only if each of its keys is right.
    return found or (_in_value(where, table, kind) if where else [])


def _in_value(where: str, value: object, kind: object) -> list[str]:
    try:
        msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        return [_located(where + inner.rstrip("`"), what)]
    return []


def _located(where: str, what: str) -> str:
    return f"{what} - at `$.{where}`" if where else what


def explain(message: str, document: Mapping[str, object]) -> str:
    """Return key, mistake and remedy for the `message` of a ValidationError about `document`."""
    # An error of msgspec has no fields, so its text is parsed: "Expected `int` >= 5 - at `$.uplink.keepalive_s`".
    what, _, where = message.partition(" - at `")
    key = where.rstrip("`").removeprefix("$").removeprefix(".")
    if key.startswith("bus[...]"):
        key = key.replace("[...]", f".{_offending_bus(document)}", 1)
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown is not None:
        # All tables of `sources` share one list of keys, and so do all tables of `bus` and all databases of a bus.
        section = "bus.dbc" if re.fullmatch(r"bus\..*\.dbc\[\d+\]", key) else re.sub(r"\[\d+\]|(?<=^bus\.).*", "", key)
        known = _known_keys().get(section, ())
        remedy = did_you_mean(unknown[1], known) or f"the known keys are {', '.join(sorted(known))}"
        return f"{_joined(key, unknown[1])}: there is no such key; {remedy}"
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing is not None:
        return (
            f"{_joined(key, missing[1])}: this key is missing; "
            "the comments of the agent.toml that came with the agent show every key with its unit and default"
        )
    value = _value_at(document, key)
    words = _allowed_words(key)
    if words and what.startswith("Invalid"):
        remedy = _source_kind(value) if re.fullmatch(r"sources\[\d+\]\.kind", key) else ""
        remedy = remedy or (did_you_mean(value, words) if isinstance(value, str) else "")
        return f"{key}: {value!r} is not one of {', '.join(words)}" + (f"; {remedy}" if remedy else "")
    given = f" (given: {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{key}: {what[0].lower()}{what[1:]}{given}" if key else what


def _source_kind(value: object) -> str:
    """Return what to write in place of another word for a kind of source, or "" if the word is not known."""
    word = re.sub(r"[-_ ]", "", str(value).lower())
    return next((remedy for words, remedy in _SOURCE_KINDS.items() if word in words), "")


def _joined(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _allowed_words(key: str) -> tuple[str, ...]:
    """Return the words that `key` accepts, or an empty tuple if `key` does not take one of a fixed set of words."""
    path = re.sub(r"\[\d+\]", "", key).split(".")
    if path == ["sources", "kind"]:
        return tuple(str(kind.__struct_config__.tag) for kind in SOURCE_KINDS)
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)} | {"bus": BusSettings}
    section = sections.get(path[0])
    if not (isinstance(section, type) and issubclass(section, msgspec.Struct)):
        return ()
    found = next((field.type for field in msgspec.structs.fields(section) if field.name == path[-1]), None)
    return _words(found)


def _words(kind: object) -> tuple[str, ...]:
    """Return the words that the type `kind` allows, or an empty tuple if `kind` is not a fixed set of words."""
    if get_origin(kind) is Annotated:
        return _words(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return get_args(kind)
    if kind is bool:
        return ("true", "false")
    if get_origin(kind) in (tuple, Union, UnionType):
        return tuple(word for member in get_args(kind) if member is not Ellipsis for word in _words(member))
    return ()


def _offending_bus(document: Mapping[str, object]) -> str:
    """Return the first bus whose table is wrong, or "*" if no table is wrong.

    The message of msgspec does not name the bus, because it has `[...]` in place of each key of a mapping.
    """
    buses = document.get("bus")
    for name, table in buses.items() if isinstance(buses, dict) else ():
        try:
            msgspec.convert(table, type=BusSettings)
        except msgspec.ValidationError:
            return str(name)
    return "*"


def _value_at(document: object, key: str) -> object:
    for step in re.findall(r"[^.\[\]]+", key):
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def _known_keys() -> dict[str, tuple[str, ...]]:
    """Return the known keys of each section, by the path of the section.

    The path of the whole file is "", the path of every table of `bus` is "bus.", and that of its databases "bus.dbc".
    """
    known: dict[str, tuple[str, ...]] = {"": Settings.__struct_fields__, "bus.": BusSettings.__struct_fields__}
    known["bus.dbc"] = DatabaseSettings.__struct_fields__
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            known[field.name] = field.type.__struct_fields__
    # The message of msgspec does not name the kind of the source, so the keys of all kinds are known here.
    every = [name for kind in SOURCE_KINDS for name in kind.__struct_fields__]
    known["sources"] = tuple(dict.fromkeys(every))
    return known
