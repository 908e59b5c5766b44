"""Catalogues: what one revision of a campaign may collect on a vehicle, described once for many batches.  Pure.

A catalogue follows from campaign and databases alone, never from what a window happens to hold; equal ones have equal
bytes, and the digest of the bytes names them.  A batch refers to it by digest and signal numbers, but only after the
receiver has acknowledged the batch that carried it (agent.telemetry.outbox.references).

Invariant: a digest stands for one content for ever; what is read under a digest was checked against it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import ColumnGroup, SignalInfo, TableTexts, different, texts_of
from agent.formats.up.delta import MalformedError
from agent.formats.up.descriptions import Described, read_table, wraps_of, write_table
from agent.formats.up.layout import Layout, referring

DIGEST_BYTES: Final = 16  # no one gains by a collision: a vehicle's catalogues describe its own batches only
MAX_CATALOGUE_BYTES: Final = 1024 * 1024  # serialised; a Mustang's 786 signals take 30 KB
_DOMAIN: Final = b"hu/v1/catalogue\0"
_KNOWN_TUPLES: Final = 4_096
_LAYOUTS: Final = 64  # of windows in which this message is missing, or that; some 4 KB each
_NO_TEXTS: Final[Mapping[int, str]] = {}


_Known = tuple[tuple[SignalInfo, ...], tuple[Mapping[int, str], ...], NDArray[np.int64]]


class UnknownCatalogue(Exception):
    """A batch refers to a catalogue that is not here: it can be read once the catalogue has come."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(f"batch refers to catalogue {digest.hex()}, which is not here")
        self.digest = digest


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """`content` is the serialised message that `digest` names; `described` its entries, in order.

    `wraps` (entries,): what each signal's values wrap at, see `delta`.
    """

    digest: bytes
    content: bytes
    campaign: str
    revision: str
    described: tuple[Described, ...]
    wraps: NDArray[np.uint8]
    _numbers: Mapping[tuple[object, ...], int]
    _known: dict[tuple[int, int], _Known] = field(default_factory=dict)
    _layouts: dict[tuple[int | None, ...], tuple[object, Layout]] = field(default_factory=dict)

    def layout(self, groups: Sequence[ColumnGroup]) -> Layout:
        """How a batch of `groups` refers to the entries, and what it describes itself.

        Of whole value tables that are all here the answer is remembered, by the identity of the tuples: policy gives
        the same each time.
        """
        texts = [group.texts for group in groups]
        tables = [has.tables for has in texts if isinstance(has, TableTexts)]
        if len(tables) < len(texts):
            return self._layout(groups)
        signals = [group.signals for group in groups]
        key = (*map(id, signals), *map(id, tables), *[group.source_address for group in groups])
        held = self._layouts.get(key)
        if held is not None:
            return held[1]
        layout = self._layout(groups)
        if not layout.described:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = (signals, tables), layout  # holding the tuples keeps their ids their own
        return layout

    def _layout(self, groups: Sequence[ColumnGroup]) -> Layout:
        numbers = np.concatenate([self.numbers(group) for group in groups])
        missing = np.flatnonzero(numbers < 0)
        numbers[missing] = len(self.described) + np.arange(len(missing))
        entries = [(group, row) for group in groups for row in range(len(group.signals))] if len(missing) else []
        chosen = [entries[place] for place in missing.tolist()]
        described = [(group.signals[row], group.texts[row]) for group, row in chosen]
        wraps = np.concatenate((self.wraps, wraps_of(signal for signal, _ in described)))[numbers]
        return referring(groups, numbers, wraps, described)

    def numbers(self, group: ColumnGroup) -> NDArray[np.int64]:
        """The number of the entry that describes each signal just as `group` does, -1 where none does (S,).

        Of whole value tables the answer is remembered, by the identity of the tuples: policy gives the same each time.
        """
        texts = group.texts
        if not isinstance(texts, TableTexts):
            found = [self._numbers.get(_key(signal), -1) for signal in group.signals]
            return np.array(
                [
                    n if n >= 0 and self.texts(n, raw) == has else -1
                    for n, has, raw in zip(found, texts, group.raw, strict=True)
                ],
                np.int64,
            )
        key = id(group.signals), id(texts.tables)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _KNOWN_TUPLES:
                self._known.clear()
            numbers = [self._number(signal, table) for signal, table in zip(group.signals, texts.tables, strict=True)]
            # Holding the tuples keeps their ids their own.
            known = self._known[key] = group.signals, texts.tables, np.array(numbers, np.int64)
        return known[2]

    def _number(self, signal: SignalInfo, table: Mapping[int, str]) -> int:
        number = self._numbers.get(_key(signal), -1)
        return number if number >= 0 and self.described[number][1] == table else -1

    def texts(self, number: int, raw: NDArray[np.int64]) -> Mapping[int, str]:
        """The texts that entry `number` has for the values in `raw`."""
        info, table = self.described[number]
        return texts_of(info.kind, table, different(raw)) if table else _NO_TEXTS


def catalogue_of(campaign: str, revision: str, described: Sequence[Described]) -> Catalogue:
    """The catalogue of one revision of a campaign.

    Of several entries that describe one signal alike the first is kept; where only their value tables differ, none
    is: nothing in a batch could tell them apart.  Raises ValueError for a name that cannot be written.  Whether it is
    within MAX_CATALOGUE_BYTES is for the caller to see.
    """
    tables: dict[tuple[object, ...], Described | None] = {}
    for info, texts in described:
        first = tables.setdefault(_key(info), (info, texts))
        if first is not None and dict(first[1]) != dict(texts):
            tables[_key(info)] = None
    entries = tuple(entry for entry in tables.values() if entry is not None)
    message = pb.Catalogue(campaign=campaign, revision=revision, signals=write_table(entries))
    return _catalogue(message.SerializeToString(deterministic=True), campaign, revision, entries)


def read_catalogue(content: bytes) -> Catalogue:
    """Raises MalformedError."""
    if len(content) > MAX_CATALOGUE_BYTES:
        raise MalformedError(f"catalogue of {len(content)} bytes exceeds {MAX_CATALOGUE_BYTES}")
    message = pb.Catalogue()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise MalformedError("catalogue is not a protobuf message of ours") from error
    return _catalogue(content, message.campaign, message.revision, tuple(read_table(message.signals)))


def _catalogue(content: bytes, campaign: str, revision: str, described: tuple[Described, ...]) -> Catalogue:
    digest = hashlib.sha256(_DOMAIN + content).digest()[:DIGEST_BYTES]
    numbers = {_key(info): number for number, (info, _) in enumerate(described)}
    return Catalogue(digest, content, campaign, revision, described, wraps_of(info for info, _ in described), numbers)


def _key(info: SignalInfo) -> tuple[object, ...]:
    """Tells apart what equality of floats does not (0.0 and -0.0)."""
    return info.name, info.bus, info.unit, info.kind, info.bits, info.scale.hex(), info.offset.hex()
