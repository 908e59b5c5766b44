"""Read recorded logs as streams of python-can messages.

The suffix of a file gives its format: candump `.log`, Vector `.asc` and `.blf`, PEAK `.trc`, `.mf4` (needs asammdf, the
extra `mf4`), python-can's `.csv` and `.db`.  All formats may be compressed as `.gz`, `.zst`, `.xz` or `.bz2`, except
`.mf4` and `.db`, whose readers must seek in the file.  No log is held in memory as a whole.  A defect of a log raises
Permanent, which names the file and, in a text format, the line.  If only the end of a log is missing, the whole frames
come first, and then Truncated.  What a sound log holds besides its frames is counted in `LogFile.notes`.

Channel numbers are those of python-can, which counts from 0.  ASC and BLF files count channels from 1, so their channel
1 becomes channel 0.  The numbers in TRC and MF4 files stay unchanged.

Times are absolute if the file has a date.  `agent.sources.log_times` has the rule for dates without a time zone.
"""

import bz2
import gzip
import importlib.util
import io
import lzma
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import can
import zstandard
from can.io.generic import MessageReader

from agent.errors import Permanent
from agent.sources import asc, candump, csv_log, trc
from agent.sources.blf import BlfMessages
from agent.sources.log_kinds import mistaken
from agent.sources.log_lines import DAMAGED, Lines, Notes, Unreadable
from agent.sources.log_readers import CHUNK_BYTES, ZstdStream
from agent.sources.log_times import WallClock
from agent.sources.mf4 import Mf4Messages

_TEXT: Final[dict[str, Callable[[Lines, WallClock, Notes], Iterator[can.Message]]]] = {
    ".log": candump.messages,
    ".asc": asc.messages,
    ".trc": trc.messages,
    ".csv": csv_log.messages,
}
_SEEKING: Final[dict[str, type[MessageReader]]] = {".db": can.SqliteReader}
_COMPRESSIONS: Final = (".gz", ".zst", ".xz", ".bz2")
# python-can's readers and the decompressors raise all of these on damaged input.
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
)


class Truncated(Permanent):
    """The error for a log whose end is missing.  All its whole frames have been read before."""


class LogFile:
    """Reads one log in one pass: `with LogFile(path) as log: for message in log.messages(): ...`.

    Raises: Permanent.  The constructor raises it if the log is missing, empty or of unknown format, and `messages`
    raises it if the log is damaged or truncated.
    """

    def __init__(self, path: Path, zone: str = "") -> None:
        """Open the log at `path`.  `zone` is the time zone of dates in it that name none (see `log_times`)."""
        self._path = path
        self._clock = WallClock(zone)
        try:
            # A mistyped name often has an unknown format as well, but that the file is missing is the better message.
            self.size_bytes = path.stat().st_size
            self._format, self._compression = _suffixes(path)
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise Permanent(
                f"{path}: the log cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        if not self.size_bytes:
            self._file.close()
            raise Permanent(f"{path}: the log is empty; record it again")
        self._lines: Lines | None = None
        self._notes: Callable[[], tuple[str, ...]] = tuple

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def position_bytes(self) -> int:
        """Return the number of bytes of the file that have been read so far (of a compressed log: compressed bytes).

        The number is 0 if the file is closed, and always 0 for `.mf4` and `.db`, which other code opens by their path.
        """
        return 0 if self._file.closed else self._file.tell()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for the user on what `messages` has left out or repaired up to now."""
        return tuple(f"{self._path.name}: {note}" for note in self._notes())

    def messages(self) -> Iterator[can.Message]:
        """Yield the frames of the log, in the order of the log.

        Raises: Truncated after the last whole frame if the end of the log is missing, and Permanent if it is damaged.
        """
        try:
            if self._format in _TEXT:
                yield from self._text_messages()
                return
            with self._reader() as reader:
                yield from reader
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _text_messages(self) -> Iterator[can.Message]:
        lines, notes = Lines(self._stream()), Notes()
        self._lines, self._notes = lines, lambda: notes.texts
        try:
            yield from _TEXT[self._format](lines, self._clock, notes)
        except Unreadable as error:
            if lines.ended or lines.number == 1:
                raise
            # A recorder that loses power leaves an incomplete line.
            # `_damaged` adds the remedy for a truncated log, so the one for a damaged line is left out.
            what = str(error).removesuffix(f"; {DAMAGED}")
            raise EOFError(f"the log ends within a line: {what}") from error
        if not lines.ended:
            notes.say(
                f"line {lines.number:,}, the last, has no line end; if the log was cut there, its frame may be wrong"
            )

    def _stream(self) -> io.BufferedIOBase:
        """Return the decompressed content.  Raises: Unreadable if it begins as a file of another kind."""
        # The cast is needed because the type hints of the standard library do not know what these classes share.
        stream = io.BufferedReader(cast(io.RawIOBase, self._decompressed()), CHUNK_BYTES)
        if complaint := mistaken(stream.peek(), self._format):
            raise Unreadable(complaint)
        return stream

    def _reader(self) -> MessageReader | BlfMessages | Mf4Messages:
        if self._format == ".mf4":
            _require_asammdf(self._path)
            frames = Mf4Messages(self._path)
            self._notes = lambda: frames.notes
            return frames
        if self._format in _SEEKING:
            return _SEEKING[self._format](self._path)
        messages = BlfMessages(self._stream(), self._clock)
        self._notes = lambda: messages.notes
        return messages

    def _decompressed(self) -> io.RawIOBase | BinaryIO | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File:
        match self._compression:
            case ".gz":
                return gzip.GzipFile(fileobj=self._file)
            case ".xz":
                return lzma.LZMAFile(self._file)
            case ".bz2":
                return bz2.BZ2File(self._file)
            case ".zst":
                return ZstdStream(self._file)
            case _:
                return self._file

    def _damaged(self, error: BaseException) -> Permanent:
        number = self._lines.number if self._lines else 0
        place = f"{self._path}: line {number}" if number else str(self._path)
        if isinstance(error, Unreadable):
            return Permanent(f"{place}: {error}")
        reason = str(error) or type(error).__name__
        if isinstance(error, EOFError | lzma.LZMAError | zlib.error | zstandard.ZstdError):
            kind = Truncated if isinstance(error, EOFError) else Permanent
            return kind(
                f"{place}: truncated or damaged {self._compression or self._format} data: {reason}; copy it again"
            )
        return Permanent(f"{place}: not a readable {self._format} log: {reason}; {DAMAGED}")


def _suffixes(path: Path) -> tuple[str, str]:
    """Return the format and the compression that the suffixes of a log's name give.

    For example, `drive.asc.gz` gives (".asc", ".gz"), and `drive.asc` gives (".asc", "").

    Raises: Permanent if the format is unknown, or cannot be read while compressed.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in _COMPRESSIONS else ""
    log_format = suffixes[-1] if suffixes else ""
    if log_format not in (known := [*_TEXT, ".blf", ".mf4", *_SEEKING]):
        raise Permanent(
            f"{path}: unknown log format; name the file by its format: {' '.join(known)} (+ {' '.join(_COMPRESSIONS)})"
        )
    if compression and log_format in (".mf4", *_SEEKING):
        raise Permanent(f"{path}: a {log_format} log cannot be read while compressed; decompress it first")
    return log_format, compression


def _require_asammdf(path: Path) -> None:
    if importlib.util.find_spec("asammdf") is None:
        raise Permanent(f"{path}: MF4 logs need asammdf; install headunit-agent[mf4]")
