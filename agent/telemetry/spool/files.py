"""The files of the spool: their operations behind one narrow interface, their names and places.  Touches the world.

Invariant: `SpoolFolder.write_all` has made contents and names durable when it returns, and nothing when it raises.
The interface `Files` exists so that tests run the production spool on disks that fail and on power that goes.
Where things lie is specified in agent.telemetry.spool.spool.
"""

import contextlib
import os
import re
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.system import durable

QUARANTINE: Final = 16  # files kept for whoever looks into damage
_READ_BYTES: Final = 65_536  # more than a batch has, and less than what malloc maps anew each time
_NAME: Final = re.compile(r"([0-9]{12})\.(events|live|backlog)\.([0-9]{1,10})\.batch")
_CARRIER: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9]{12})\.batch")
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")


class Files(Protocol):
    """All methods raise OSError."""

    def make_folder(self, folder: Path) -> None:
        """Create `folder` (mode 0700) durably where it is missing; its parent exists."""

    def write(self, path: Path, content: bytes) -> None:
        """Create or replace the file `path`, its content durable; where it raises, nothing is left.

        A power cut before `sync_folder` may leave a part of it, or nothing.
        """

    def sync_folder(self, folder: Path) -> None:
        """Make the names in `folder` durable."""

    def read(self, path: Path) -> bytes:
        """The whole file."""

    def remove(self, path: Path) -> None:
        """Remove a file; a missing one is fine.  Not durable: a power cut may bring it back."""

    def remove_folder(self, folder: Path) -> None:
        """Remove an empty folder."""

    def move(self, source: Path, target: Path) -> None:
        """Rename, replacing `target`."""

    def sizes(self, folder: Path) -> dict[str, int]:
        """Names and sizes in bytes of the files in `folder`."""

    def folders(self, folder: Path) -> list[str]:
        """Names of the folders in `folder`."""

    def free_bytes(self, folder: Path) -> int:
        """Free bytes of the file system, as far as we may use them."""


class DiskFiles:
    """The real ones."""

    def make_folder(self, folder: Path) -> None:
        """See Files."""
        durable.make_folder(folder)

    def write(self, path: Path, content: bytes) -> None:
        """See Files."""
        durable.create_file(path, content)

    def sync_folder(self, folder: Path) -> None:
        """See Files."""
        durable.fsync_directory(folder)

    def read(self, path: Path) -> bytes:
        """See Files."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:  # each call lets another thread run, and waits for its turn: as few as can be
            content = os.read(fd, _READ_BYTES)
            while len(content) % _READ_BYTES == 0 and (more := os.read(fd, _READ_BYTES)):
                content += more
            return content
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """See Files."""
        durable.remove(path)

    def remove_folder(self, folder: Path) -> None:
        """See Files."""
        durable.remove_folder(folder)

    def move(self, source: Path, target: Path) -> None:
        """See Files."""
        durable.rename(source, target)

    def sizes(self, folder: Path) -> dict[str, int]:
        """See Files."""
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False)}

    def folders(self, folder: Path) -> list[str]:
        """See Files."""
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def free_bytes(self, folder: Path) -> int:
        """See Files."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


@dataclass(frozen=True, slots=True)
class BatchName:
    """What the path of a batch says, which is enough to take it in again where the index is lost."""

    epoch: str
    seq: int
    lane: Lane
    priority: int


def is_epoch(text: str) -> bool:
    """Whether `text` can be the name of a spool's life: 32 hex digits."""
    return _EPOCH.fullmatch(text) is not None


class SpoolFolder:
    """The spool's folder `root`.  Methods raise OSError, except where they say otherwise."""

    def __init__(self, root: Path, files: Files) -> None:
        self.root = root
        self._files = files
        self._leftovers: set[Path] = set()  # what could not be removed
        self._doomed: deque[tuple[BatchName, int]] = deque()  # see `doom`
        self._doomed_bytes = self._swept_bytes = 0  # ever; each is written by one thread at a time
        self._sweeping = threading.Lock()

    @property
    def index(self) -> Path:
        """The database file."""
        return self.root / "index.sqlite3"

    def prepare(self) -> None:
        """Make the folders that every spool has."""
        for folder in (self.root, self.root / "batches", self.root / "catalogues", self.root / "quarantine"):
            self._files.make_folder(folder)

    def prepare_epoch(self, epoch: str) -> None:
        """Make the folder of an epoch's batches."""
        self._files.make_folder(self.root / "batches" / epoch)

    def epochs(self) -> list[str]:
        """Epochs that have a folder."""
        return [name for name in self._files.folders(self.root / "batches") if is_epoch(name)]

    def remove_epoch_if_empty(self, epoch: str) -> None:
        """Remove an epoch's folder; raises nothing where it still holds batches."""
        with contextlib.suppress(OSError):
            self._files.remove_folder(self.root / "batches" / epoch)

    def path(self, name: BatchName) -> Path:
        """Where a batch lies."""
        file = f"{name.seq:012d}.{name.lane.label}.{name.priority}.batch"
        return Path(f"{self.root}/batches/{name.epoch}/{file}")

    def batches(self) -> dict[Path, tuple[BatchName, int]]:
        """Return every file with the name of a batch: what its path says, and its size."""
        found: dict[Path, tuple[BatchName, int]] = {}
        for epoch in self.epochs():
            folder = self.root / "batches" / epoch
            for file, size in self._files.sizes(folder).items():
                if match := _NAME.fullmatch(file):
                    name = BatchName(epoch, int(match[1]), Lane[match[2].upper()], int(match[3]))
                    found[folder / file] = name, size
        return found

    def carrier_path(self, digest: bytes, epoch: str, seq: int) -> Path:
        """Where the copy of a batch that carried a catalogue lies."""
        return self.root / "catalogues" / f"{digest.hex()}.{epoch}.{seq:012d}.batch"

    def carriers(self) -> dict[Path, tuple[bytes, str, int]]:
        """Return every copy of a batch that carried a catalogue: digest, epoch and number of the batch."""
        found: dict[Path, tuple[bytes, str, int]] = {}
        folder = self.root / "catalogues"
        for file in self._files.sizes(folder):
            if match := _CARRIER.fullmatch(file):
                found[folder / file] = bytes.fromhex(match[1]), match[2], int(match[3])
        return found

    def write_all(self, contents: Mapping[Path, bytes]) -> None:
        """Write files durably, all or none."""
        written: list[Path] = []
        try:
            for path, content in contents.items():
                self._files.write(path, content)
                self._leftovers.discard(path)
                written.append(path)
            for folder in {path.parent for path in contents}:
                self._files.sync_folder(folder)
        except OSError:
            self.remove(written)
            raise

    def read(self, path: Path) -> bytes:
        """The whole file."""
        return self._files.read(path)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files.  Raises nothing: what cannot be removed now is tried again with the next removal."""
        for path in self._leftovers | set(paths):
            try:
                self._files.remove(path)
                self._leftovers.discard(path)
            except OSError:
                self._leftovers.add(path)

    def doom(self, batches: Iterable[tuple[BatchName, int]]) -> None:
        """These (with their sizes) are needed no more, nor will their names be used again: `sweep` removes the files.

        One thread at a time.
        """
        for batch in batches:
            self._doomed.append(batch)
            self._doomed_bytes += batch[1]

    @property
    def doomed(self) -> tuple[int, int]:
        """Number and bytes of the files that wait for `sweep`."""
        return len(self._doomed), self._doomed_bytes - self._swept_bytes

    def sweep(self) -> None:
        """Remove what is doomed.  Any thread may call it; where one is at it, the next waits.

        Raises nothing: what cannot be removed now is tried again with the next sweep.
        """
        with self._sweeping:
            for _ in range(len(self._doomed)):
                name, size = self._doomed.popleft()
                try:
                    self._files.remove(self.path(name))
                    self._swept_bytes += size
                except OSError:
                    self._doomed.append((name, size))

    def quarantine(self, path: Path, now_s: float) -> None:
        """Keep a damaged file (it may be missing), the newest QUARANTINE of them.  Raises nothing."""
        folder = self.root / "quarantine"
        try:
            kept = sorted(self._files.sizes(folder).keys() - {self.index.name})
            for name in kept[: max(0, len(kept) - QUARANTINE + 1)]:
                self._files.remove(folder / name)
            self._files.move(path, folder / f"{int(now_s):012d}.{path.parent.name}.{path.name}")
        except FileNotFoundError:
            return
        except OSError:
            self.remove([path])

    def set_index_aside(self) -> None:
        """Put a damaged index into quarantine, over an earlier one.

        The database goes first: SQLite drops a write-ahead log without its database, but would believe a database
        without its log.
        """
        self._files.move(self.index, self.root / "quarantine" / self.index.name)
        for suffix in ("-wal", "-shm"):
            self._files.remove(self.index.with_name(self.index.name + suffix))

    def free_bytes(self) -> int:
        """Free bytes of the file system below."""
        return self._files.free_bytes(self.root)

    def refuses(self, error: OSError | sqlite3.Error) -> Transient:
        """What to raise where the disk does not let us."""
        problem = f"index: {error}" if isinstance(error, sqlite3.Error) else error.strerror or error
        return Transient(
            f"spool {self.root}: {problem}: free some space or mend the file system; the data stays in memory meanwhile"
        )
