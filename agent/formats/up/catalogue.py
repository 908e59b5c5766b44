"""A catalogue describes, once for many batches, the signals that a revision of a campaign may collect.  Pure.

A catalogue depends only on the campaign and the databases, and not on the content of a window.  Equal catalogues have
equal bytes, and the digest of the bytes is the name of the catalogue.  A batch names a catalogue by its digest, and the
signals by their numbers in it.  A vehicle refers to a catalogue only after the receiver has acknowledged a batch that
carried the catalogue (agent.telemetry.outbox.references).

The consumer of a campaign (agent/telemetry/collect/campaign.py) lists the signals of the campaign once.  The catalogue
is made from this list.  Column groups carry indices into the list, so the entry of a signal is found without comparing
descriptions.

Invariant: a digest stands for one content for ever, because it is always computed from the bytes of the catalogue.
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

DIGEST_BYTES: Final = 16  # a collision helps no attacker: the catalogues of a vehicle describe only its own batches
MAX_CATALOGUE_BYTES: Final = 1024 * 1024  # size when serialised; the 786 signals of a Mustang take 30 KB
_DOMAIN: Final = b"hu/v1/catalogue\0"


class UnknownCatalogue(Exception):
    """Raised if the catalogue of a batch is missing.  The batch can be read after the catalogue has arrived."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(f"The batch refers to catalogue {digest.hex()}, which is missing; wait until it arrives.")
        self.digest = digest


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Holds the descriptions that batches of one revision of a campaign refer to by number.

    `content` is the serialised message that `digest` names, and `described` has the entries of the catalogue in order.
    `wraps` has the wrap of each entry, see `delta`.

    `listed` (n + 1,) belongs to a catalogue that was made from a list of n signals.  Element i is the number of the
    entry of signal i, or -1 if the catalogue leaves signal i out.  The last element is -1, and serves for every index
    beyond the list.  `listed` is None for a catalogue that was read from bytes, because no batches are written with it.
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
        """Return (S,): for each of the S signals of `groups`, the number of its entry, or -1 if it has no entry."""
        listed = self.listed
        numbered = [group.numbers for group in groups if group.numbers is not None]
        if listed is not None and len(numbered) == len(groups):
            return listed.take(np.concatenate(numbered), mode="clip")
        found = [self._entry(*of_signal) for group in groups for of_signal in _signals_of(group)]
        return np.array(found, np.int64)

    def _entry(self, signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> int:
        """Return the number of the entry that describes `signal`, or -1 if there is none.

        An entry counts only if its value table gives the values in `raw` the same texts as `table` does.
        """
        number = self._numbers.get(_key(signal), -1)
        if number < 0 or texts_of(signal, self.described[number][1], raw) != texts_of(signal, table, raw):
            return -1
        return number


def catalogue_of(campaign: str, revision: str, described: Sequence[Described]) -> Catalogue:
    """Return the catalogue of all signals that one revision of a campaign may collect.

    Signals with equal descriptions and equal value tables share one entry.  Signals with equal descriptions but
    different value tables have no entry, because a reader could not tell them apart.  The caller must check that the
    content is within MAX_CATALOGUE_BYTES.

    Raises: ValueError if the name of a signal cannot be written, or if there are too many signals.
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
    """Return the catalogue with the serialised bytes `content`.  Raises: MalformedError if they are malformed."""
    if len(content) > MAX_CATALOGUE_BYTES:
        raise MalformedError(f"the catalogue has {len(content)} bytes, which exceeds {MAX_CATALOGUE_BYTES}")
    message = pb.Catalogue()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise MalformedError("the catalogue is not a protobuf Catalogue") from error
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
    """Return a key for a description.  Two keys are equal only if the descriptions are identical.

    The key distinguishes 0.0 from -0.0, which are equal as floats.  The value table is not part of the key.
    """
    return info.name, info.bus, info.unit, info.kind, info.bits, info.scale.hex(), info.offset.hex()


def _signals_of(group: ColumnGroup) -> Iterator[tuple[SignalInfo, Mapping[int, str], NDArray[np.int64]]]:
    return zip(group.signals, group.tables, group.raw, strict=True)
