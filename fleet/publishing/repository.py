"""Reads the fleet's TUF repository, and writes new versions of it durably.

Invariants: `timestamp.json` is written last, after all files that it refers to are on the disk.  A vehicle therefore
sees either the complete old version or the complete new version, even after a power cut.  A version number is never
published with two different contents.

The timestamp says when it was signed (`x-signed-at`).  For a vehicle whose clock is not set, this is a lower limit of
the present time.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError, StorageError
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from agent.errors import Permanent, Transient
from agent.formats.down.bundle import SIGNED_AT, Versions
from agent.system.durable import make_folder, write_file
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.keys import read_ed25519

ROOT_DAYS: Final = 15 * 365
"""Validity of a root in days: the service life of a car.  A car that was parked for years must still trust its root."""
DOCUMENT_DAYS: Final = 3 * 365
"""Validity of targets and snapshot in days.  The timestamp, which expires much sooner, proves that they are current."""
_ONLINE: Final = ("targets", "snapshot", "timestamp")
_Online = TypeVar("_Online", Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Bins:
    """Holds the hash bins of vehicles' own documents: their delegation, and the version of each bin by its file name.

    fleet/publishing/own_documents.py writes bins.
    """

    delegations: Delegations
    versions: Mapping[str, MetaFile]


@dataclass(frozen=True, slots=True)
class State:
    """Holds the published metadata in parsed form.

    `timestamp_bytes` is the content of `timestamp.json`, which vehicles get unchanged.  `root` is the newest version
    number of the root metadata.
    """

    timestamp_bytes: bytes
    root: int
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets

    @property
    def versions(self) -> Versions:
        """Return the version numbers of root, timestamp, snapshot and targets."""
        return Versions(self.root, self.timestamp.version, self.snapshot.version, self.targets.version)

    @property
    def bins(self) -> Bins | None:
        """Return the hash bins, or None if no vehicle has had documents of its own."""
        if self.targets.delegations is None:
            return None
        versions = {name: meta for name, meta in self.snapshot.meta.items() if name != "targets.json"}
        return Bins(self.targets.delegations, versions)


def read_state(metadata: Path) -> State:
    """Read `timestamp.json` in the folder `metadata`, and the snapshot and targets that it leads to.

    Raises: Permanent if one of these files is missing or damaged.
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
            f"The repository {metadata.parent} is missing or damaged ({error}). Please restore it from the backup."
        ) from error
    return State(timestamp_bytes, newest_root(metadata), timestamp, snapshot, targets)


def read_root(metadata: Path, version: int | None = None) -> Metadata[Root]:
    """Read a version of the root in the folder `metadata`, or the newest one.

    Raises: Permanent if the file is missing or damaged.
    """
    number = newest_root(metadata) if version is None else version
    path = metadata / f"{number}.root.json"
    try:
        return Metadata[Root].from_bytes(path.read_bytes())
    except (OSError, RepositoryError) as error:
        raise Permanent(f"The root {path} is missing or damaged ({error}). Restore it from the backup.") from error


def newest_root(metadata: Path) -> int:
    """Return the newest version number of the root in the folder `metadata`, or 0."""
    roots = (path.name.split(".", 1)[0] for path in metadata.glob("*.root.json"))
    return max((int(version) for version in roots if version.isdecimal()), default=0)


def stored_name(target: TargetFile) -> str:
    """Return the path below `targets/` at which the content of `target` is stored.

    With consistent snapshots, the file name begins with the hash (TUF specification, 6.2).  A new version therefore
    never overwrites a file that a vehicle may be fetching.
    """
    folder, slash, name = target.path.rpartition("/")
    return f"{folder}{slash}{target.hashes['sha256']}.{name}"


@contextmanager
def locked(folder: FleetFolder) -> Iterator[None]:
    """Keep other publishers out of the repository for a `with` block.

    Raises: Transient if another process has locked the repository; Permanent if the repository cannot be opened.
    """
    repository = folder.metadata.parent
    try:
        descriptor = os.open(repository / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Permanent(
            f"The repository {repository} cannot be opened ({error.strerror}). "
            "If there is no fleet yet, create it with `fleet init`."
        ) from error
    try:
        try:
            # The kernel releases the lock when the process ends, even after a crash.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Transient(f"The repository {repository} is in use by another process. Try again later.") from error
        yield
    finally:
        os.close(descriptor)


def create(folder: FleetFolder, now: datetime) -> Versions:
    """Create the repository of a new fleet, signed at `now`, and return its version numbers.  The keys must exist.

    Vehicles trust version 1 of the root metadata from the factory on.  All three root keys sign version 1, but any two
    of them suffice to sign the next version.  The new repository has no documents.

    Raises: Permanent if a key is missing.
    """
    roots = [_signer(folder, name) for name in ROOT_KEYS]
    root = Root(version=1, expires=now + timedelta(days=ROOT_DAYS), consistent_snapshot=True)
    for signer in roots:
        root.add_key(signer.public_key, Root.type)
    # Two of three keys must sign: the fleet survives the loss of one key, and one stolen key is useless alone.
    root.roles[Root.type].threshold = 2
    for role in _ONLINE:
        root.add_key(_signer(folder, role).public_key, role)
    metadata = Metadata(root)
    for signer in roots:
        metadata.sign(signer, append=True)
    write_file(folder.metadata / "1.root.json", metadata.to_bytes(), mode=0o644)
    return write_version(folder, Versions(root=1), {}, {}, bins=None, now=now, expiry_days=DOCUMENT_DAYS)


def write_version(
    folder: FleetFolder,
    before: Versions,
    targets: Mapping[str, TargetFile],
    contents: Mapping[str, bytes],
    *,
    bins: Bins | None,
    now: datetime,
    expiry_days: int,
) -> Versions:
    """Sign and write new targets, snapshot and timestamp, and return their version numbers.

    `before` holds the version numbers that are published now.  `targets` are all targets from now on, by path.
    `contents` are the contents of those documents that are not stored yet, by path.  `bins` are all hash bins from now
    on; their files must be written already.  The timestamp expires after `expiry_days` days.

    Raises: Permanent if a key is missing, or is not the key that the newest root names.
    """
    _check_keys(folder, _ONLINE)
    for path, content in contents.items():
        # Contents are written first, because metadata on the disk must never name a file that does not exist yet.
        write_target(folder, targets[path], content)
    expires = now + timedelta(days=DOCUMENT_DAYS)
    document = Targets(version=before.targets + 1, expires=expires, targets=dict(targets))
    document.delegations = None if bins is None else bins.delegations
    listed = _sign(folder, document, f"{document.version}.targets.json")
    # Each file contains the hash or version of the previous one, so the order is targets, snapshot, timestamp.
    snapshot = Snapshot(version=before.snapshot + 1, expires=expires, meta={"targets.json": listed})
    snapshot.meta |= {} if bins is None else bins.versions
    return _sign_timestamp(
        folder,
        before,
        snapshot,
        _sign(folder, snapshot, f"{snapshot.version}.snapshot.json"),
        now=now,
        expiry_days=expiry_days,
    )


def write_target(folder: FleetFolder, target: TargetFile, content: bytes) -> None:
    """Store the content of a target durably."""
    file = folder.targets / stored_name(target)
    make_folder(file.parent)
    write_file(file, content, mode=0o644)


def write_bin(folder: FleetFolder, name: str, document: Targets) -> MetaFile:
    """Sign and write the hash bin `name`, and return its entry for the snapshot.

    The targets key signs bins as well.  The entry has no hash, which keeps the snapshot of thousands of bins small: the
    signature and the version identify the file.
    """
    metadata = Metadata(document)
    metadata.sign(bin_signer(folder))
    write_file(folder.metadata / f"{document.version}.{name}.json", metadata.to_bytes(), mode=0o644)
    return MetaFile(document.version)


def bin_signer(folder: FleetFolder) -> CryptoSigner:
    """Return the key that signs hash bins.  Raises: Permanent if it is missing."""
    return _signer(folder, Targets.type)


def refresh(folder: FleetFolder, state: State, *, now: datetime, expiry_days: int) -> Versions:
    """Sign a new timestamp for the published snapshot, and return the version numbers.

    The new timestamp shows vehicles that the snapshot is still the newest.

    Raises: Permanent if the key is missing, or is not the key that the newest root names.
    """
    _check_keys(folder, (Timestamp.type,))
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


def _check_keys(folder: FleetFolder, roles: Iterable[str]) -> None:
    """Raise Permanent unless the newest root names the keys here: vehicles would refuse what other keys sign."""
    number = newest_root(folder.metadata)
    root = read_root(folder.metadata, number).signed
    for role in roles:
        if _signer(folder, role).public_key.keyid not in root.roles[role].keyids:
            raise Permanent(
                f"{folder.key(role)} is not the key of {role} that root {number} names, so vehicles would refuse what "
                "it signs. If `fleet keys root import` was interrupted, run it again; otherwise copy the present key "
                "from the machine where the last ceremony was imported, or from its backup."
            )


def _signer(folder: FleetFolder, name: str) -> CryptoSigner:
    return CryptoSigner(read_ed25519(folder.key(name)))
