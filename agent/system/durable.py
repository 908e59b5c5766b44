"""Durable writes: what these functions returned from is on the disk, whole, after a power cut at any moment.

The order is the one that ext4 and f2fs need: write a temporary file beside the target, fsync it, rename it over the
target, fsync the directory.  Readers see the old content or the new one, never a mixture.

All operations go through `Disk`, the one test seam for disks.  A store takes a `Disk` as an argument, or uses the
functions of this file, which work on the disk of the process.  Tests inject disks that fail; tests/powercut puts the
whole process on a disk that forgets what was not synced (`on`).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 65_536  # more than a batch has, and less than what malloc maps anew each time


class Disk:
    """The file operations of the stores.  All raise OSError; only the synced ones are durable by themselves."""

    def write_synced(self, path: Path, content: bytes, mode: int) -> None:
        """Create or truncate `path`, write, and fsync the file (not its name)."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(fd)

    def create_file(self, path: Path, content: bytes) -> None:
        """Write `path` (mode 0600) and make its content durable; its name is durable once the directory is synced.

        This is for files that count only once a durable record elsewhere names them: it costs one journal commit where
        `write_file` costs two, but a power cut before that record may leave a part of the content under the name.
        Where it raises, nothing is left.
        """
        try:
            self.write_synced(path, content, 0o600)
        except OSError:
            self.remove(path)
            raise

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing `target`.  Not durable: a power cut may undo it."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; a missing one is fine.  Not durable: a power cut may bring it back."""
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        """Make a folder (mode 0700)."""
        folder.mkdir(mode=0o700)

    def make_folders(self, folder: Path) -> None:
        """Make `folder`, and every folder above it that is missing, durably."""
        if folder.is_dir():
            return
        self.make_folders(folder.parent)
        self.make_folder(folder)
        self.sync_folder(folder.parent)

    def remove_folder(self, folder: Path) -> None:
        """Remove an empty folder."""
        folder.rmdir()

    def sync_folder(self, folder: Path) -> None:
        """Make the names in `folder` durable."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, path: Path) -> bytes:
        """Return the whole content of a file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Each call gives up the interpreter's lock and waits to get it back, so there are as few as possible.
            content = os.read(fd, _READ_BYTES)
            while len(content) % _READ_BYTES == 0 and (more := os.read(fd, _READ_BYTES)):
                content += more
            return content
        finally:
            os.close(fd)

    def sizes(self, folder: Path) -> dict[str, int]:
        """Return names and sizes in bytes of the files in `folder`."""
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False)}

    def folders(self, folder: Path) -> list[str]:
        """Return the names of the folders in `folder`."""
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def free_bytes(self, folder: Path) -> int:
        """Return the free bytes of the file system, as far as this process may use them."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


_disk = Disk()


@contextlib.contextmanager
def on(disk: Disk) -> Iterator[None]:
    """Make `disk` the disk of the process while the block runs."""
    global _disk  # noqa: PLW0603  # one disk for the process, as in life
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


def current() -> Disk:
    """Return the disk of the process, for a store that takes one as an argument."""
    return _disk


def fsync_directory(folder: Path) -> None:
    """Make the names in `folder` durable.  Raises OSError."""
    _disk.sync_folder(folder)


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content` (bytes) durably and atomically, with `mode` whatever the umask says.

    Raises OSError; the old content then stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _disk.write_synced(temporary, content, mode)
        _disk.rename(temporary, path)
    except OSError as error:
        error.filename = str(path)  # what the caller knows; the other name is ours
        with contextlib.suppress(OSError):
            _disk.remove(temporary)
        raise
    _disk.sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Create a file on the disk of the process; see `Disk.create_file`."""
    _disk.create_file(path, content)


def make_folder(folder: Path) -> None:
    """Make a folder, and what it lies in, durably on the disk of the process.  Raises OSError."""
    _disk.make_folders(folder)


def remove(path: Path) -> None:
    """Remove a file; a missing one is fine.  Not durable: a power cut may bring it back.  Raises OSError."""
    _disk.remove(path)
