"""Run the client of python-tuf in memory: it takes its files from a bundle, and keeps none on the disk.

This file is used in the verifier process only, which is confined and can open no file.  python-tuf has no public way
to keep its files elsewhere, so this file replaces private methods of version 7.  requirements/agent.txt pins the
version.  The file also adds step 5.3.11 of the workflow, which python-tuf leaves out
(https://theupdateframework.github.io/specification/v1.0.33/).
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

METADATA_BYTES: Final = 500_000
"""The size limit of one metadata file."""
_ROTATIONS: Final = 128
"""The most root versions that one bundle may bring, enough for eight a year over 16 years."""


def root_name(version: int) -> str:
    """Return the name under which the vehicle keeps a version of the root."""
    return f"root_history/{version}.root.json"


class BundleFetcher(FetcherInterface):
    """Gives the updater the bundle's files and the target files that the vehicle holds, in place of the network."""

    def __init__(self, files: Mapping[str, bytes], contents: Sequence[bytes]) -> None:
        self.files = files
        self.held = {hashlib.sha256(content).hexdigest(): content for content in contents}
        self.last = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = url
        content = self.files.get(url)
        if content is None and url.startswith("targets/"):
            content = self.held.get(url.rsplit("/", 1)[-1].split(".", 1)[0])
        if content is None:
            raise DownloadHTTPError(f"the bundle lacks the file {url}; the vehicle asks for all files again", 404)
        return iter((content,))

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[io.BytesIO]:
        """Do what the method of the base class does, but in memory instead of in a temporary file."""
        content = b"".join(self.fetch(url))
        if len(content) > max_length:
            raise DownloadLengthMismatchError(f"{url} has {len(content)} bytes, but at most {max_length} are expected")
        yield io.BytesIO(content)


class MemoryUpdater(Updater):
    """Keeps the files of python-tuf in memory, and gives access to its inner state.

    `metadata` has the trusted metadata by file name.  `seen_root` is the version of the newest root that the vehicle
    had before, or 0 if there was none.  python-tuf has no public way to set the reference time, or to read the trusted
    metadata.
    """

    seen_root: int = 0

    def __init__(self, metadata: Mapping[str, bytes], fetcher: BundleFetcher, trusted_root: bytes) -> None:
        self.metadata = dict(metadata)
        self.fetcher = fetcher
        super().__init__(
            metadata_dir="",
            metadata_base_url="metadata",
            fetcher=fetcher,
            config=UpdaterConfig(
                max_root_rotations=_ROTATIONS,
                root_max_length=METADATA_BYTES,
                timestamp_max_length=METADATA_BYTES,
                snapshot_max_length=METADATA_BYTES,
                targets_max_length=METADATA_BYTES,
            ),
            bootstrap=trusted_root,
        )

    def set_time(self, now: datetime) -> None:
        """Set the time against which all steps of the update check expiry dates."""
        self._trusted_set.reference_time = now

    @property
    def root(self) -> Root:
        """Return the newest root that is trusted."""
        return self._trusted_set.root

    def trusted(self, role: str) -> Signed | None:
        """Return the verified metadata of `role`, or None if it is not loaded yet."""
        return self._trusted_set.get(role)

    def read_target(self, target: TargetFile) -> bytes:
        """Return the content of a target, after checking its length and hash (5.7.3)."""
        folder, slash, name = target.path.rpartition("/")
        prefix = f"{next(iter(target.hashes.values()))}." if self.root.consistent_snapshot else ""
        content = self.fetcher.download_bytes(f"targets/{folder}{slash}{prefix}{name}", target.length)
        target.verify_length_and_hashes(content)
        return content

    def recovers(self) -> bool:
        """Return whether the root has replaced the keys of timestamp or snapshot since `seen_root` (5.3.11).

        A thief of the old keys may have signed versions so high that no honest version is ever newer.  After the
        replacement, the versions of timestamp, snapshot and targets that were seen before no longer count.
        """
        then = self.metadata.get(root_name(self.seen_root))
        if then is None:
            return False
        before = Metadata[Root].from_bytes(then).signed
        return any(_replaces_keys(self.root, before, role) for role in (Timestamp.type, Snapshot.type))

    # The following methods replace the methods of python-tuf 7 that use the disk.

    def _load_root(self) -> None:
        self._load_newer_roots()
        if self.recovers():
            for role in (Timestamp.type, Snapshot.type):
                self.metadata.pop(f"{role}.json", None)

    def _load_newer_roots(self) -> None:
        first = self.root.version + 1
        for version in range(first, first + _ROTATIONS):
            try:
                self._trusted_set.update_root(self.metadata.get(root_name(version), b""))
            except RepositoryError:
                # The vehicle does not have this root, or a damaged one, so the bundle must contain it.
                try:
                    content = self._download_metadata(Root.type, METADATA_BYTES, version)
                except DownloadHTTPError:
                    return  # 5.3.3: there is no newer root
                self._trusted_set.update_root(content)
                self._persist_root(version, content)

    def _load_local_metadata(self, rolename: str) -> bytes:
        try:
            return self.metadata[f"{rolename}.json"]
        except KeyError as error:
            # python-tuf expects the error of a missing file, and takes the metadata from the bundle then.
            raise FileNotFoundError(rolename) from error

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self.metadata[f"{rolename}.json"] = data

    def _persist_root(self, version: int, data: bytes) -> None:
        self.metadata[root_name(version)] = data

    def _update_root_symlink(self) -> None:
        """Do nothing: the trusted root is in memory."""


def _replaces_keys(root: Root, before: Root, role: str) -> bool:
    """Return whether `root` accepts nothing that the keys of `role` in the root `before` have signed."""
    # If enough of the old keys were still valid, old metadata would pass, and dropping the versions seen before would
    # permit a rollback.  Comparing key ids is enough: a key id is the hash of the key.
    common = set(before.roles[role].keyids) & set(root.roles[role].keyids)
    return len(common) < root.roles[role].threshold
