"""Recorded logs as streams of python-can messages: plain or compressed, in every format that python-can reads.

Formats by suffix: candump `.log`, Vector `.asc` and `.blf`, PEAK `.trc`, `.mf4` (needs asammdf: the extra `mf4`),
python-can's `.csv` and `.db`; all but `.mf4` and `.db`, which need a file to seek in, also with `.gz`, `.zst`, `.xz` or
`.bz2` behind.  Nothing holds a whole log.  Whatever is wrong with one is a Permanent error that names the file and, in
text, the line.

Channel numbers are python-can's: ASC and BLF count from 1 in the file and come out from 0, TRC and MF4 come out as in
the file.  Times are absolute where the file has a date; in ASC that is local time without a zone, read in this
machine's.
"""

import bz2
import gzip
import importlib.util
import io
import lzma
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import can
import zstandard
from can.io.blf import BLFParseError
from can.io.generic import MessageReader

from agent.errors import Permanent
from agent.sources.mf4 import Mf4Messages


class _TrcReader(can.TRCReader):
    """python-can passes over a TRC line with too few fields and only logs it; here it is damage, as in other formats.

    Lines without a frame (errors and status of the adapter) have all fields, and are passed over as before.
    """

    def _parse_line(self, line: str) -> can.Message | None:
        if not line or line.startswith(";"):  # the end of a header that no frame follows
            return None
        try:
            return self._parse_cols(tuple(line.split(maxsplit=self._num_columns)))
        except IndexError as error:
            raise ValueError(f"too few fields in {line[:80]!r}") from error


class _BlfReader(can.BLFReader):
    """python-can goes round for ever at an object that claims fewer bytes than its own head has."""

    def _parse_data(self, data: bytes) -> Iterator[can.Message]:
        position = 0
        while (position := data.find(b"LOBJ", position, position + 8)) >= 0 and position + 12 <= len(data):
            size = int.from_bytes(data[position + 8 : position + 12], "little")
            if size < _BLF_HEAD_BYTES:
                raise BLFParseError(f"an object of {size} bytes")
            position += size
        yield from super()._parse_data(data)


_TEXT: Final[dict[str, type[MessageReader]]] = {
    ".log": can.CanutilsLogReader,
    ".asc": can.ASCReader,
    ".trc": _TrcReader,
    ".csv": can.CSVReader,
}
_SEEKING: Final[dict[str, type[MessageReader]]] = {".db": can.SqliteReader}
_COMPRESSIONS: Final = (".gz", ".zst", ".xz", ".bz2")
_CHUNK_BYTES: Final = 16 * 1024
_BLF_OBJECT_BYTES: Final = 16 * 1024 * 1024  # Vector's containers have 128 KiB
_BLF_CONTAINER_BYTES: Final = 64 * 1024 * 1024  # decompressed
_BLF_CONTAINER_HEAD: Final = 16
_BLF_HEAD_BYTES: Final = 16  # of every object
_LINE_CHARACTERS: Final = 4096  # the longest CAN FD line has some 250; more is no text log
# What python-can's readers and the decompressors let through on damaged input.
_DAMAGE: Final = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    sqlite3.Error,
    can.CanError,
    BLFParseError,
)


class LogFile:
    """One log, opened for one pass: `with LogFile(path) as log: for message in log.messages(): ...`.

    Raises Permanent from the constructor (missing, empty, unknown format) and from `messages` (damaged, truncated).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._format, self._compression = _suffixes(path)
        try:
            self.size_bytes = path.stat().st_size
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise Permanent(f"{path}: the log cannot be read: {error.strerror or error}") from error
        if not self.size_bytes:
            self._file.close()
            raise Permanent(f"{path}: the log is empty; record it again")
        self._lines: _Lines | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def position_bytes(self) -> int:
        """How much of the file has been read, of `size_bytes`."""
        return 0 if self._file.closed else self._file.tell()

    def messages(self) -> Iterator[can.Message]:
        """The log's frames, in its order."""
        try:
            with self._reader() as reader:
                yield from reader
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _reader(self) -> MessageReader | Mf4Messages:
        if self._format == ".mf4":
            _require_asammdf(self._path)
            return Mf4Messages(self._path)
        if self._format in _SEEKING:
            return _SEEKING[self._format](self._path)
        raw = cast(io.RawIOBase, self._decompressed())
        if self._format == ".blf":
            return _BlfReader(cast(Path, _BlfStream(raw, _CHUNK_BYTES)))
        stream = io.BufferedReader(raw, _CHUNK_BYTES)
        # Vector's tools write the ANSI code page, visible in the German names of months.
        encoding = "cp1252" if self._format == ".asc" else "utf-8"
        text = io.TextIOWrapper(stream, encoding=encoding, errors="replace")
        self._lines = (_CandumpLines if self._format == ".log" else _Lines)(text)
        options = {"relative_timestamp": False} if self._format == ".asc" else {}
        return _TEXT[self._format](cast(Path, self._lines), **options)

    def _decompressed(self) -> io.RawIOBase | BinaryIO | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File:
        match self._compression:
            case ".gz":
                return gzip.GzipFile(fileobj=self._file)
            case ".xz":
                return lzma.LZMAFile(self._file)
            case ".bz2":
                return bz2.BZ2File(self._file)
            case ".zst":
                return _ZstdStream(self._file)
            case _:
                return self._file

    def _damaged(self, error: BaseException) -> Permanent:
        place = f"{self._path}: line {self._lines.number}" if self._lines and self._lines.number else str(self._path)
        reason = str(error) or type(error).__name__
        if isinstance(error, EOFError | lzma.LZMAError | zlib.error | zstandard.ZstdError):
            return Permanent(
                f"{place}: truncated or damaged {self._compression or self._format} data: {reason}; copy it again"
            )
        return Permanent(
            f"{place}: not a readable {self._format} log: {reason}; cut the log before it, or export it again"
        )


def _suffixes(path: Path) -> tuple[str, str]:
    """Format and compression ("" for none) by the name of the log."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    log_format = suffixes[-1] if suffixes else ""
    if log_format not in (known := [*_TEXT, ".blf", ".mf4", *_SEEKING]):
        raise Permanent(
            f"{path}: unknown log format; name the file by its format: {' '.join(known)} (+ {' '.join(_COMPRESSIONS)})"
        )
    if compression and log_format in (".mf4", *_SEEKING):
        raise Permanent(f"{path}: a {log_format} log is read in place; decompress it first")
    return log_format, compression


def _require_asammdf(path: Path) -> None:
    if importlib.util.find_spec("asammdf") is None:
        raise Permanent(f"{path}: MF4 logs need asammdf; install headunit-agent[mf4]")


class _Lines:
    """The lines of a text log, counted, for python-can's readers: as much of a text file as they use."""

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
            raise ValueError(f"a line of more than {_LINE_CHARACTERS} characters")
        return line

    def close(self) -> None:
        self._text.close()


class _CandumpLines(_Lines):
    """candump lines, error frames marked so that python-can sees them all.

    python-can takes an error frame (bit 29 of an 8-digit identifier) for data unless its bus-error bit is set too, and
    would deliver the others as extended frames of low identifiers, which a PGN match can mistake for J1939.
    """

    def __next__(self) -> str:
        line = super().__next__()
        mark = line.find("#")
        if mark > 8 and line[mark - 8] in "23" and line[mark - 9] == " ":
            return f"{line[: mark - 8]}200000A0{line[mark:]}"
        return line


class _BlfStream(io.BufferedReader):
    """What python-can's BLF reader reads, which takes memory for whatever size an object claims.

    It reads the 16 bytes that all objects begin with, then the rest of the object: of a container, compressed data.
    """

    _container = False

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _BLF_OBJECT_BYTES:
            raise ValueError(f"an object of {size} bytes, {_BLF_OBJECT_BYTES} are the most")
        content = super().read(size)
        if self._container and content[:2] == b"\2\0":
            compressed = content[_BLF_CONTAINER_HEAD:]
            if len(zlib.decompressobj().decompress(compressed, _BLF_CONTAINER_BYTES)) == _BLF_CONTAINER_BYTES:
                raise ValueError(f"a container of more than {_BLF_CONTAINER_BYTES} bytes")
        self._container = content[:4] == b"LOBJ" and content[12:16] == b"\x0a\0\0\0"
        return content


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frames one after the other; the library's own reader takes a truncated frame for the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants the protocol, io gives this
        while not self._ready:
            if self._frame.eof:
                chunk = self._frame.unused_data or self._file.read(_CHUNK_BYTES)
                if not chunk:
                    return 0
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            else:
                chunk = self._file.read(_CHUNK_BYTES)
                if not chunk:
                    raise EOFError("the last zstd frame is not complete")
            self._ready = memoryview(self._frame.decompress(chunk))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
