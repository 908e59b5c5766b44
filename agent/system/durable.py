"""Write files durably: after `write_file` has returned, the file survives a power cut at any moment.

The steps are those that ext4 and f2fs need: write a temporary file beside the target, fsync it, rename it over the
target, fsync the directory.  Readers see the old content or the new one, never a mixture.

All operations go through `Disk`, so that tests can replace the disk.  Some stores take a `Disk` as an argument.  Other
code uses the functions of this file, which work on the disk of the process.  `on` replaces the disk of the process: for
example, tests/powercut uses a disk that forgets unsynced data.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 65_536  # more than a batch has, and less than the size from which malloc maps new memory each time


class Disk:
    """Performs the file operations of the stores.

    Every method can raise OSError.  An operation is durable only if its docstring says so.
    """

    def write_synced(self, path: Path, content: bytes, mode: int) -> None:
        """Create or truncate `path`, and write `content` durably.  A new file's name is not durable yet."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(fd)

    def create_file(self, path: Path, content: bytes) -> None:
        """Create the file `path` (mode 0600) with durable content.  Its name is durable once the directory is synced.

        Use this method for a file that has no effect before a durable record elsewhere names it.  The method costs one
        journal commit, and `write_file` costs two.  A power cut before that record is written may leave an incomplete
        file.

        Raises: OSError.  The file is removed then.
        """
        try:
            self.write_synced(path, content, 0o600)
        except OSError:
            self.remove(path)
            raise

    def rename(self, source: Path, target: Path) -> None:
        """Rename `source` to `target`, and replace an existing file.  Not durable: a power cut may undo the change."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file if it exists.  Not durable: a power cut may bring the file back."""
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        """Make a folder (mode 0700).  Not durable."""
        folder.mkdir(mode=0o700)

    def make_folders(self, folder: Path) -> None:
        """Make `folder` and every missing folder above it, durably."""
        if folder.is_dir():
            return
        self.make_folders(folder.parent)
        self.make_folder(folder)
        self.sync_folder(folder.parent)

    def remove_folder(self, folder: Path) -> None:
        """Remove an empty folder.  Not durable."""
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
            # Each call releases the interpreter's lock and waits to get it back, so there are as few calls as possible.
            content = os.read(fd, _READ_BYTES)
            while len(content) % _READ_BYTES == 0 and (more := os.read(fd, _READ_BYTES)):
                content += more
            return content
        finally:
            os.close(fd)

    def sizes(self, folder: Path) -> dict[str, int]:
        """Return the size in bytes of each file in `folder`, by file name."""
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False)}

    def folders(self, folder: Path) -> list[str]:
        """Return the names of the folders in `folder`."""
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def free_bytes(self, folder: Path) -> int:
        """Return the number of free bytes in the file system of `folder` that this process may use."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


_disk = Disk()


@contextlib.contextmanager
def on(disk: Disk) -> Iterator[None]:
    """Make `disk` the disk of the process while the `with` block runs."""
    global _disk  # noqa: PLW0603  # The process has one disk.
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


def current() -> Disk:
    """Return the disk of the process, for a store that takes a `Disk` as an argument."""
    return _disk


def fsync_directory(folder: Path) -> None:
    """Make the names in `folder` durable.  Raises: OSError."""
    _disk.sync_folder(folder)


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write `content` to the file `path`, durably and atomically, with `mode` whatever the umask is.

    Raises: OSError.  The old content then stays, with one exception: if the final sync of the folder fails, the file
    has the new content, and a power cut may bring the old content back.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _disk.write_synced(temporary, content, mode)
        _disk.rename(temporary, path)
    except OSError as error:
        error.filename = str(path)  # The caller does not know the temporary name.
        with contextlib.suppress(OSError):
            _disk.remove(temporary)
        raise
    _disk.sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Create a file with durable content on the disk of the process, as `Disk.create_file` describes."""
    _disk.create_file(path, content)


def make_folder(folder: Path) -> None:
    """Make a folder and every missing folder above it, durably, on the disk of the process.  Raises: OSError."""
    _disk.make_folders(folder)


def remove(path: Path) -> None:
    """Remove a file if it exists.  Not durable: a power cut may bring the file back.  Raises: OSError."""
    _disk.remove(path)
