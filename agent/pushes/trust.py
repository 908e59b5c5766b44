"""Verify a bundle: TUF's client workflow over the files of one message, and the checks that TUF leaves to us.

This file runs in the verifier process only, because importing TUF costs 25 MB.  The files of a bundle are untrusted.
A temporary folder holds the working copy of the trusted metadata, and the caller keeps the whole result or nothing.

Invariants, beyond those of the TUF specification (5.3 to 5.7):

- Versions never fall below `floor`, whatever state the stored metadata is in.  TUF never calls fsync, so its files
  can be empty after a power cut.  Only a root that gives a role new keys lifts the floor of that role (recovery from
  a fast-forward attack, 5.3.11).
- The caller gives the time.  A head unit without a clock boots in 1970, when nothing would ever be expired.
- A target that is not meant for this vehicle is not unpacked.  A release lacks no target that is.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from agent.errors import Permanent, Untrusted
from agent.formats.down.audience import matches
from agent.formats.down.bundle import CONTENT_BYTES, FILES, SIGNED_AT, TruncatedBundle, Versions, parse_bundle
from agent.formats.down.documents import KINDS, Kind, kind_of
from agent.pushes.release import Question, Reason, Refused, Release

_METADATA_BYTES: Final = 500_000  # of one metadata file
_ROTATIONS: Final = 128  # root versions that one bundle may bring: eight a year for a car's life
_ROLES: Final = ("timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A verified bundle: versions, the metadata to hold from now on, and the release (None where it is settled)."""

    versions: Versions
    metadata: dict[str, bytes]
    signed_at_s: int
    release: Release | None


def verify(question: Question, kinds: Sequence[Kind] = KINDS) -> Trusted:
    """Verify the bundle of `question`.

    Raises Refused, Permanent where the trusted root itself is unusable, OSError where the temporary folder fails.
    """
    try:
        files = parse_bundle(question.bundle)
    except TruncatedBundle as error:
        raise Refused(Reason.TRUNCATED, str(error)) from error
    except Untrusted as error:
        raise Refused(Reason.MALFORMED, str(error)) from error
    with tempfile.TemporaryDirectory(prefix="hu-verify-") as folder:
        return _Verification(question, files, Path(folder), kinds).run()


class _Fetcher(FetcherInterface):
    """Serves the files of the bundle, and target files held from earlier, by the URL path that the updater asks for."""

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
            raise DownloadHTTPError(f"the bundle has no {url}", 404)
        return iter((content,))


class _Updater(Updater):
    """The updater with what verification at another time, and a receipt that says why, need of its inner state."""

    def set_time(self, now: datetime) -> None:
        self._trusted_set.reference_time = now

    @property
    def root(self) -> Root:
        return self._trusted_set.root

    def trusted(self, role: str) -> Signed | None:
        return self._trusted_set.get(role)


class _Verification:
    def __init__(self, question: Question, files: Mapping[str, bytes], folder: Path, kinds: Sequence[Kind]) -> None:
        self.question = question
        self.kinds = kinds
        self.folder = folder
        self.fetcher = _Fetcher(files, question.contents)
        (folder / "root_history").mkdir()
        for name, content in question.metadata.items():
            (folder / name).write_bytes(content)
        try:
            self.updater = _Updater(
                metadata_dir=str(folder),
                metadata_base_url="metadata",
                target_base_url="targets",
                fetcher=self.fetcher,
                config=UpdaterConfig(
                    max_root_rotations=_ROTATIONS,
                    root_max_length=_METADATA_BYTES,
                    timestamp_max_length=_METADATA_BYTES,
                    snapshot_max_length=_METADATA_BYTES,
                    targets_max_length=_METADATA_BYTES,
                ),
                bootstrap=question.trusted_root,
            )
        except RepositoryError as error:
            raise Permanent(f"the vehicle's root.json is unusable ({error}): enrol the vehicle again") from error
        self.updater.set_time(datetime.fromtimestamp(question.now_s, UTC))
        self.factory_root = self.updater.root.version

    def run(self) -> Trusted:
        try:
            self.updater.refresh()
            versions = self._check_floor()
            settled = versions.targets in self.question.settled
            release = None if settled else self._unpack(versions.targets)
        except (RepositoryError, DownloadError) as error:
            raise self._refusal(error) from error
        timestamp = cast("Timestamp", self.updater.trusted("timestamp"))
        signed_at = timestamp.unrecognized_fields.get(SIGNED_AT, 0)
        believable = isinstance(signed_at, int) and 0 <= signed_at <= timestamp.expires.timestamp()
        return Trusted(versions, self._metadata(), signed_at if believable else 0, release)

    def _check_floor(self) -> Versions:
        found = Versions(
            self.updater.root.version,
            *(cast("Signed", self.updater.trusted(role)).version for role in _ROLES),
        )
        floor = self.question.floor
        if found.root < floor.root:
            raise Refused(Reason.ROLLBACK, f"root {found.root}, but this vehicle has trusted root {floor.root}")
        for role in _ROLES:
            offered, seen = getattr(found, role), getattr(floor, role)
            if offered < seen and not self._has_new_keys(role):
                raise Refused(Reason.ROLLBACK, f"{role} {offered}, but this vehicle has seen {role} {seen}")
        return found

    def _has_new_keys(self, role: str) -> bool:
        """Whether a root newer than the floor's gave `role` other keys."""
        then = self.folder / "root_history" / f"{self.question.floor.root}.root.json"
        if self.question.floor.root == 0 or not then.exists():
            return False
        before = Metadata[Root].from_bytes(then.read_bytes()).signed
        return set(before.roles[role].keyids) != set(self.updater.root.roles[role].keyids)

    def _unpack(self, version: int) -> Release:
        listed = cast("Targets", self.updater.trusted("targets")).targets
        if len(listed) > FILES:
            raise Refused(Reason.OVERSIZED, f"{len(listed)} targets; at most {FILES} are read")
        documents = {
            path: self._content(target)
            for path, target in sorted(listed.items())
            if kind_of(path, self.kinds) is not None and matches(target.custom, self.question.vehicle)
        }
        return Release(version, documents)

    def _content(self, target: TargetFile) -> bytes:
        if target.length > CONTENT_BYTES:
            raise Refused(Reason.OVERSIZED, f"{target.path} is announced with {target.length} bytes")
        file = self.folder / "target"
        self.updater.download_target(target, filepath=str(file))
        return file.read_bytes()

    def _metadata(self) -> dict[str, bytes]:
        """The trusted metadata as files, to be handed back with the next question; the trusted root itself is not."""
        names = [f"{role}.json" for role in _ROLES]
        newer = range(self.factory_root + 1, self.updater.root.version + 1)
        names += [f"root_history/{version}.root.json" for version in newer]
        return {name: (self.folder / name).read_bytes() for name in names}

    def _refusal(self, error: RepositoryError | DownloadError) -> Refused:
        """Why, in a word: looks at the file that TUF refused, which tells more than the kind of its exception."""
        name = self.fetcher.last
        content = self.fetcher.files.get(name, b"")
        role = name.removeprefix("metadata/").removesuffix(".json").rsplit(".", 1)[-1]
        match error:
            case DownloadHTTPError():
                reason = Reason.TRUNCATED
            case ExpiredMetadataError():
                reason = Reason.EXPIRED
            case _ if name.startswith("targets/"):
                reason = Reason.TAMPERED
            case _ if len(content) > _METADATA_BYTES:
                reason = Reason.OVERSIZED
            case _:
                reason = _fault(role, content, self.updater.root) or _misfit(role, error)
        return Refused(reason, f"{name}: {error}")


def _fault(role: str, content: bytes, root: Root) -> Reason | None:
    """What is wrong with the signatures of a metadata file by the keys that `root` gives `role`; None: nothing."""
    try:
        metadata = Metadata.from_bytes(content)
    except RepositoryError:
        return Reason.TAMPERED
    if metadata.signed.type != role:
        return Reason.TAMPERED
    if not set(metadata.signatures) & set(root.roles[role].keyids):
        return Reason.FOREIGN_KEY
    result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if result.verified:
        return None
    return Reason.UNDERSIGNED if result.signed else Reason.TAMPERED


def _misfit(role: str, error: Exception) -> Reason:
    """What is wrong with a metadata file that is genuine in itself."""
    if isinstance(error, UnsignedMetadataError):  # a root that its predecessor signed, but not enough of its own keys
        return Reason.UNDERSIGNED
    if isinstance(error, BadVersionNumberError) and role in (Timestamp.type, Snapshot.type):
        return Reason.ROLLBACK
    return Reason.MIX_AND_MATCH
