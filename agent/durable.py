"""Durable writes: what these functions returned from is on the disk, whole, after a power cut at any moment.

The order is the one that ext4 and f2fs need: write a temporary file beside the target, fsync it, rename it over the
target, fsync the directory.  Readers see the old content or the new one, never a mixture.
"""

import os
from pathlib import Path


def fsync_directory(folder: Path) -> None:
    """Make the names in `folder` durable.  Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content` (bytes) durably and atomically, with `mode` whatever the umask says.

    Raises OSError; the old content then stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write `path` (mode 0600) and make its content durable; its name is so once the directory is synced.

    For files that nobody believes before a durable record elsewhere names them: one journal commit instead of the two
    of `write_file`, but a power cut before that record may leave a part of the content under the name.  Raises
    OSError, with nothing left behind.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            os.fchmod(fd, 0o600)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        raise
