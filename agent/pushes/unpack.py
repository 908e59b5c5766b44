"""Unpack the release of this vehicle from verified metadata.  This file runs in the verifier process only.

The targets for a vehicle are those in TUF's list of all targets whose audience it matches, and those in its own list
(agent/formats/down/own_list.py).  Numbers such as 5.7 are steps of TUF's client workflow.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from tuf.api.metadata import Snapshot, TargetFile, Targets

from agent.errors import Untrusted
from agent.formats.down.audience import matches
from agent.formats.down.bundle import CONTENT_BYTES, FILES
from agent.formats.down.chunks import DOCUMENT_BYTES, PACKED_BYTES, LargeFile, large_file, unpack
from agent.formats.down.documents import Kind, kind_of
from agent.formats.down.own_list import BIN_NAME, LIST_BYTES, list_path, parse_list
from agent.pushes.release import Question, Reason, Refused, Release
from agent.pushes.updater import BundleFetcher, MemoryUpdater

OWN_LIST = "own_list.json"
"""The name under which the vehicle keeps its own list, beside the trusted metadata."""


def own_bin(updater: MemoryUpdater, vehicle: str) -> str | None:
    """Return the name of the vehicle's bin, or None if the fleet has no list in this bin.

    Both answers are signed: by the delegation in targets, and by the snapshot, which names all bins that exist.
    """
    delegations = cast("Targets", updater.trusted("targets")).delegations
    if delegations is None or delegations.succinct_roles is None:
        return None
    role = delegations.succinct_roles.get_role_for_target(list_path(vehicle))
    return role if f"{role}.json" in cast("Snapshot", updater.trusted("snapshot")).meta else None


def read_own_list(updater: MemoryUpdater, vehicle: str) -> bytes | None:
    """Return the verified list of the vehicle's own documents, or None if it has none.

    Raises: Refused if the list is too large, or if the bin is another one; the errors of the updater if the bin or the
    list is not genuine.
    """
    role = own_bin(updater, vehicle)
    if role is None:
        return None
    # The bin is verified as targets are: signatures, version as in the snapshot, and expiry (5.6).
    target = updater.get_targetinfo(list_path(vehicle))
    named = cast("Targets", updater.trusted(role)).unrecognized_fields.get(BIN_NAME)
    if named != role:
        raise Refused(Reason.MIX_AND_MATCH, f"the bundle has bin {str(named)[:40]} in place of {role}")
    if target is None:
        return None
    if target.length > LIST_BYTES:
        raise Refused(
            Reason.OVERSIZED, f"the list of this vehicle has {target.length} bytes; publish at most {LIST_BYTES}"
        )
    return updater.read_target(target)


class Unpacker:
    """Unpacks the documents of one release (5.7)."""

    def __init__(
        self, updater: MemoryUpdater, fetcher: BundleFetcher, question: Question, kinds: Sequence[Kind]
    ) -> None:
        self._updater = updater
        self._fetcher = fetcher
        self._vehicle = question.vehicle
        self._kinds = kinds

    def unpack(self, version: int, own_list: bytes | None) -> tuple[Release | None, tuple[LargeFile, ...]]:
        """Return the release for this vehicle and an empty tuple.

        If a large document is missing, return None and all large documents of the release.

        Targets of an unknown kind and targets for other vehicles are skipped.  Raises: Refused if there are too many
        targets, or if one is too large.
        """
        listed = cast("Targets", self._updater.trusted("targets")).targets
        # A bundle cannot contain more than FILES files, and a request cannot list more than FILES files as held.
        if len(listed) > FILES:
            raise Refused(Reason.OVERSIZED, f"the metadata lists {len(listed)} targets; publish at most {FILES}")
        candidates = dict(listed) | _read_targets(own_list)
        ours = {
            path: target
            for path, target in sorted(candidates.items())
            if kind_of(path, self._kinds) is not None and self._is_ours(target)
        }
        large = _large_files(ours, self._kinds)
        wanted = tuple({file.sha256: file for file in large.values()}.values())
        if any(file.sha256 not in self._fetcher.held for file in wanted):
            return None, wanted
        documents = {path: self._content(target, large.get(path)) for path, target in ours.items()}
        named = {path: (file.sha256, file.document_bytes) for path, file in large.items()}
        return Release(version, documents, named), ()

    def _is_ours(self, target: TargetFile) -> bool:
        return matches(target.custom, target.hashes.get("sha256", ""), self._vehicle)

    def _content(self, target: TargetFile, large: LargeFile | None) -> bytes:
        if large is not None:
            # The signed hash is checked first, so the decompressor sees only what the fleet has packed.
            packed = self._updater.read_target(target)
            try:
                return unpack(packed, large.document_bytes)
            except Untrusted as error:
                raise Refused(Reason.TAMPERED, f"target {target.path}: {error}") from error
        if target.length > CONTENT_BYTES:
            raise Refused(
                Reason.OVERSIZED,
                f"target {target.path} has {target.length} bytes; publish at most {CONTENT_BYTES} in one target",
            )
        return self._updater.read_target(target)


def _read_targets(own_list: bytes | None) -> dict[str, TargetFile]:
    """Return the targets in a verified list.  Raises: Refused if the list is malformed."""
    if own_list is None:
        return {}
    try:
        return {path: TargetFile.from_dict(fields, path) for path, fields in parse_list(own_list).items()}
    except (Untrusted, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(Reason.MALFORMED, f"the list of this vehicle's own documents is unusable: {error}") from error


def _large_files(targets: Mapping[str, TargetFile], kinds: Sequence[Kind]) -> dict[str, LargeFile]:
    """Return the descriptions of the large documents among `targets`, by path.

    Their sizes are checked here, before a chunk is fetched or anything is unpacked.

    Raises: Refused if a description is malformed, or if a document or all of them together are too large.
    """
    found = {}
    for path, target in targets.items():
        try:
            file = large_file(target.custom, target.hashes.get("sha256", ""), target.length)
        except Untrusted as error:
            raise Refused(Reason.OVERSIZED, f"target {path}: {error}") from error
        if file is None:
            continue
        found[path] = file
        kind = kind_of(path, kinds)
        if kind is not None and file.document_bytes > kind.size_bytes:
            raise Refused(
                Reason.OVERSIZED,
                f"target {path} has {file.document_bytes} bytes unpacked; publish at most {kind.size_bytes}",
            )
    packed_bytes = sum(file.size_bytes for file in found.values())
    document_bytes = sum(file.document_bytes for file in found.values())
    # The vehicle keeps all packed documents on its flash, and all documents in memory.
    if packed_bytes > PACKED_BYTES or document_bytes > DOCUMENT_BYTES:
        raise Refused(
            Reason.OVERSIZED,
            f"the large documents for this vehicle have {document_bytes} bytes ({packed_bytes} packed); publish at "
            f"most {DOCUMENT_BYTES} ({PACKED_BYTES} packed)",
        )
    return found
