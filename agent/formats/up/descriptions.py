"""Write and read descriptions of signals as columns: the SignalTable of telemetry.proto.  Pure.

A bus, a type (unit, kind, bits, scale, offset) or a value table is written once, even if several signals share it.  The
message part of a name is written once for consecutive signals of one message.

Invariant: equal descriptions give equal bytes, and reading returns exactly the descriptions that were written.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import Described, SignalInfo
from agent.formats.up.delta import SIGNED, MalformedError
from agent.formats.up.limits import (
    MAX_EDGE_CHARS,
    MAX_LABEL_CHARS,
    MAX_NAME_CHARS,
    MAX_SIGNALS,
    MAX_TABLE_ENTRIES,
)
from can_dbc.values import Kind

_KINDS: Final = frozenset(int(kind) for kind in Kind)

_Type = tuple[str | None, Kind, int, float, float]


def wraps_of(signals: Iterable[SignalInfo]) -> NDArray[np.uint8]:
    """Return the wrap of each signal (see `delta`): its number of bits, with SIGNED set if the signal is signed."""
    return np.array([info.bits | (SIGNED if info.kind is Kind.INT else 0) for info in signals], np.uint8)


def write_table(described: Sequence[Described]) -> pb.SignalTable:
    """Return a SignalTable with the descriptions.

    Raises: ValueError if `read_table` could not read a name back, or if there are more than MAX_SIGNALS signals.
    """
    strings: dict[str, int] = {"": 0}
    buses = [strings.setdefault(signal.bus, len(strings)) for signal, _ in described]
    patterns = _patterns([(signal.scale, signal.offset) for signal, _ in described])
    types: dict[tuple[str | None, Kind, int, int, int], int] = {}
    type_of = [
        types.setdefault((signal.unit, signal.kind, signal.bits, scale, offset), len(types))
        for (signal, _), (scale, offset) in zip(described, patterns, strict=True)
    ]
    tables: dict[tuple[tuple[int, str], ...], int] = {(): 0}
    text_of = [tables.setdefault(tuple(sorted(texts.items())), len(tables)) for _, texts in described]
    return pb.SignalTable(
        names=_join_names([signal.name for signal, _ in described]),
        buses=buses,
        types=type_of,
        units=[strings.setdefault(unit or "", len(strings)) for unit, *_ in types],
        kinds=bytes(kind for _, kind, *_ in types),
        bits=bytes(bits for _, _, bits, *_ in types),
        scales=_split_bytes([scale for *_, scale, _ in types]),
        offsets=_split_bytes([offset for *_, offset in types]),
        texts=text_of,
        text_counts=[len(table) for table in tables],
        text_raws=[raw for table in tables for raw, _ in table],
        text_values=[strings.setdefault(text, len(strings)) for table in tables for _, text in table],
        strings=list(strings),
    )


def read_table(table: pb.SignalTable) -> list[Described]:
    """Return the descriptions in a SignalTable.

    Raises: MalformedError if the table contradicts itself, or exceeds the limits.
    """
    _check_limits(table)
    names, strings = _split_names(table.names), list(table.strings)
    types, tables = _read_types(table, strings), _read_texts(table, strings)
    if not len(names) == len(table.buses) == len(table.types) == len(table.texts):
        raise MalformedError("the lists of signal names, buses, types and texts differ in length")
    _check_indices(table.buses, strings)
    _check_labels([strings[bus] for bus in table.buses])
    _check_indices(table.types, types)
    _check_indices(table.texts, tables)
    return [
        (SignalInfo(name, strings[bus], *types[number]), tables[texts])
        for name, bus, number, texts in zip(names, table.buses, table.types, table.texts, strict=True)
    ]


def _join_names(names: Sequence[str]) -> str:
    if len(names) > MAX_SIGNALS:
        raise ValueError(f"The window has {len(names)} signals; a batch holds at most {MAX_SIGNALS}.")
    short = []
    previous = None
    for name in names:
        owner, last = _owner_and_last(name)
        short.append(last if owner == previous and last is not name else name)
        previous = owner
    return "\n".join(short)


@lru_cache(maxsize=8_192)
def _owner_and_last(name: str) -> tuple[str, str]:
    """Split a name before its last dot, so that `Message.Signal` becomes `Message` and `.Signal`.

    For a name without a dot, return an empty string and the name.

    Raises: ValueError if `read_table` could not read the name back, for example because it has a line break.
    """
    if "\n" in name or name.startswith(".") or not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(
            f"The signal name {name!r} is empty, has more than {MAX_NAME_CHARS} characters, begins with a dot, or has "
            "a line break."
        )
    owner, dot, last = name.rpartition(".")
    return owner, dot + last if dot else name


def _split_names(joined: str) -> list[str]:
    if joined.count("\n") >= MAX_SIGNALS:
        raise MalformedError(f"it describes more than {MAX_SIGNALS} signals")
    names = []
    owner = ""
    for short in joined.split("\n") if joined else ():
        name = owner + short if short.startswith(".") else short
        owner = name.rpartition(".")[0]
        if len(name) > MAX_NAME_CHARS or name.startswith("."):
            raise MalformedError("a signal name is too long, or the first name of the list is abbreviated")
        names.append(name)
    return names


def _read_types(table: pb.SignalTable, strings: Sequence[str]) -> list[_Type]:
    scales, offsets = _join_bytes(table.scales), _join_bytes(table.offsets)
    if not len(table.units) == len(table.kinds) == len(table.bits) == len(scales) == len(offsets):
        raise MalformedError("the numbers of units, kinds, bits, scales and offsets of signal types differ")
    if not _KINDS.issuperset(table.kinds) or any(not 1 <= bits <= 64 for bits in table.bits):
        raise MalformedError("a signal type has an unknown kind, or does not have 1 to 64 bits")
    _check_indices(table.units, strings)
    units = [strings[unit] or None for unit in table.units]
    _check_labels([unit for unit in units if unit is not None])
    return list(zip(units, map(Kind, table.kinds), table.bits, scales, offsets, strict=True))


def _read_texts(table: pb.SignalTable, strings: Sequence[str]) -> list[Mapping[int, str]]:
    if not len(table.text_raws) == len(table.text_values) == sum(table.text_counts):
        raise MalformedError("the number of texts does not match their counts")
    _check_indices(table.text_values, strings)
    entries = zip(table.text_raws, (strings[value] for value in table.text_values), strict=True)
    return [dict(islice(entries, count)) for count in table.text_counts]


def _check_limits(table: pb.SignalTable) -> None:
    """Check how much memory the table would take.  Raises: MalformedError."""
    if max(len(table.types), len(table.units), len(table.text_counts) - 1) > MAX_SIGNALS:
        raise MalformedError(f"it has more than {MAX_SIGNALS} signals, signal types or value tables")
    if max(len(table.strings), len(table.text_raws)) > MAX_TABLE_ENTRIES:
        raise MalformedError(f"its value tables have more than {MAX_TABLE_ENTRIES} entries")
    if any(len(text) > MAX_EDGE_CHARS for text in table.strings):
        raise MalformedError(f"a text has more than {MAX_EDGE_CHARS} characters")


def _check_labels(texts: Sequence[str]) -> None:
    if any(len(text) > MAX_LABEL_CHARS for text in texts):
        raise MalformedError(f"a bus or a unit has more than {MAX_LABEL_CHARS} characters")


def _check_indices(indices: Sequence[int], entries: Sequence[object]) -> None:
    if len(indices) and max(indices) >= len(entries):
        raise MalformedError("an index refers to an entry that does not exist")


def _patterns(pairs: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return the floats of each pair as bit patterns, so that 0.0 differs from -0.0 and a NaN is equal to itself."""
    bits = np.array(pairs, np.float64).reshape(-1, 2).view(np.int64)
    return [(first, second) for first, second in bits.tolist()]


def _split_bytes(bits: Sequence[int]) -> bytes:
    """Return the bytes of float64 bit patterns: all first bytes, then all second bytes, and so on."""
    return np.array(bits, "<i8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _join_bytes(planes: bytes) -> list[float]:
    """Return the float64 numbers that `_split_bytes` wrote.  Raises: MalformedError if the length is wrong."""
    if len(planes) % 8:
        raise MalformedError("the length of the scales or offsets is not a multiple of 8 bytes")
    numbers: list[float] = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<f8").ravel().tolist()
    return numbers
