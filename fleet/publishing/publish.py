"""Check documents, sign them and put them into the repository, from where vehicles fetch them.

Invariant: nothing is signed that a vehicle would refuse.  Before a key is touched, every document passes the parser
that the vehicle uses, all documents that would then be published pass its checks together, and the whole fits into one
bundle.  Targets that a publication does not name stay as they are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, TargetFile, Targets

from agent.errors import Permanent
from agent.formats.down.audience import EVERYONE, AudienceLists
from agent.formats.down.bundle import BUNDLE_BYTES, TIMESTAMP, Versions, build_bundle
from agent.formats.down.documents import (
    KINDS,
    Document,
    Kind,
    check_documents,
    read_document,
    read_documents,
)
from fleet.publishing import repository
from fleet.state.folder import FleetFolder

EXPIRY_DAYS: Final = 90
"""How long a signature is fresh: vehicles then take the repository for one that an attacker holds back."""
_SIGNATURES_BYTES: Final = 1_000
"""The room for signatures in metadata that is not signed yet when its size is checked."""


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publication.

    `versions` are those now in force, `targets` the paths of all documents, and `bundle_bytes` the size of the bundle
    that a vehicle from the factory gets.
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
    """Publish `files` (name of the kind, file) for `audience`, and withdraw `remove` (name of the kind, name).

    Without a change, only the timestamp is signed anew.

    Raises: Permanent naming the file and its fault, Transient while another publisher works.
    """
    by_name = {kind.name: kind for kind in kinds}
    # New files are read before the lock is taken, so a mistake in them does not block another publisher.
    new = _read_new([(by_name[kind], file) for kind, file in files])
    with repository.locked(folder):
        state = repository.read_state(folder.metadata)
        targets = dict(state.targets.targets)
        for kind_name, name in remove:
            _remove(targets, by_name[kind_name], name)
        kept = {
            path: _read(folder.targets / repository.stored_name(target))
            for path, target in targets.items()
            if path not in new
        }
        # What is published already was checked by the software of its day, and counts for vehicles of today.
        stored = read_documents(kept, kinds, prefix="published ")
        check_documents([*new.values(), *stored], None, kinds)
        contents = {path: document.content for path, document in new.items()}
        targets |= {path: target_of(path, content, audience) for path, content in contents.items()}
        size = _bundle_bytes(folder, state, targets, kept | contents)
        unchanged = targets == state.targets.targets
        # Targets that are about to expire are signed anew although they are the same.
        if unchanged and state.targets.expires > now + timedelta(days=expiry_days):
            versions = repository.refresh(folder, state, now=now, expiry_days=expiry_days)
        else:
            versions = repository.write_version(
                folder, state.versions, targets, contents, now=now, expiry_days=expiry_days
            )
    return Published(versions, tuple(targets), size)


def target_of(path: str, content: bytes, audience: AudienceLists) -> TargetFile:
    """Return the TUF target for a document; the audience is in its custom field, which TUF signs but does not read."""
    fields: dict[str, object] = {}
    if audience:
        fields["custom"] = {"audience": {key: list(values) for key, values in audience.items()}}
    return TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, path, fields)


def _read_new(files: Sequence[tuple[Kind, Path]]) -> dict[str, Document]:
    """Read and parse the files of this publication; return them by path."""
    found: dict[str, Document] = {}
    for kind, file in files:
        document = read_document(kind, _read(file), str(file))
        if document.path in found:
            other = found[document.path].source
            raise Permanent(f"{file}: {other} has the same {kind.name} name; rename one, or publish only one.")
        found[document.path] = document
    return found


def _remove(targets: dict[str, TargetFile], kind: Kind, name: str) -> None:
    if targets.pop(kind.path_of(name), None) is None:
        there = [found for path in targets if (found := kind.name_in(path)) is not None]
        raise Permanent(f"no {kind.name} {name!r} is published; there are: {', '.join(there) or 'none'}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Permanent(f"cannot read {file}: {error.strerror}") from error


def _bundle_bytes(
    folder: FleetFolder,
    state: repository.State,
    targets: Mapping[str, TargetFile],
    contents: Mapping[str, bytes],
) -> int:
    """Return the size of the bundle that a vehicle from the factory will get.

    `contents` are those of all targets, by path.  Raises: Permanent where the bundle would be too large.
    """
    document = Targets(version=state.targets.version + 1, targets=dict(targets))
    files = {
        TIMESTAMP: Metadata(state.timestamp).to_bytes(),
        "metadata/1.snapshot.json": Metadata(state.snapshot).to_bytes(),
        "metadata/1.targets.json": Metadata(document).to_bytes(),
    }
    for version in range(2, state.root + 1):
        name = f"{version}.root.json"
        files[f"metadata/{name}"] = _read(folder.metadata / name)
    files |= {f"targets/{repository.stored_name(target)}": contents[path] for path, target in targets.items()}
    # The largest bundle is the one for a vehicle that holds only the root from the factory.
    size = len(build_bundle(files)) + _SIGNATURES_BYTES
    if size > BUNDLE_BYTES:
        raise Permanent(f"a bundle from scratch would have {size:,} bytes; at most {BUNDLE_BYTES:,} fit one message")
    return size
