"""Mounts a small tmpfs, which needs root, so that a test can fill a disk."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoDisk(Exception):
    """The small file system cannot be mounted or resized.  The message says why."""


class SmallDisk:
    """A small file system, mounted at `folder`, that can be filled and freed again and again."""

    def __init__(self, folder: Path, size_kb: int) -> None:
        self.folder = folder
        self._size_kb = size_kb

    def fill(self) -> None:
        """Shrink the file system to its content, so that no page is free.  Raises: NoDisk."""
        for _ in range(20):
            found = os.statvfs(self.folder)
            used_kb = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
            if self._resize(max(4, used_kb)):
                return
        raise NoDisk(f"{self.folder} grows faster than it can be filled")

    def free(self) -> None:
        """Give the file system its size back.  Raises: NoDisk."""
        if not self._resize(self._size_kb):
            raise NoDisk(f"{self.folder} cannot be made larger again")

    def _resize(self, size_kb: int) -> bool:
        command = ["mount", "-o", f"remount,size={size_kb}k", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, size_kb: int = 4_096) -> Iterator[SmallDisk]:
    """Make `folder`, and mount a small file system there for a `with` block.  Raises: NoDisk."""
    if os.geteuid() != 0:
        raise NoDisk("only root can mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        raise NoDisk(f"a small file system cannot be mounted at {folder}: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder, size_kb)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
