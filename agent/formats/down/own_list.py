"""Describe the documents that are for one vehicle only, in a list of its own.  Pure.

The list of targets that all vehicles read has no room for documents of thousands of vehicles.  Each such vehicle has a
list, which is a TUF target of the path that `list_path` returns.  These targets lie in hash bins (TAP 15): the hash of
the path gives the bin, which is a delegated TUF role, so a vehicle fetches only the bin with its own list.

    {"targets": {"campaigns/brake-test.json": {"hashes": {"sha256": "9b2c..."}, "length": 812, "custom": {...}}}}

An entry of the list is written as an entry of TUF's targets, and obeys the same rules.  A document in the list takes
the place of a document with the same path that is for all vehicles.  All documents in a list travel in chunks.

Invariant: no bin names a vehicle.  The path has a hash in place of the pseudonym, and a stranger cannot guess the
pseudonym, because it is random.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from agent.errors import Untrusted

BIN_BITS: Final = 11
"""The number of bins is 2 to the power of this.

A fleet of 34 million vehicles in which 1 % have a list then has some 170 lists in each bin.  A vehicle downloads its
bin and the versions of all bins, which are in the snapshot.  More bins make the first smaller, and the second larger;
`make bins` measures both.  Vehicles refuse a snapshot without a bin that they have seen, so the number never changes.
"""
BIN_PREFIX: Final = "bin"
BIN_NAME: Final = "x-bin"
"""The name of the field that we add to a signed bin: the name of its role.

TUF's metadata does not name its role, and the snapshot has no hashes of bins, which would double its size.  Without
this field, a broker could pass off another bin of the same version as the vehicle's own.
"""
LIST_BYTES: Final = 20_000
LIST_DOCUMENTS: Final = 64
"""The limits of one list."""
_HASH_DIGITS: Final = 32


class _List(msgspec.Struct, forbid_unknown_fields=True):
    targets: Annotated[dict[str, dict[str, Any]], msgspec.Meta(max_length=LIST_DOCUMENTS)]


def list_path(vehicle: str) -> str:
    """Return the path of the TUF target that is the list of `vehicle`."""
    return f"vehicles/{hashlib.sha256(vehicle.encode()).hexdigest()[:_HASH_DIGITS]}.json"


def build_list(targets: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the list with the `targets`, which are in TUF's form, by path.  Equal targets give equal bytes."""
    return msgspec.json.encode({"targets": dict(targets)}, order="deterministic")


def parse_list(content: bytes) -> dict[str, dict[str, Any]]:
    """Return the targets in a list, by path.  Raises: Untrusted if the list is malformed or exceeds a limit."""
    if len(content) > LIST_BYTES:
        raise Untrusted(f"The list has {len(content)} bytes; at most {LIST_BYTES} are allowed.")
    try:
        return msgspec.json.decode(content, type=_List).targets
    except (msgspec.DecodeError, RecursionError) as error:
        raise Untrusted(f"The list of a vehicle's own documents is malformed: {error}.") from error
