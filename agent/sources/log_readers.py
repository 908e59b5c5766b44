"""Decompress logs that were compressed by zstd, and raise an error for a truncated log."""

import io
from typing import BinaryIO, Final

import zstandard

CHUNK_BYTES: Final = 16 * 1024


class ZstdStream(io.RawIOBase):
    """Decompresses the zstd frames of a file one after the other.

    A log that was written in several sessions has several zstd frames.  The stream reader of the package zstandard is
    not used, because it takes a truncated frame for the end of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return True, because this stream can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants the protocol, io gives this
        """Copy decompressed bytes into `buffer` and return their number, which is 0 at the end of the file.

        Raises: EOFError if the last zstd frame is cut short.
        """
        while not self._ready:
            if self._frame.eof:
                chunk = self._frame.unused_data or self._file.read(CHUNK_BYTES)
                if not chunk:
                    return 0
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            else:
                chunk = self._file.read(CHUNK_BYTES)
                if not chunk:
                    raise EOFError("the last zstd frame is not complete")
            self._ready = memoryview(self._frame.decompress(chunk))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
