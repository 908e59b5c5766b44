"""Wrap python-can's readers of logs, so that damaged input raises an error and does no harm to the process.

python-can itself skips damaged lines, loops for ever on some damage, and allocates any size that a file claims.
"""

import io
from typing import BinaryIO, Final, Self

import can
import zstandard

CHUNK_BYTES: Final = 16 * 1024
_LINE_CHARACTERS: Final = 4096  # The longest CAN FD line has some 250 characters; more is no text log.


class TrcReader(can.TRCReader):
    """Treats a TRC line with too few fields as damage.  python-can alone would log the line and read on.

    Lines without a frame (errors and status of the adapter) have all fields, and are skipped.
    """

    def _parse_line(self, line: str) -> can.Message | None:
        if not line or line.startswith(";"):  # The file has a header and no frame.
            return None
        try:
            return self._parse_cols(tuple(line.split(maxsplit=self._num_columns)))
        except IndexError as error:
            raise ValueError(f"too few fields in {line[:80]!r}") from error


class Lines:
    """Yields the lines of a text log and counts them.  A line that is too long raises ValueError.

    The class has only the methods of a text file that python-can's readers use.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == _LINE_CHARACTERS:
            raise ValueError(f"the line has {_LINE_CHARACTERS:,} characters or more")
        return line

    def close(self) -> None:
        """Close the underlying file."""
        self._text.close()


class CandumpLines(Lines):
    """Yields the lines of a candump log, and marks each error frame so that python-can recognizes it.

    candump writes an error frame with bit 29 (CAN_ERR_FLAG, <linux/can.h>) in an identifier of 8 digits.  python-can
    recognizes the frame only if the bus-error bit (CAN_ERR_BUSERROR) is set too.  Without that bit, python-can takes
    the error frame for an extended frame with a low identifier, which a match by PGN can mistake for a J1939 frame.
    """

    def __next__(self) -> str:
        line = super().__next__()
        mark = line.find("#")
        # A first digit of 2 or 3 means that bit 29 is set.  The rest of an error frame's identifier is not needed.
        if mark > 8 and line[mark - 8] in "23" and line[mark - 9] == " ":
            return f"{line[: mark - 8]}200000A0{line[mark:]}"
        return line


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
