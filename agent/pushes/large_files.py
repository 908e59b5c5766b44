"""Keep packed documents on the disk as the chunks in which they arrive.

    <folder>/<sha256>/<index>   one chunk, written durably after it matched its signed hash prefix

Invariants:

- A chunk that is in the folder is whole, even after a power cut, because it gets its name by a rename.
- A packed file is used only after all its chunks together match its SHA-256.  If the flash damages a chunk, this chunk
  is fetched again.
- The folder has only chunks of documents that a stored release or the newest trusted metadata names (`keep`).  Those
  of one vehicle have at most PACKED_BYTES in each release, so the folder is bounded.
"""

import contextlib
import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from agent.errors import Transient
from agent.formats.down.chunks import LargeFile, matches_chunk
from agent.system.durable import make_folder, remove, write_file

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}")


class LargeFiles:
    """Owns the folder of packed documents.  All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def missing(self, file: LargeFile) -> list[int]:
        """Return the numbers of the chunks of `file` that have not arrived."""
        held = self._indices(file.sha256)
        return [index for index in range(len(file.hashes)) if index not in held]

    def add(self, file: LargeFile, index: int, content: bytes) -> None:
        """Store a chunk of `file` durably.  The chunk must match `file` (`matches_chunk`).

        Raises: Transient if the disk refuses.
        """
        folder = self._folder / file.sha256
        try:
            make_folder(folder)
            write_file(folder / str(index), content)
        except OSError as error:
            raise Transient(
                f"cannot store a chunk of a large document in {folder}: {error.strerror}; free some space"
            ) from error

    def read(self, sha256: str) -> bytes | None:
        """Return a packed file, or None if a chunk of it is missing or damaged."""
        folder = self._folder / sha256
        try:
            packed = b"".join((folder / str(index)).read_bytes() for index in sorted(self._indices(sha256)))
        except OSError:
            return None
        return packed if hashlib.sha256(packed).hexdigest() == sha256 else None

    def read_complete(self, file: LargeFile) -> bytes | None:
        """Return the packed file, or None if a chunk is missing or damaged.

        Damaged chunks are removed, so that they are fetched again.
        """
        if self.missing(file):
            return None
        packed = self.read(file.sha256)
        if packed is None:
            self._remove_damaged(file)
        return packed

    def keep(self, wanted: Collection[str]) -> None:
        """Remove all files whose SHA-256 is not in `wanted`.  What cannot be removed now is removed by a later call."""
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                if folder.name not in wanted:
                    _remove_folder(folder)
                else:
                    # A power cut between writing a temporary file and renaming it leaves the temporary file behind.
                    for abandoned in folder.glob(".*.tmp"):
                        remove(abandoned)

    def _indices(self, sha256: str) -> set[int]:
        try:
            names = [path.name for path in (self._folder / sha256).iterdir()]
        except OSError:
            return set()
        return {int(name) for name in names if _INDEX.fullmatch(name)}

    def _remove_damaged(self, file: LargeFile) -> None:
        folder = self._folder / file.sha256
        kept = 0
        for index in self._indices(file.sha256):
            path = folder / str(index)
            content = b""
            with contextlib.suppress(OSError):
                content = path.read_bytes()
            if index < len(file.hashes) and matches_chunk(file, index, content):
                kept += 1
            else:
                with contextlib.suppress(OSError):
                    remove(path)
        # A stranger with the computing power to forge a hash prefix wins nothing but a new transfer.
        if kept == len(file.hashes):
            _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            remove(path)
        folder.rmdir()
