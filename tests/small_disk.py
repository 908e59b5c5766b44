"""A file system of its own, small, that can be full: a tmpfs, which root may mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoDisk(Exception):
    """This machine does not let us mount one, and why."""


class SmallDisk:
    """Mounted at `folder`; `fill` and `free` as often as you like."""

    def __init__(self, folder: Path, size_kb: int) -> None:
        self.folder = folder
        self._size_kb = size_kb

    def fill(self) -> None:
        """Not a page is left: the file system is as large as what it holds."""
        for _ in range(20):
            found = os.statvfs(self.folder)
            used_kb = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
            if self._resize(max(4, used_kb)):
                return
        raise NoDisk(f"{self.folder} grows faster than it can be filled")

    def free(self) -> None:
        """The space is back."""
        if not self._resize(self._size_kb):
            raise NoDisk(f"{self.folder} cannot be made larger again")

    def _resize(self, size_kb: int) -> bool:
        command = ["mount", "-o", f"remount,size={size_kb}k", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, size_kb: int = 4_096) -> Iterator[SmallDisk]:
    """Mount one at `folder`, which is made; raises NoDisk."""
    if os.geteuid() != 0:
        raise NoDisk("only root can mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        raise NoDisk(f"this machine does not let us mount: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder, size_kb)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
