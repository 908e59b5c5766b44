"""The TUF repository of the fleet: reading it, and writing a new version of it durably.

Invariants: `timestamp.json` is written last, when everything that it leads to is on the disk.  A vehicle or a power cut
therefore sees the version before or the version after, whole.  No version is ever signed twice with different content.

The timestamp says when it was signed (`x-signed-at`), which gives vehicles without a clock a time that has certainly
passed.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError, StorageError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from agent.errors import Permanent, Transient
from agent.formats.down.bundle import SIGNED_AT, Versions
from agent.system.durable import fsync_directory, write_file
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.keys import read_ed25519

ROOT_DAYS: Final = 15 * 365
"""The life of a root: a car's service life, because one that slept for years must still reach the current root."""
DOCUMENT_DAYS: Final = 3 * 365
"""The life of targets and snapshot; the timestamp, which lives much shorter, proves that they are fresh."""
_ONLINE: Final = ("targets", "snapshot", "timestamp")
_Online = TypeVar("_Online", Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class State:
    """The repository as it is published: parsed, and the timestamp also as it goes over the air."""

    timestamp_bytes: bytes
    root: int
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets

    @property
    def versions(self) -> Versions:
        """The versions of the four roles."""
        return Versions(self.root, self.timestamp.version, self.snapshot.version, self.targets.version)


def read_state(metadata: Path) -> State:
    """Read what `timestamp.json` in the folder `metadata` leads to.

    Raises: Permanent where it is missing or damaged.
    """
    try:
        timestamp_bytes = (metadata / "timestamp.json").read_bytes()
        timestamp = Metadata[Timestamp].from_bytes(timestamp_bytes).signed
        name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        snapshot = Metadata[Snapshot].from_file(str(metadata / name)).signed
        name = f"{snapshot.meta['targets.json'].version}.targets.json"
        targets = Metadata[Targets].from_file(str(metadata / name)).signed
    except (OSError, StorageError, RepositoryError, KeyError) as error:
        raise Permanent(
            f"the repository {metadata.parent} is missing or damaged ({error}): restore it from the backup"
        ) from error
    roots = (path.name.split(".", 1)[0] for path in metadata.glob("*.root.json"))
    root = max((int(version) for version in roots if version.isdecimal()), default=0)
    return State(timestamp_bytes, root, timestamp, snapshot, targets)


def stored_name(target: TargetFile) -> str:
    """Return where the content of `target` lies below `targets/`.

    Consistent snapshots put the hash before the name (TUF specification, 6.2), so a new version never overwrites the
    file that a vehicle may be fetching.
    """
    folder, slash, name = target.path.rpartition("/")
    return f"{folder}{slash}{target.hashes['sha256']}.{name}"


@contextmanager
def locked(folder: FleetFolder) -> Iterator[None]:
    """Keep other publishers out of the repository meanwhile.

    Raises: Transient where another one works, Permanent where there is no repository.
    """
    repository = folder.metadata.parent
    try:
        descriptor = os.open(repository / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Permanent(f"no repository in {repository}: {error.strerror}; run `fleet init`") from error
    try:
        try:
            # The kernel releases the lock when the process ends, however it ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Transient(f"another `fleet publish` works on {repository}; try again") from error
        yield
    finally:
        os.close(descriptor)


def create(folder: FleetFolder, now: datetime) -> Versions:
    """Create the repository of a new fleet, signed at `now`; the keys must exist.

    Root 1 is what every vehicle trusts from the factory on.  All three root keys sign it, and two of them suffice for
    the next root.  The other roles begin with a version without targets.  Raises: Permanent.
    """
    roots = [_signer(folder, name) for name in ROOT_KEYS]
    root = Root(version=1, expires=now + timedelta(days=ROOT_DAYS), consistent_snapshot=True)
    for signer in roots:
        root.add_key(signer.public_key, Root.type)
    # Two of three: one key may be lost, and one stolen key replaces nothing.
    root.roles[Root.type].threshold = 2
    for role in _ONLINE:
        root.add_key(_signer(folder, role).public_key, role)
    metadata = Metadata(root)
    for signer in roots:
        metadata.sign(signer, append=True)
    write_file(folder.metadata / "1.root.json", metadata.to_bytes(), mode=0o644)
    return write_version(folder, Versions(root=1), {}, {}, now=now, expiry_days=DOCUMENT_DAYS)


def write_version(
    folder: FleetFolder,
    before: Versions,
    targets: Mapping[str, TargetFile],
    contents: Mapping[str, bytes],
    *,
    now: datetime,
    expiry_days: int,
) -> Versions:
    """Sign and write the next version with `targets`, given by path; `contents` are those that are not stored yet."""
    for path, content in contents.items():
        # Contents first: metadata on the disk must never name a file that is not there yet.
        file = folder.targets / stored_name(targets[path])
        if not file.parent.exists():
            file.parent.mkdir(mode=0o700)
            fsync_directory(folder.targets)
        write_file(file, content, mode=0o644)
    expires = now + timedelta(days=DOCUMENT_DAYS)
    document = Targets(version=before.targets + 1, expires=expires, targets=dict(targets))
    listed = _sign(folder, document, f"{document.version}.targets.json")
    # Each file is signed with the hash of the one before, so the order is targets, snapshot, timestamp.
    snapshot = Snapshot(version=before.snapshot + 1, expires=expires, meta={"targets.json": listed})
    return _sign_timestamp(
        folder,
        before,
        snapshot,
        _sign(folder, snapshot, f"{snapshot.version}.snapshot.json"),
        now=now,
        expiry_days=expiry_days,
    )


def refresh(folder: FleetFolder, state: State, *, now: datetime, expiry_days: int) -> Versions:
    """Sign the timestamp anew, so that vehicles know that the published version is still the newest."""
    meta = state.timestamp.snapshot_meta
    return _sign_timestamp(folder, state.versions, state.snapshot, meta, now=now, expiry_days=expiry_days)


def _sign_timestamp(
    folder: FleetFolder,
    before: Versions,
    snapshot: Snapshot,
    meta: MetaFile,
    *,
    now: datetime,
    expiry_days: int,
) -> Versions:
    timestamp = Timestamp(
        version=before.timestamp + 1,
        expires=now + timedelta(days=expiry_days),
        snapshot_meta=meta,
        unrecognized_fields={SIGNED_AT: int(now.timestamp())},
    )
    _sign(folder, timestamp, "timestamp.json")
    return Versions(before.root, timestamp.version, snapshot.version, snapshot.meta["targets.json"].version)


def _sign(folder: FleetFolder, signed: _Online, name: str) -> MetaFile:
    metadata = Metadata(signed)
    metadata.sign(_signer(folder, signed.type))
    content = metadata.to_bytes()
    write_file(folder.metadata / name, content, mode=0o644)
    return MetaFile.from_data(signed.version, content, ["sha256"])


def _signer(folder: FleetFolder, name: str) -> CryptoSigner:
    return CryptoSigner(read_ed25519(folder.key(name)))
