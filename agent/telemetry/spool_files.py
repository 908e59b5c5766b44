"""The file operations of the spool, behind one narrow interface.  Touches the world.

Invariant: `write` has made content and name durable when it returns, and leaves nothing behind when it raises.
The interface exists so that tests run the production spool on disks that fail and on power that goes.
"""

import os
from pathlib import Path
from typing import Protocol

from agent import durable


class Files(Protocol):
    """All methods raise OSError."""

    def make_folder(self, folder: Path) -> None:
        """Create `folder` (mode 0700) durably where it is missing; its parent exists."""

    def write(self, path: Path, content: bytes) -> None:
        """Create or replace the file `path`, whole or not at all, durably."""

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
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            durable.fsync_directory(folder.parent)

    def write(self, path: Path, content: bytes) -> None:
        """See Files."""
        durable.write_file(path, content)

    def read(self, path: Path) -> bytes:
        """See Files."""
        return path.read_bytes()

    def remove(self, path: Path) -> None:
        """See Files."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """See Files."""
        folder.rmdir()

    def move(self, source: Path, target: Path) -> None:
        """See Files."""
        source.replace(target)

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
