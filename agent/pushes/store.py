"""Store the trusted metadata and the releases of this vehicle, so that they survive a power cut.

    <folder>/state.a, state.b           the same record twice, written one after the other
    <folder>/releases/<version>-<digest>.json   a release, written before the record that names it
    <folder>/large/<sha256>/<index>   chunks of its large documents (large_files.py)

The first line of a state file is the SHA-256 (hex) of the record, which follows as JSON.

Invariants: a push is durable before it takes effect, and versions never go back.

While one copy of the record is being written, the other is whole.  A power cut therefore leaves either the old record
or the new one.  If the flash damages both copies, the file names of the releases still show the newest version of
targets, so an older push is still refused.
"""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Permanent, Transient, Untrusted
from agent.formats.down.bundle import Versions
from agent.formats.down.chunks import unpack
from agent.pushes.large_files import LargeFiles
from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.trial import Ref, Slots
from agent.system.durable import make_folder, remove, write_file

_COPIES: Final = ("state.a", "state.b")
_RELEASE: Final = re.compile(r"([1-9][0-9]{0,9})-([0-9a-f]{64})\.json")


class Store:
    """Owns the folder of the push store.  All methods block.

    Every method that writes raises Transient if the disk refuses.
    """

    def __init__(self, folder: Path, record: Record, *, damaged: bool) -> None:
        self.folder = folder
        self.record = record
        self.damaged = damaged
        self.files = LargeFiles(folder / "large")

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open or create the store in `folder`.

        The attribute `damaged` is true if there was a record and neither copy could be read.

        Raises: Permanent if the folder cannot be used.
        """
        try:
            make_folder(folder / "releases")
            # A power cut between writing the temporary file and renaming it leaves the temporary file behind.
            for abandoned in folder.glob(".state.*.tmp"):
                remove(abandoned)
            copies = [folder / name for name in _COPIES]
            records = [record for record in map(_read_record, copies) if record is not None]
            names = [found for path in (folder / "releases").iterdir() if (found := _RELEASE.fullmatch(path.name))]
            damaged = not records and any(path.exists() for path in copies)
        except OSError as error:
            raise Permanent(
                f"cannot use {folder} for pushes: {error.strerror}; let the agent's user read and write there "
                f"(on a head unit: chown -R headunit-agent: {folder.parent})"
            ) from error
        newest = max(records, key=lambda record: record.generation, default=Record())
        seen = max((int(name[1]) for name in names), default=0)
        # If no record survived, the names of the releases still give the floor of targets.
        if not records:
            newest = msgspec.structs.replace(newest, floor=Versions(targets=seen))
        return cls(folder, newest, damaged=damaged)

    def add_release(self, release: Release) -> Ref:
        """Store a release durably, and return its name.  The release has no effect before a record names it.

        The release is stored without the contents of its large documents, whose packed files are in the store already.
        """
        # The digest is a part of the file's name, so a record that names the file finds exactly this content or none.
        content = msgspec.json.encode(release.without_large())
        large = tuple(sorted({sha256 for sha256, _ in release.large.values()}))
        ref = Ref(release.version, hashlib.sha256(content).hexdigest(), large)
        try:
            write_file(self._path(ref), content)
        except OSError as error:
            raise Transient(
                f"cannot store release {release.version} in {self.folder}: {error.strerror}; free some space"
            ) from error
        return ref

    def release(self, ref: Ref) -> Release | None:
        """Return a stored release with all its documents, or None if one of its files is missing or damaged."""
        try:
            content = self._path(ref).read_bytes()
            if hashlib.sha256(content).hexdigest() != ref.digest:
                return None
            return self.complete(msgspec.json.decode(content, type=Release))
        except (OSError, msgspec.DecodeError, Untrusted, Transient):
            return None

    def complete(self, release: Release) -> Release:
        """Return `release` with the contents of its large documents.

        Raises: Transient if a packed file is missing or damaged; Untrusted if it is not what its description says.
        """
        contents = {}
        for path, (sha256, document_bytes) in release.large.items():
            packed = self.files.read(sha256)
            if packed is None:
                raise Transient(f"the packed file of {path} is missing or damaged; the agent fetches it again")
            contents[path] = unpack(packed, document_bytes)
        return release.with_large(contents)

    def target_files(self, release: Release | None) -> tuple[bytes, ...]:
        """Return the TUF target files that this vehicle has.

        They are those of `release`, and those of wanted documents that are complete.
        """
        small = [] if release is None else list(release.without_large().documents.values())
        large = {} if release is None else {sha256: self.files.read(sha256) for sha256, _ in release.large.values()}
        large |= {file.sha256: self.files.read_complete(file) for file in self.record.wanted}
        return (*small, *(packed for packed in large.values() if packed is not None))

    def remove_damaged(self) -> None:
        """Remove the damaged chunks of the wanted documents, so that they count as missing and are fetched again."""
        for file in self.record.wanted:
            self.files.read_complete(file)

    def in_force(self, slots: Slots) -> Release | None:
        """Return the stored release that `slots` put in force, or None as `release` does."""
        return None if slots.in_force is None else self.release(slots.in_force)

    def commit(self, record: Record) -> None:
        """Replace the stored record by `record`, under the next generation.

        The record is durable when this method returns.  If the method raises, a restart may find the old record or the
        new one.
        """
        record = msgspec.structs.replace(record, generation=self.record.generation + 1)
        content = msgspec.json.encode(record)
        copy = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        try:
            # The copies are written one after the other, each with its own fsync, so a power cut damages at most one.
            for name in _COPIES:
                write_file(self.folder / name, copy)
        except OSError as error:
            raise Transient(
                f"cannot store the state of pushes in {self.folder}: {error.strerror}; free some space"
            ) from error
        self.record = record
        self._forget_others()

    def _path(self, ref: Ref) -> Path:
        return self.folder / "releases" / f"{ref.version}-{ref.digest}.json"

    def _forget_others(self) -> None:
        slots = self.record.slots
        refs = [ref for ref in (slots.current, slots.before, slots.trial) if ref is not None]
        self.files.keep({file.sha256 for file in self.record.wanted}.union(*(ref.large for ref in refs)))
        wanted = {self._path(ref) for ref in refs}
        # A file that cannot be removed now is removed after the next commit.
        with contextlib.suppress(OSError):
            for path in (self.folder / "releases").iterdir():
                if path not in wanted:
                    remove(path)


def release_on_disk(folder: Path) -> Release | None:
    """Return the release in force from the store in `folder`, which an agent may be using.  Nothing is written.

    Raises: Permanent if the store cannot be read.
    """
    try:
        records = [record for name in _COPIES if (record := _read_record(folder / name)) is not None]
    except OSError as error:
        raise Permanent(
            f"{folder}: the store of pushes cannot be read: {error.strerror}; run as the agent's user"
        ) from error
    newest = max(records, key=lambda record: record.generation, default=Record())
    return Store(folder, newest, damaged=False).in_force(newest.slots)


def _read_record(path: Path) -> Record | None:
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            # This copy is damaged, for example because the flash lost a block.
            return None
        return msgspec.json.decode(content, type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
