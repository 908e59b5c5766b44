"""Catalogues: what one revision of a campaign may collect on a vehicle, described once for many batches.  Pure.

A catalogue follows from campaign and databases alone, never from what a window happens to hold.  Equal catalogues have
equal bytes, and the digest of the bytes names them.  A batch refers to a catalogue by digest and signal numbers, but
only after the receiver has acknowledged the batch that carried it (agent.telemetry.outbox.references).

Signals are numbered once, by the collector of the campaign (agent/telemetry/collect/campaign.py): its list is what the
catalogue is made from, and its column groups carry places in that list, so that no window compares descriptions.

Invariant: a digest stands for one content for ever; what is read under a digest was checked against it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import ColumnGroup, Described, SignalInfo, texts_of
from agent.formats.up.delta import MalformedError
from agent.formats.up.descriptions import read_table, wraps_of, write_table

DIGEST_BYTES: Final = 16  # a collision gains nothing: a vehicle's catalogues describe its own batches only
MAX_CATALOGUE_BYTES: Final = 1024 * 1024  # serialised; a Mustang's 786 signals take 30 KB
_DOMAIN: Final = b"hu/v1/catalogue\0"


class UnknownCatalogue(Exception):
    """A batch refers to a catalogue that is not here: it can be read once the catalogue has come."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(f"batch refers to catalogue {digest.hex()}, which is not here")
        self.digest = digest


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The descriptions that batches of one revision of a campaign may refer to, by their place.

    `content` is the serialised message that `digest` names; `described` holds its entries, in order.  `wraps`
    (entries,) says what each signal's values wrap at, see `delta`.  `listed` (n + 1,) gives the entry of each of the n
    signals that the catalogue was made from, -1 for those that it leaves out; the last element is -1, for signals
    beyond the list.  A catalogue that was read has no list (`listed` is None), since only batches that come in refer
    to it.
    """

    digest: bytes
    content: bytes
    campaign: str
    revision: str
    described: tuple[Described, ...]
    wraps: NDArray[np.uint8]
    listed: NDArray[np.int64] | None
    _numbers: Mapping[tuple[object, ...], int]

    def entries_of(self, groups: Sequence[ColumnGroup]) -> NDArray[np.int64]:
        """Return the number of the entry that describes each signal of `groups`, -1 where none does (S,)."""
        listed = self.listed
        numbered = [group.numbers for group in groups if group.numbers is not None]
        if listed is not None and len(numbered) == len(groups):
            return listed.take(np.concatenate(numbered), mode="clip")
        found = [self._entry(*of_signal) for group in groups for of_signal in _signals_of(group)]
        return np.array(found, np.int64)

    def _entry(self, signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> int:
        """Return the entry with the same description as the signal and the same texts for the values in `raw`."""
        number = self._numbers.get(_key(signal), -1)
        if number < 0 or texts_of(signal, self.described[number][1], raw) != texts_of(signal, table, raw):
            return -1
        return number


def catalogue_of(campaign: str, revision: str, described: Sequence[Described]) -> Catalogue:
    """Make the catalogue of one revision of a campaign from all that it may collect.

    Signals with equal descriptions share the entry of the first.  If only their value tables differ, the catalogue has
    no entry for them, because nothing in a batch could tell them apart.  The caller makes sure that the content is
    within MAX_CATALOGUE_BYTES.  Raises ValueError for a name that cannot be written.
    """
    tables: dict[tuple[object, ...], Described | None] = {}
    keys = [_key(info) for info, _ in described]
    for key, (info, texts) in zip(keys, described, strict=True):
        first = tables.setdefault(key, (info, texts))
        if first is not None and dict(first[1]) != dict(texts):
            tables[key] = None
    entries = tuple(entry for entry in tables.values() if entry is not None)
    message = pb.Catalogue(campaign=campaign, revision=revision, signals=write_table(entries))
    made = _catalogue(message.SerializeToString(deterministic=True), campaign, revision, entries)
    listed = np.array([*(made._numbers.get(key, -1) for key in keys), -1], np.int64)
    return replace(made, listed=listed)


def read_catalogue(content: bytes) -> Catalogue:
    """Read a catalogue as the vehicle serialised it.  Raises MalformedError."""
    if len(content) > MAX_CATALOGUE_BYTES:
        raise MalformedError(f"catalogue of {len(content)} bytes exceeds {MAX_CATALOGUE_BYTES}")
    message = pb.Catalogue()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise MalformedError("catalogue is not a protobuf message of ours") from error
    return _catalogue(content, message.campaign, message.revision, tuple(read_table(message.signals)))


def _catalogue(content: bytes, campaign: str, revision: str, described: tuple[Described, ...]) -> Catalogue:
    return Catalogue(
        digest=hashlib.sha256(_DOMAIN + content).digest()[:DIGEST_BYTES],
        content=content,
        campaign=campaign,
        revision=revision,
        described=described,
        wraps=wraps_of(info for info, _ in described),
        listed=None,
        _numbers={_key(info): number for number, (info, _) in enumerate(described)},
    )


def _key(info: SignalInfo) -> tuple[object, ...]:
    """Return a key that is equal only for identical descriptions; unlike float equality it tells 0.0 from -0.0."""
    return info.name, info.bus, info.unit, info.kind, info.bits, info.scale.hex(), info.offset.hex()


def _signals_of(group: ColumnGroup) -> Iterator[tuple[SignalInfo, Mapping[int, str], NDArray[np.int64]]]:
    return zip(group.signals, group.tables, group.raw, strict=True)
