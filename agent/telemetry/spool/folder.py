"""The spool's folder: where its files lie, and in which order they are written and removed.  Touches the world.

Invariants: `write_all` has made contents and names durable when it returns, and has left nothing when it raises.  The
file of a batch is removed only after the removal of its window's checkpoints is durable.  Otherwise a power cut that
also costs the index could bring the checkpoints back alone, and the receiver would get a window and its checkpoints.

`agent.telemetry.spool.names` specifies the names.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.errors import Transient
from agent.system.durable import Disk
from agent.telemetry.spool.names import (
    BATCHES,
    CHECKPOINTS,
    BatchName,
    carrier_file,
    is_epoch,
    parse_batch,
    parse_carrier,
    parse_checkpoint,
)
from agent.telemetry.spool.sweeper import Sweeper

QUARANTINE: Final = 16  # damaged files that are kept for an engineer to look at
_CATALOGUES: Final = "catalogues"
_QUARANTINE: Final = "quarantine"


class SpoolFolder:
    """The folder `root` on `disk`.  Methods raise OSError unless they say otherwise."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self._disk = disk
        self._leftovers: set[Path] = set()  # files that could not be removed yet
        # The process before may have removed some and have ended before it synced their folder.
        self._checkpoints_unsynced = True
        self.sweeper = Sweeper(lambda name: disk.remove(self.path(name)), self.settle_checkpoints)

    @property
    def index(self) -> Path:
        """The database file."""
        return self.root / "index.sqlite3"

    # ---- folders

    def prepare(self) -> None:
        """Make the folders that every spool has."""
        self._disk.make_folders(self.root)
        for name in (BATCHES, CHECKPOINTS, _CATALOGUES, _QUARANTINE):
            self._disk.make_folders(self.root / name)

    def prepare_epoch(self, epoch: str) -> None:
        """Make the folder of an epoch's batches."""
        self._disk.make_folders(self.root / BATCHES / epoch)

    def epochs(self) -> list[str]:
        """Return the epochs that have a folder."""
        return [name for name in self._disk.folders(self.root / BATCHES) if is_epoch(name)]

    def remove_epoch_if_empty(self, epoch: str) -> None:
        """Remove the folder of an epoch unless it still holds batches.  Raises nothing."""
        with contextlib.suppress(OSError):
            self._disk.remove_folder(self.root / BATCHES / epoch)

    # ---- names

    def path(self, name: BatchName) -> Path:
        """Return the path of a batch."""
        return Path(f"{self.root}/{name.folder}/{name.file}")  # an f-string costs half of what Path's operator does

    def batches(self) -> dict[Path, tuple[BatchName, int]]:
        """Return every file that has the name of a batch or a checkpoint, with its size in bytes."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[Path, tuple[BatchName, int]]]:
        for epoch in self.epochs():
            folder = self.root / BATCHES / epoch
            for file, size in self._disk.sizes(folder).items():
                if name := parse_batch(epoch, file):
                    yield folder / file, (name, size)
        folder = self.root / CHECKPOINTS
        for file, size in self._disk.sizes(folder).items():
            if name := parse_checkpoint(file):
                yield folder / file, (name, size)

    def carrier_path(self, digest: bytes, epoch: str, seq: int) -> Path:
        """Return the path of the copy of a batch that carried a catalogue."""
        return self.root / _CATALOGUES / carrier_file(digest, epoch, seq)

    def carriers(self) -> dict[Path, tuple[bytes, str, int]]:
        """Return every copy of a batch that carried a catalogue: digest, epoch and number of the batch."""
        folder = self.root / _CATALOGUES
        parsed = {folder / file: parse_carrier(file) for file in self._disk.sizes(folder)}
        return {path: found for path, found in parsed.items() if found is not None}

    # ---- contents

    def write_all(self, contents: Mapping[Path, bytes]) -> None:
        """Write files durably, all or none."""
        written: list[Path] = []
        try:
            for path, content in contents.items():
                self._disk.create_file(path, content)
                self._leftovers.discard(path)
                written.append(path)
            for folder in {path.parent for path in contents}:
                self._disk.sync_folder(folder)
        except OSError:
            self.remove(written)
            raise

    def read(self, path: Path) -> bytes:
        """Return the whole content of a file."""
        return self._disk.read(path)

    # ---- removal

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files, checkpoints first.

        Raises nothing: a file that cannot be removed now is tried again with the next removal.
        """
        left = self._leftovers | set(paths)
        checkpoints = {path for path in left if _is_checkpoint(path)}
        self._unlink(checkpoints)
        self._checkpoints_unsynced |= bool(checkpoints)
        others = left - checkpoints
        if others and not self.settle_checkpoints():
            self._leftovers |= others
        else:
            self._unlink(others)

    def _unlink(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                self._disk.remove(path)
                self._leftovers.discard(path)
            except OSError:
                self._leftovers.add(path)

    def settle_checkpoints(self) -> bool:
        """Make the removal of checkpoints durable; return False where the disk refuses.  Raises nothing."""
        if any(map(_is_checkpoint, self._leftovers)):
            return False
        if self._checkpoints_unsynced:
            self._checkpoints_unsynced = False  # before the sync: another thread may remove one meanwhile
            try:
                self._disk.sync_folder(self.root / CHECKPOINTS)
            except OSError:
                self._checkpoints_unsynced = True
                return False
        return True

    def quarantine(self, path: Path, now_s: float) -> None:
        """Keep a damaged file, and of all such files the newest QUARANTINE.  A missing file is fine; raises nothing."""
        folder = self.root / _QUARANTINE
        if not self.settle_checkpoints():
            self.remove([path])  # which waits until the disk settles them
            return
        try:
            kept = sorted(self._disk.sizes(folder).keys() - {self.index.name})
            for name in kept[: max(0, len(kept) - QUARANTINE + 1)]:
                self._disk.remove(folder / name)
            self._disk.rename(path, folder / f"{int(now_s):012d}.{path.parent.name}.{path.name}")
        except FileNotFoundError:
            return
        except OSError:
            self.remove([path])

    def set_index_aside(self) -> None:
        """Put a damaged index into quarantine, over an earlier one.

        The database goes first: SQLite drops a write-ahead log without its database, but would believe a database
        without its log.
        """
        with contextlib.suppress(FileNotFoundError):  # recovery of a spool whose index is gone comes here, too
            self._disk.rename(self.index, self.root / _QUARANTINE / self.index.name)
        for suffix in ("-wal", "-shm"):
            self._disk.remove(self.index.with_name(self.index.name + suffix))

    # ---- the disk

    def free_bytes(self) -> int:
        """Return the free bytes of the file system."""
        return self._disk.free_bytes(self.root)

    def refuses(self, error: OSError | sqlite3.Error) -> Transient:
        """Return what to raise where the disk refuses to work."""
        problem = f"index: {error}" if isinstance(error, sqlite3.Error) else error.strerror or error
        return Transient(
            f"spool {self.root}: {problem}: free some space or mend the file system; the data stays in memory meanwhile"
        )


def _is_checkpoint(path: Path) -> bool:
    return path.parent.name == CHECKPOINTS
