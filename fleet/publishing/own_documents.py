"""Publishes documents for single vehicles.  Each of these vehicles has its own list of documents.

The same checks apply as for all other documents (fleet/publishing/publish.py): nothing is signed that a vehicle would
refuse.  For each vehicle, its own documents are checked together with those that it shares with others.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import TargetFile

from agent.errors import Permanent
from agent.formats.down.audience import Attributes, matches
from agent.formats.down.bundle import Versions
from agent.formats.down.chunks import DOCUMENT_BYTES, PACKED_BYTES
from agent.formats.down.documents import (
    KINDS,
    Document,
    Kind,
    check_documents,
    read_document,
    read_documents,
)
from agent.formats.down.own_list import LIST_BYTES, LIST_DOCUMENTS, build_list, list_path, parse_list
from fleet.publishing import repository
from fleet.publishing.bins import bin_of, first_bins, read_bin, renewed_bins, write_lists
from fleet.publishing.bundle_size import bundle_bytes
from fleet.publishing.databases import try_databases
from fleet.publishing.large import document_of, is_large_target, stored_form
from fleet.publishing.publish import EXPIRY_DAYS
from fleet.publishing.repository import State, stored_name, write_target
from fleet.publishing.targets import read_file, read_stored
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

Progress = Callable[[int, int], None]
"""A function that takes the number of vehicles that are done, and the number of all vehicles."""


@dataclass(frozen=True, slots=True)
class Change:
    """Says what changes for one vehicle: files to publish, as pairs (kind, path), and pairs (kind, name) to remove."""

    files: Sequence[tuple[str, Path]] = ()
    remove: Sequence[tuple[str, str]] = ()


def read_own_targets(
    folder: FleetFolder, state: State, vehicle: str
) -> tuple[TargetFile | None, dict[str, TargetFile]]:
    """Return the target of the list of `vehicle`, and the targets in it by path.

    Raises: Permanent if the repository is damaged.
    """
    found = bin_of(state, vehicle)
    target = None if found is None else read_bin(folder, *found).targets.get(list_path(vehicle))
    if target is None:
        return None, {}
    listed = parse_list(read_stored(folder, target))
    return target, {path: TargetFile.from_dict(fields, path) for path, fields in listed.items()}


def publish_own(
    folder: FleetFolder,
    changes: Mapping[str, Change],
    *,
    now: datetime,
    expiry_days: int = EXPIRY_DAYS,
    kinds: Sequence[Kind] = KINDS,
    progress: Progress = lambda _done, _of: None,
    dry_run: bool = False,
    noted: Callable[[Sequence[str]], None] = lambda _: None,
) -> Versions:
    """Publish the documents in `changes`, which maps pseudonyms of vehicles to what changes for each.

    Before anything is written, `noted` is called with the notes on the databases (see `try_databases`), and may raise.
    With `dry_run`, everything but the size of the bundle is checked, and nothing is written.

    Raises: Permanent if a document is refused (the message names the vehicle, the file and the fault), if a vehicle is
    not enrolled, or if the repository is damaged; Transient if another publisher is at work.
    """
    batch = _Batch(folder, kinds)
    with repository.locked(folder):
        state = repository.read_state(folder.metadata)
        shared = _Shared(folder, state, kinds)
        lists: dict[str, TargetFile | None] = {}
        for done, (vehicle, change) in enumerate(sorted(changes.items()), 1):
            try:
                lists[vehicle] = batch.new_list(state, shared, vehicle, change)
            except Permanent as error:
                raise Permanent(f"Vehicle {vehicle}: {error}") from error
            progress(done, len(changes))
        noted(tuple(batch.notes))
        if dry_run:
            return state.versions
        batch.store()
        # Bins that are due are signed again on this occasion.
        bins = renewed_bins(folder, state, now=now, expiry_days=expiry_days) or first_bins(folder)
        bins = write_lists(folder, bins, lists, now=now)
        # Bins on the disk have no effect before a snapshot names them.
        bundle_bytes(folder, state, state.targets.targets, shared.stored, bins)
        return repository.write_version(
            folder, state.versions, state.targets.targets, {}, bins=bins, now=now, expiry_days=expiry_days
        )


class _Shared:
    """Holds the documents that vehicles share, each parsed once.  `stored` has their files, by path."""

    def __init__(self, folder: FleetFolder, state: State, kinds: Sequence[Kind]) -> None:
        self._targets = state.targets.targets
        self.stored = {path: read_stored(folder, target) for path, target in self._targets.items()}
        contents = {path: document_of(target, self.stored[path]) for path, target in self._targets.items()}
        self._documents = {each.path: each for each in read_documents(contents, kinds, prefix="published ")}

    def of(self, vehicle: Attributes) -> tuple[dict[str, Document], int]:
        """Return the documents for `vehicle` by the path of their targets, and the bytes of their packed files."""
        ours = {
            path: target
            for path, target in self._targets.items()
            if path in self._documents and matches(target.custom, target.hashes["sha256"], vehicle)
        }
        packed = sum(target.length for target in ours.values() if is_large_target(target))
        return {path: self._documents[path] for path in ours}, packed


class _Batch:
    """Collects the files of one publication, each read, parsed and packed once, however many vehicles get it.

    The keys of `notes` are the notes on its databases, in their order.
    """

    def __init__(self, folder: FleetFolder, kinds: Sequence[Kind]) -> None:
        self._folder = folder
        self._kinds = kinds
        self._by_name = {kind.name: kind for kind in kinds}
        self._registry = Registry(folder.vehicles)
        self._read: dict[tuple[str, Path], tuple[Document, TargetFile]] = {}
        self._stored: dict[str, tuple[TargetFile, bytes]] = {}
        self.notes: dict[str, None] = {}

    def new_list(self, state: State, shared: _Shared, vehicle: str, change: Change) -> TargetFile | None:
        """Return the target of the new list of `vehicle`, or None if the list is empty.  Raises: Permanent."""
        record = self._registry.read(vehicle)
        if record is None or record.revoked:
            raise Permanent("it is not enrolled, or revoked. Copy the pseudonym that `fleet enrol` printed.")
        _, targets = read_own_targets(self._folder, state, vehicle)
        for kind_name, name in change.remove:
            if targets.pop(self._by_name[kind_name].path_of(name), None) is None:
                there = ", ".join(sorted(targets)) or "none"
                raise Permanent(f"it has no own {kind_name} {name!r}. Its own documents: {there}.")
        attributes = replace(record.attributes, software=record.software)
        documents, packed_bytes = shared.of(attributes)
        kept = {path: document_of(target, read_stored(self._folder, target)) for path, target in targets.items()}
        documents |= {each.path: each for each in read_documents(kept, self._kinds, prefix="published ")}
        for kind_name, file in change.files:
            document, target = self._document(kind_name, file, documents.values())
            targets[target.path] = target
            documents[target.path] = document
        check_documents(documents.values(), attributes, self._kinds)
        packed_bytes += sum(target.length for target in targets.values())
        document_bytes = sum(len(document.content) for document in documents.values())
        content = build_list({path: target.to_dict() for path, target in targets.items()})
        if (
            len(targets) > LIST_DOCUMENTS
            or len(content) > LIST_BYTES
            or packed_bytes > PACKED_BYTES
            or document_bytes > DOCUMENT_BYTES
        ):
            raise Permanent(
                f"it would have {len(targets)} own documents, {packed_bytes:,} bytes (packed) of large and own "
                f"documents, and {document_bytes:,} bytes of documents; at most {LIST_DOCUMENTS}, {PACKED_BYTES:,} and "
                f"{DOCUMENT_BYTES:,} are allowed. Remove some of them."
            )
        return self._list_target(vehicle, content) if targets else None

    def store(self) -> None:
        """Write all files that lists refer to, and the lists."""
        for target, content in self._stored.values():
            write_target(self._folder, target, content)

    def _document(self, kind_name: str, file: Path, others: Iterable[Document]) -> tuple[Document, TargetFile]:
        if (kind_name, file) not in self._read:
            document = read_document(self._by_name[kind_name], read_file(file), str(file))
            self.notes |= dict.fromkeys(try_databases([document], others))
            stored, custom = stored_form(document.content, str(file), in_chunks=True)
            target = _target(document.path, stored, custom)
            self._stored[stored_name(target)] = target, stored
            self._read[kind_name, file] = document, target
        return self._read[kind_name, file]

    def _list_target(self, vehicle: str, content: bytes) -> TargetFile:
        target = _target(list_path(vehicle), content, {})
        self._stored[stored_name(target)] = target, content
        return target


def _target(path: str, content: bytes, custom: dict[str, object]) -> TargetFile:
    fields: dict[str, object] = {"custom": custom} if custom else {}
    return TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, path, fields)
