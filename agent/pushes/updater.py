"""Run TUF's client workflow on the files of a bundle, with what python-tuf leaves out.

Only the verifier process imports this file, because importing TUF takes 25 MB of memory.  Numbers such as 5.3.11 are
steps of the workflow in https://theupdateframework.github.io/specification/v1.0.33/.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface


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


class BundleUpdater(Updater):
    """Adds what python-tuf keeps private or leaves out: the reference time, the trusted metadata, and step 5.3.11.

    `seen_root` is the version of the newest root that the vehicle had before, or 0 if there was none.
    """

    seen_root: int = 0

    def set_time(self, now: datetime) -> None:
        """Use `now` for all checks of expiry."""
        self._trusted_set.reference_time = now

    @property
    def root(self) -> Root:
        """Return the newest root that is verified so far."""
        return self._trusted_set.root

    def trusted(self, role: str) -> Signed | None:
        """Return the verified metadata of `role`, or None if there is none yet."""
        return self._trusted_set.get(role)

    def recovers(self) -> bool:
        """Return whether the root has replaced the keys of timestamp or snapshot since `seen_root` (5.3.11).

        A thief of the old keys may have signed versions so high that no honest version is ever newer.  The versions of
        timestamp, snapshot and targets that were seen before then count no longer.
        """
        then = Path(self._dir, "root_history", f"{self.seen_root}.root.json")
        if not then.exists():
            return False
        before = Metadata[Root].from_bytes(then.read_bytes()).signed
        return any(_replaces_keys(self.root, before, role) for role in (Timestamp.type, Snapshot.type))

    def _load_root(self) -> None:
        super()._load_root()
        if self.recovers():
            for role in (Timestamp.type, Snapshot.type):
                Path(self._dir, f"{role}.json").unlink(missing_ok=True)


def _replaces_keys(root: Root, before: Root, role: str) -> bool:
    """Return whether `root` accepts nothing that the keys of `role` in the root `before` have signed."""
    # If enough of the old keys were still valid, old metadata would pass, and dropping the versions seen before would
    # permit a rollback.  Comparing key ids is enough: a key id is the hash of the key.
    common = set(before.roles[role].keyids) & set(root.roles[role].keyids)
    return len(common) < root.roles[role].threshold
