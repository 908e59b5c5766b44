"""Names, writes and removes the files in the spool's folder.

Invariants: when `write_all` returns, contents and names are durable.  When it raises, the files that it wrote are
removed again.  The file of a batch is removed only after the removal of its window's checkpoints is durable.
Otherwise, a power cut that also destroys the index could bring back the checkpoints of a window that was sent.  The
receiver would then get the window's samples twice.

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
    """The spool's folder `root` on `disk`.  Methods raise OSError unless they say otherwise."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self._disk = disk
        self._leftovers: set[Path] = set()  # files that could not be removed yet
        # An earlier process may have removed checkpoints and ended before it synced their folder.
        self._checkpoints_unsynced = True
        self.sweeper = Sweeper(lambda name: disk.remove(self.path(name)), self.settle_checkpoints)

    @property
    def index(self) -> Path:
        """The path of the index's database file."""
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
        """Return the path of a batch's file."""
        return Path(f"{self.root}/{name.folder}/{name.file}")  # an f-string costs half as much as Path's operator

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
        """Return the path for the copy of batch (`epoch`, `seq`), which carried the catalogue `digest`."""
        return self.root / _CATALOGUES / carrier_file(digest, epoch, seq)

    def carriers(self) -> dict[Path, tuple[bytes, str, int]]:
        """Return each copy of a batch that carried a catalogue: its path, the catalogue's digest, the batch's id."""
        folder = self.root / _CATALOGUES
        parsed = {folder / file: parse_carrier(file) for file in self._disk.sizes(folder)}
        return {path: found for path, found in parsed.items() if found is not None}

    # ---- contents

    def write_all(self, contents: Mapping[Path, bytes]) -> None:
        """Write all files durably.  If this raises OSError, the files written so far are removed again."""
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
        """Remove files, checkpoints first.  Raises nothing.

        Other files stay until the removal of the checkpoints is durable.  If a file cannot be removed now, the next
        call tries again.
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
        """Sync the folder of checkpoints, so that the removal of checkpoint files is durable.  Raises nothing.

        Return False if a checkpoint file that should be gone is still there, or if the sync fails.
        """
        if any(map(_is_checkpoint, self._leftovers)):
            return False
        if self._checkpoints_unsynced:
            self._checkpoints_unsynced = False  # before the sync: another thread may remove a checkpoint meanwhile
            try:
                self._disk.sync_folder(self.root / CHECKPOINTS)
            except OSError:
                self._checkpoints_unsynced = True
                return False
        return True

    def quarantine(self, path: Path, now_us: int) -> None:
        """Move a damaged file to quarantine, which keeps the newest QUARANTINE files.  Raises nothing.

        The file may be missing.  A file that cannot be moved is removed.
        """
        folder = self.root / _QUARANTINE
        if not self.settle_checkpoints():
            self.remove([path])  # `remove` tries again until the disk works
            return
        try:
            kept = sorted(self._disk.sizes(folder).keys() - {self.index.name})
            for name in kept[: max(0, len(kept) - QUARANTINE + 1)]:
                self._disk.remove(folder / name)
            self._disk.rename(path, folder / f"{now_us // 1_000_000:012d}.{path.parent.name}.{path.name}")
        except FileNotFoundError:
            return
        except OSError:
            self.remove([path])

    def set_index_aside(self) -> None:
        """Move a damaged index to quarantine, where it replaces an earlier one.

        The database is moved first, and its write-ahead log is removed second.  If the process ends between these two
        steps, only the log is left, and SQLite discards it.  In the opposite order, only the database could be left,
        and SQLite would open it without the transactions in the log.
        """
        with contextlib.suppress(FileNotFoundError):  # the index may be lost altogether
            self._disk.rename(self.index, self.root / _QUARANTINE / self.index.name)
        for suffix in ("-wal", "-shm"):
            self._disk.remove(self.index.with_name(self.index.name + suffix))

    # ---- the disk

    def free_bytes(self) -> int:
        """Return the free bytes of the file system."""
        return self._disk.free_bytes(self.root)

    def refuses(self, error: OSError | sqlite3.Error) -> Transient:
        """Return the Transient to raise because the disk or the index failed with `error`."""
        problem = f"index: {error}" if isinstance(error, sqlite3.Error) else error.strerror or error
        remedy = "Please free some space or repair the file system."
        if isinstance(error, PermissionError):
            remedy = (
                "Please let the agent's user read and write there "
                f"(on a head unit: chown -R headunit-agent: {self.root.parent})."
            )
        return Transient(f"The spool {self.root} cannot be used ({problem}), so the data stays in memory. {remedy}")


def _is_checkpoint(path: Path) -> bool:
    return path.parent.name == CHECKPOINTS
