"""Check documents, sign them and put them into the repository.  Vehicles fetch them from there.

Invariant: nothing is signed that a vehicle would refuse.  Before any key is read, every new document passes the
vehicle's own parser.  All documents, new and already published, also pass the vehicle's checks together and fit into
one bundle.  Targets that a publication does not name stay as they are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, Snapshot, TargetFile, Targets

from agent.errors import Permanent
from agent.formats.down.audience import EVERYONE, AudienceLists, audience_field
from agent.formats.down.bundle import BUNDLE_BYTES, OWN_LEVEL, SHARED_LEVEL, TIMESTAMP, Versions, build_bundle
from agent.formats.down.documents import (
    KINDS,
    Document,
    Kind,
    check_documents,
    kind_of,
    read_document,
    read_documents,
)
from fleet.publishing import repository
from fleet.publishing.bins import due_bins, largest_bin, renewed_bins
from fleet.publishing.large import document_of, is_large_target, stored_form
from fleet.state.folder import FleetFolder

EXPIRY_DAYS: Final = 90
"""Days for which a signature is valid.  After that, vehicles must assume that an attacker withholds newer versions."""
_NAME_DIGITS: Final = 32
"""How many hex digits of the hash replace the name of a document that is not for all vehicles."""
_LIST_BYTES: Final = 5_000
"""Bytes added for the list of a vehicle's own documents, compressed."""
_SIGNATURES_BYTES: Final = 1_000
"""Bytes added for signatures, because the size of the metadata is checked before it is signed."""


@dataclass(frozen=True, slots=True)
class Published:
    """Holds the result of a publication.

    `versions` are the version numbers of the published TUF metadata.  `targets` are the paths of all published
    documents, by their own names.  `bundle_bytes` is the size of the bundle that a vehicle from the factory gets if all
    documents are for it.
    """

    versions: Versions
    targets: tuple[str, ...]
    bundle_bytes: int


def publish(
    folder: FleetFolder,
    *,
    files: Sequence[tuple[str, Path]] = (),
    remove: Sequence[tuple[str, str]] = (),
    audience: AudienceLists = EVERYONE,
    expiry_days: int = EXPIRY_DAYS,
    now: datetime,
    kinds: Sequence[Kind] = KINDS,
) -> Published:
    """Publish `files` for `audience`, and withdraw the documents in `remove`.

    `files` are pairs (name of the kind, path of a file).  `remove` are pairs (name of the kind, name of a document).
    If no document changes, only the timestamp is signed anew, and it expires after `expiry_days` days.  Targets and
    snapshot are signed anew if a document changes, or if the old targets would expire before the new timestamp.

    Raises: Permanent if a document is refused (the message names the file and the fault) or the repository is damaged;
    Transient if another publisher is at work.
    """
    by_name = {kind.name: kind for kind in kinds}
    # New files are read before the lock is taken, so a mistake in them does not block another publisher.
    new = _read_new([(by_name[kind], file) for kind, file in files])
    with repository.locked(folder):
        state = repository.read_state(folder.metadata)
        before = state.targets.targets
        stored = {path: _read(folder.targets / repository.stored_name(target)) for path, target in before.items()}
        published = {path: document_of(before[path], content) for path, content in stored.items()}
        # The path under which a document is published, by the path that its own name gives.
        places = {_own_path(path, content, kinds): path for path, content in published.items()}
        for kind_name, name in remove:
            _remove(places, by_name[kind_name], name)
        kept = {own_path: published[path] for own_path, path in places.items() if own_path not in new}
        # Documents that are published already are checked again, because older software may have checked them.
        check_documents([*new.values(), *read_documents(kept, kinds, prefix="published ")], None, kinds)
        added = [_target_of_document(document, audience, kinds) for document in new.values()]
        targets = {places[own_path]: before[places[own_path]] for own_path in kept}
        targets |= {target.path: target for target, _ in added}
        contents = {target.path: content for target, content in added}
        size = bundle_bytes(folder, state, targets, stored | contents, state.bins)
        # Targets that expire before this timestamp are signed again, even if they have not changed.
        needed_until = now + timedelta(days=expiry_days)
        if targets == before and state.targets.expires > needed_until and not due_bins(folder, state, needed_until):
            versions = repository.refresh(folder, state, now=now, expiry_days=expiry_days)
        else:
            bins = renewed_bins(folder, state, now=now, expiry_days=expiry_days)
            versions = repository.write_version(
                folder, state.versions, targets, contents, bins=bins, now=now, expiry_days=expiry_days
            )
    return Published(versions, (*kept, *new), size)


def target_of(path: str, content: bytes, audience: AudienceLists) -> tuple[TargetFile, bytes]:
    """Return the TUF target for a document, and the file that is stored for it.

    The target's `custom` field holds the audience, and describes a large document.  TUF signs this field but does not
    interpret it.

    Raises: Permanent if the document is too large for vehicles.
    """
    stored, custom = stored_form(content, path)
    sha256 = hashlib.sha256(stored).hexdigest()
    if audience:
        custom |= audience_field(audience, sha256)
    fields: dict[str, object] = {"custom": custom} if custom else {}
    return TargetFile(len(stored), {"sha256": sha256}, path, fields), stored


def _target_of_document(document: Document, audience: AudienceLists, kinds: Sequence[Kind]) -> tuple[TargetFile, bytes]:
    """Do what `target_of` does.  If only some vehicles may get the document, its path hides its name."""
    path, kind = document.path, kind_of(document.path, kinds)
    # All vehicles read the list of targets, and the name of a campaign may tell which vehicle it is for.
    if audience and kind is not None and kind.name_of is not None:
        path = kind.path_of(hashlib.sha256(document.content).hexdigest()[:_NAME_DIGITS])
    return target_of(path, document.content, audience)


def _own_path(path: str, content: bytes, kinds: Sequence[Kind]) -> str:
    """Return the path that the document's own name gives.  `path` is the path under which it is published."""
    kind = kind_of(path, kinds)
    try:
        return path if kind is None else read_document(kind, content, path).path
    except Permanent:
        # A document that cannot be read keeps its path, under which it can be removed.  If it is not removed, the check
        # of all documents reports it.
        return path


def _read_new(files: Sequence[tuple[Kind, Path]]) -> dict[str, Document]:
    """Read and parse the new files, and return the documents by target path."""
    found: dict[str, Document] = {}
    for kind, file in files:
        document = read_document(kind, _read(file), str(file))
        if document.path in found:
            other = found[document.path].source
            raise Permanent(f"{file}: {other} has the same {kind.name} name. Rename one of them, or publish only one.")
        found[document.path] = document
    return found


def _remove(places: dict[str, str], kind: Kind, name: str) -> None:
    if places.pop(kind.path_of(name), None) is None:
        there = [found for path in places if (found := kind.name_in(path)) is not None]
        raise Permanent(
            f"The {kind.name} {name!r} cannot be removed, because it is not published. "
            f"Published names of this kind: {', '.join(there) or 'none'}."
        )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Permanent(f"{file} cannot be read ({error.strerror}). Check the path and its permissions.") from error


def bundle_bytes(
    folder: FleetFolder,
    state: repository.State,
    targets: Mapping[str, TargetFile],
    contents: Mapping[str, bytes],
    bins: repository.Bins | None,
) -> int:
    """Return the size of the largest bundle, which a vehicle from the factory gets if all documents are for it.

    `contents` are the contents of all targets, by path.  `bins` are the hash bins, of which the vehicle gets the
    largest.  Raises: Permanent if the bundle would be too large.
    """
    document = Targets(version=state.targets.version + 1, targets=dict(targets))
    snapshot = Snapshot(version=state.snapshot.version + 1, meta={"targets.json": state.snapshot.meta["targets.json"]})
    level, more_bytes = SHARED_LEVEL, _SIGNATURES_BYTES
    if bins is not None:
        document.delegations = bins.delegations
        snapshot.meta |= bins.versions
        level, more_bytes = OWN_LEVEL, _SIGNATURES_BYTES + _LIST_BYTES
    files = {
        TIMESTAMP: Metadata(state.timestamp).to_bytes(),
        "metadata/1.snapshot.json": Metadata(snapshot).to_bytes(),
        "metadata/1.targets.json": Metadata(document).to_bytes(),
    }
    files |= largest_bin(folder, bins)
    for version in range(2, state.root + 1):
        name = f"{version}.root.json"
        files[f"metadata/{name}"] = _read(folder.metadata / name)
    # Large documents travel in chunks beside the bundle.
    files |= {
        f"targets/{repository.stored_name(target)}": contents[path]
        for path, target in targets.items()
        if not is_large_target(target)
    }
    # A vehicle that holds only the root from the factory needs the largest bundle.
    size = len(build_bundle(files, level)) + more_bytes
    if size > BUNDLE_BYTES:
        raise Permanent(
            f"A vehicle that has no documents yet would need all of them in one bundle of {size:,} bytes, but one "
            f"message holds at most {BUNDLE_BYTES:,}. Remove some documents, or make them smaller."
        )
    return size
