"""What this vehicle trusts and has in force, across power cuts.

    <folder>/state.a, state.b           the same record twice, written one after the other
    <folder>/releases/<version>-<digest>.json   a release, written before the record that names it

A state file is one line of SHA-256 (hex) over the rest, then the record as JSON.

Invariants: a push is durable before it is visible, and versions never go back.

While one copy of the record is being written, the other is whole, so a power cut leaves the record before or the record
after.  Should both copies be damaged, which no power cut does, the names of the releases still hold the floor of
targets, so an old push stays out.
"""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Permanent, Transient
from agent.formats.down.bundle import Versions
from agent.pushes.release import Release
from agent.pushes.trial import Ref, Slots
from agent.system.durable import make_folder, remove, write_file

_COPIES: Final = ("state.a", "state.b")
_RELEASE: Final = re.compile(r"([1-9][0-9]{0,9})-([0-9a-f]{64})\.json")


class Record(msgspec.Struct, frozen=True):
    """Everything that must survive.

    `generation` counts records.  `floor` is the highest version seen of each role.  `time_s` is a Unix time that has
    certainly passed, because the fleet signed it.  `metadata` is the trusted TUF metadata by file name.  `slots` are
    the releases in force and on trial.
    """

    generation: int = 0
    floor: Versions = Versions()
    time_s: int = 0
    metadata: dict[str, bytes] = {}
    slots: Slots = Slots()


class Store:
    """The one owner of its folder.  Blocking.

    Every method that writes raises Transient when the disk does not take it.
    """

    def __init__(self, folder: Path, record: Record, *, damaged: bool) -> None:
        self.folder = folder
        self.record = record
        self.damaged = damaged

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open or create the store in `folder`.

        `damaged` is true where there was a record and neither copy could be read.  Raises: Permanent where the folder
        cannot be used.
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
            raise Permanent(f"cannot use {folder} for pushes: {error.strerror}; it must be writable") from error
        newest = max(records, key=lambda record: record.generation, default=Record())
        seen = max((int(name[1]) for name in names), default=0)
        # No record survived: the floor comes from what the names of the releases still say.
        if not records:
            newest = msgspec.structs.replace(newest, floor=Versions(targets=seen))
        return cls(folder, newest, damaged=damaged)

    def add_release(self, release: Release) -> Ref:
        """Store a release durably.  The release is not in force before a record names it."""
        # A new file with the digest in its name: a record that names it finds exactly this content or none.
        content = msgspec.json.encode(release)
        ref = Ref(release.version, hashlib.sha256(content).hexdigest())
        try:
            write_file(self._path(ref), content)
        except OSError as error:
            raise Transient(f"cannot store push {release.version}: {error.strerror}") from error
        return ref

    def release(self, ref: Ref) -> Release | None:
        """Return a stored release, or None where its file is missing or damaged."""
        try:
            content = self._path(ref).read_bytes()
            if hashlib.sha256(content).hexdigest() != ref.digest:
                return None
            return msgspec.json.decode(content, type=Release)
        except (OSError, msgspec.DecodeError):
            return None

    def commit(self, record: Record) -> None:
        """Make `record` the record.

        The record survives a power cut as soon as this returns.  Where it raises, either record may hold.
        """
        record = msgspec.structs.replace(record, generation=self.record.generation + 1)
        content = msgspec.json.encode(record)
        copy = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        try:
            # One copy after the other, each with its own fsync, so a cut damages at most one.
            for name in _COPIES:
                write_file(self.folder / name, copy)
        except OSError as error:
            raise Transient(f"cannot store the state of pushes in {self.folder}: {error.strerror}") from error
        self.record = record
        self._forget_others()

    def _path(self, ref: Ref) -> Path:
        return self.folder / "releases" / f"{ref.version}-{ref.digest}.json"

    def _forget_others(self) -> None:
        slots = self.record.slots
        wanted = {self._path(ref) for ref in (slots.current, slots.trial) if ref is not None}
        # A file that cannot be removed now is removed after the next push.
        with contextlib.suppress(OSError):
            for path in (self.folder / "releases").iterdir():
                if path not in wanted:
                    remove(path)


def _read_record(path: Path) -> Record | None:
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            # A power cut came between the writes of the two copies, or the flash lost a block.
            return None
        return msgspec.json.decode(content, type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
