"""Verify a bundle by TUF's client workflow, and by the checks that TUF leaves to its users.

This file runs in the verifier process only, because importing TUF takes 25 MB of memory.  The files of a bundle are
untrusted.  The working copy of the trusted metadata is in memory, so a bundle that fails a check changes nothing that
the vehicle keeps, and the process needs no file.

Numbers such as 5.3.11 are steps of the client workflow in https://theupdateframework.github.io/specification/v1.0.33/.

Invariants, in addition to those of the workflow:

- Versions never fall below `floor`, whatever state the stored metadata is in.  Only a root that replaces the
  keys of timestamp or snapshot removes the floor of timestamp, snapshot and targets (recovery from a fast-forward
  attack, 5.3.11).  The floor of root always stands.
- The time comes from `Question.now_s` and not from the system clock.  A head unit without a clock boots in 1970, and
  by that clock no metadata would ever be expired.
- A release contains every target that is meant for this vehicle, and no other target (agent/pushes/unpack.py).
- The hash bin with the vehicle's own list is verified as targets are, and has a floor as well.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from agent.errors import Permanent, Untrusted
from agent.formats.down.bundle import SIGNED_AT, TruncatedBundle, Versions, parse_bundle
from agent.formats.down.chunks import LargeFile
from agent.formats.down.documents import KINDS, Kind
from agent.formats.down.own_list import BIN_PREFIX
from agent.pushes.release import Question, Reason, Refused, Release
from agent.pushes.unpack import OWN_LIST, Unpacker, own_bin, read_own_list
from agent.pushes.updater import METADATA_BYTES, BundleFetcher, MemoryUpdater, root_name

_ROLES: Final = ("timestamp", "snapshot", "targets")


class Trusted(msgspec.Struct, frozen=True):
    """Holds the result of verifying a bundle that is trusted.

    `metadata` is the metadata that the vehicle must keep, by file name.  `signed_at_s` is a Unix time that has
    certainly passed, or 0.  `release` is None if its version is in `Question.settled`, or if a large document of it is
    missing.  In the second case, `wanted` has all its large documents.
    """

    versions: Versions
    metadata: dict[str, bytes]
    signed_at_s: int
    release: Release | None
    wanted: tuple[LargeFile, ...] = ()


def verify(question: Question, kinds: Sequence[Kind] = KINDS) -> Trusted:
    """Verify the bundle of `question`, and return its metadata and its release.

    Raises: Refused for a bundle that must not be applied, Permanent if the vehicle's own trusted root is unusable.
    """
    try:
        files = parse_bundle(question.bundle)
    except TruncatedBundle as error:
        raise Refused(Reason.TRUNCATED, str(error)) from error
    except Untrusted as error:
        raise Refused(Reason.MALFORMED, str(error)) from error
    return _Verification(question, files, kinds).run()


class _Verification:
    def __init__(self, question: Question, files: Mapping[str, bytes], kinds: Sequence[Kind]) -> None:
        self.question = question
        held = (question.metadata[OWN_LIST],) if OWN_LIST in question.metadata else ()
        self.fetcher = BundleFetcher(files, (*question.contents, *held))
        try:
            self.updater = MemoryUpdater(question.metadata, self.fetcher, question.trusted_root)
        except RepositoryError as error:
            # No bundle can repair this failure, because the anchor of trust itself is damaged.
            raise Permanent(f"the vehicle's root.json is unusable ({error}); enrol the vehicle again") from error
        # 5.1: the whole update uses one fixed time.  Without this call, the machine's clock would give the time.
        self.updater.set_time(datetime.fromtimestamp(question.now_s, UTC))
        self.updater.seen_root = question.floor.root
        self.factory_root = self.updater.root.version
        self.unpacker = Unpacker(self.updater, self.fetcher, question, kinds)
        self.own_list: bytes | None = None

    def run(self) -> Trusted:
        try:
            # 5.3 to 5.6: root, timestamp, snapshot and targets, each with signatures, version and expiry.
            self.updater.refresh()
            self.own_list = read_own_list(self.updater, self.question.vehicle.vehicle)
            versions = self._check_floor()
            # A vehicle that holds or has refused this version needs the metadata only.
            settled = versions.targets in self.question.settled
            release, wanted = (None, ()) if settled else self.unpacker.unpack(versions.targets, self.own_list)
        except (RepositoryError, DownloadError) as error:
            raise self._refusal(error) from error
        timestamp = cast("Timestamp", self.updater.trusted("timestamp"))
        signed_at = timestamp.unrecognized_fields.get(SIGNED_AT, 0)
        # TUF does not check this field.  A time after the file's own expiry would make later metadata count as expired.
        believable = isinstance(signed_at, int) and 0 <= signed_at <= timestamp.expires.timestamp()
        return Trusted(versions, self._metadata(), signed_at if believable else 0, release, wanted)

    def _check_floor(self) -> Versions:
        """Compare the versions of the verified metadata with the floor, and return these versions.

        The updater compares them only with the stored metadata, which may be lost.

        Raises: Refused if a version is below the floor (5.3.5, 5.4.3, 5.5.5).
        """
        found = Versions(
            self.updater.root.version,
            *(cast("Signed", self.updater.trusted(role)).version for role in _ROLES),
        )
        own = self._own_bin()
        found = msgspec.structs.replace(found, bin=0 if own is None else own.version)
        floor = self.question.floor
        if found.root < floor.root:
            raise Refused(
                Reason.ROLLBACK,
                f"root has version {found.root}, but this vehicle has seen {floor.root}; publish a higher version",
            )
        if self.updater.recovers():
            return found
        for role in (*_ROLES, "bin"):
            offered, seen = getattr(found, role), getattr(floor, role)
            if offered < seen:
                raise Refused(
                    Reason.ROLLBACK,
                    f"{role} has version {offered}, but this vehicle has seen {seen}; publish a higher version",
                )
        return found

    def _metadata(self) -> dict[str, bytes]:
        """Return the trusted metadata by file name, and the vehicle's own list, for the next question.

        The root that the vehicle has from the factory is left out, because every question contains it anyway.
        """
        names = [f"{role}.json" for role in _ROLES]
        newer = range(self.factory_root + 1, self.updater.root.version + 1)
        names += [root_name(version) for version in newer]
        own = own_bin(self.updater, self.question.vehicle.vehicle)
        names += [] if own is None else [f"{own}.json"]
        kept = {name: self.updater.metadata[name] for name in names}
        return kept if self.own_list is None else kept | {OWN_LIST: self.own_list}

    def _own_bin(self) -> Signed | None:
        name = own_bin(self.updater, self.question.vehicle.vehicle)
        return None if name is None else self.updater.trusted(name)

    def _refusal(self, error: RepositoryError | DownloadError) -> Refused:
        """Turn `error` into the refusal of the bundle, with a stable reason.

        The type of `error` often says too little.  The reason then follows from the file that TUF refused.
        """
        name = self.fetcher.last
        content = self.fetcher.files.get(name, b"")
        role = name.removeprefix("metadata/").removesuffix(".json").rsplit(".", 1)[-1]
        match error:
            case DownloadHTTPError():
                reason = Reason.TRUNCATED
            # The updater raises this for the final root (5.3.10), the timestamp (5.4.4), snapshot (5.5.6) and targets
            # (5.6.5).
            case ExpiredMetadataError():
                reason = Reason.EXPIRED
            case _ if name.startswith("targets/"):
                reason = Reason.TAMPERED
            case _ if len(content) > METADATA_BYTES:
                reason = Reason.OVERSIZED
            case _:
                root = self.updater.root
                delegator = self.updater.trusted("targets") if role.startswith(f"{BIN_PREFIX}-") else root
                fault = _fault(role, content, cast("Root | Targets", delegator))
                reason = fault or _misfit(role, content, root, error)
        return Refused(reason, f"{name}: {error}")


def _fault(role: str, content: bytes, delegator: Root | Targets) -> Reason | None:
    """Return the fault in a metadata file's signatures, or None if the keys of `role` signed the file.

    `delegator` is the root, or the targets for a bin.
    """
    try:
        metadata = Metadata.from_bytes(content)
    except RepositoryError:
        return Reason.TAMPERED
    if metadata.signed.type != (role if isinstance(delegator, Root) else Targets.type):
        return Reason.TAMPERED
    if not set(metadata.signatures) & set(delegator.get_delegated_role(role).keyids):
        return Reason.FOREIGN_KEY
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if result.verified:
        return None
    return Reason.UNDERSIGNED if result.signed else Reason.TAMPERED


def _misfit(role: str, content: bytes, root: Root, error: Exception) -> Reason:
    """Return why TUF refused a metadata file whose signatures by the keys in `root` are genuine."""
    # 5.3.4: a new root must be signed by its predecessor's keys and by its own.  Here its own signatures are missing.
    if isinstance(error, UnsignedMetadataError):
        return Reason.UNDERSIGNED
    if isinstance(error, BadVersionNumberError):
        # 5.3.5: the name of a root has the version that comes next, so the content says whether this one is older.
        older = role == Root.type and Metadata[Root].from_bytes(content).signed.version <= root.version
        if older or role in (Timestamp.type, Snapshot.type):
            return Reason.ROLLBACK
    return Reason.MIX_AND_MATCH
