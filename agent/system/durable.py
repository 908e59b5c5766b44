"""Durable writes: what these functions returned from is on the disk, whole, after a power cut at any moment.

The order is the one that ext4 and f2fs need: write a temporary file beside the target, fsync it, rename it over the
target, fsync the directory.  Readers see the old content or the new one, never a mixture.

All that is done to the disk goes through `Disk`, so that tests/powercut can run the stores that build on this file on a
disk that forgets what was not synced (`on`).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class Disk:
    """The operations that what is durable depends on.  All raise OSError; none but the syncs is durable by itself."""

    def write_synced(self, path: Path, content: bytes, mode: int) -> None:
        """Create or truncate `path`, write, and fsync the file (not its name)."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing `target`."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file; a missing one is fine."""
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        """Make a folder (mode 0700)."""
        folder.mkdir(mode=0o700)

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


_disk = Disk()


@contextlib.contextmanager
def on(disk: Disk) -> Iterator[None]:
    """Everything here happens on `disk` meanwhile."""
    global _disk  # noqa: PLW0603  # one disk for the process, as in life
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


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
    """Write `path` (mode 0600) and make its content durable; its name is so once the directory is synced.

    For files that nobody believes before a durable record elsewhere names them: one journal commit instead of the two
    of `write_file`, but a power cut before that record may leave a part of the content under the name.  Raises
    OSError, with nothing left behind.
    """
    try:
        _disk.write_synced(path, content, 0o600)
    except OSError:
        _disk.remove(path)
        raise


def make_folder(folder: Path) -> None:
    """Create `folder` (mode 0700), and whatever it lies in, durably where it is missing.  Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    _disk.make_folder(folder)
    _disk.sync_folder(folder.parent)


def rename(source: Path, target: Path) -> None:
    """Rename, replacing `target`.  Not durable: a power cut may undo it.  Raises OSError."""
    _disk.rename(source, target)


def remove(path: Path) -> None:
    """Remove a file; a missing one is fine.  Not durable: a power cut may bring it back.  Raises OSError."""
    _disk.remove(path)


def remove_folder(folder: Path) -> None:
    """Remove an empty folder.  Not durable.  Raises OSError."""
    _disk.remove_folder(folder)
