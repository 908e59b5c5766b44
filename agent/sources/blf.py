"""Read BLF, the binary log of Vector's tools.

    file       = file header, then objects
    container  = an object whose content, mostly compressed, is a section of a second stream of objects

Most logs have all their frames in containers, but objects may also stand beside the containers.  An object may begin
in one container and end in the next.  `agent.sources.blf_objects` has the layout of the objects.

What is not read is counted, and `BlfMessages.notes` has the counts.  A log that has lost its end yields what is whole,
and then raises EOFError.  python-can passes over all of this in silence (docs/decisions/0026-binary-logs.md).
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import can

from agent.sources.blf_objects import BASE, HEADER_BYTES, LOG_CONTAINER, SIGNATURE, NoFrame, message_of
from agent.sources.log_lines import Notes
from agent.sources.log_times import WallClock

_SIGNATURE: Final = b"LOGG"
# signature, size of this header, (tool and its version), size of the file, (size when decompressed), number of objects,
# (number of objects read), start of the measurement as Windows' SYSTEMTIME, (its end)
_FILE_HEADER: Final = struct.Struct("<4sL8xQ8xL4x8H16x")
_FILE_HEADER_LIMIT: Final = 64 * 1024  # All known headers have 144 bytes.
_SIZE: Final = struct.Struct("<8xL")  # of an object
_CONTAINER: Final = struct.Struct("<H14x")  # method of compression, after the beginning of the header
_STORED, _ZLIB = 0, 2  # the methods
_ZLIB_BEGIN: Final = b"x"  # the first byte of zlib's data, which says its method and window (RFC 1950)

_READ_BYTES: Final = 128 * 1024
_OBJECT_LIMIT: Final = 16 * 1024 * 1024  # Vector's containers have 128 KiB.
_CONTAINER_LIMIT: Final = 64 * 1024 * 1024  # decompressed
_SEARCH_BYTES: Final = 8  # An object begins within this many bytes after the one before: padding has at most 4 bytes.


class BlfMessages:
    """Yields the frames of a BLF log: `with BlfMessages(stream) as messages: for message in messages: ...`.

    Raises: ValueError if the log is damaged, and EOFError, after all whole frames, if its end is missing.
    """

    def __init__(self, stream: io.BufferedIOBase, clock: WallClock) -> None:
        """Read the header of the file, and its date by `clock`.

        The reader closes `stream` at the end of the `with` block.
        """
        self._stream = stream
        head = stream.read(_FILE_HEADER.size)
        if not head.startswith(_SIGNATURE):
            raise ValueError("the file does not begin with LOGG, as BLF logs do")
        if len(head) < _FILE_HEADER.size:
            raise EOFError(f"the file ends within its header, after {len(head)} bytes")
        _, self._header_bytes, self._claimed_bytes, self._claimed_objects, *start = _FILE_HEADER.unpack(head)
        if not _FILE_HEADER.size <= self._header_bytes <= _FILE_HEADER_LIMIT:
            raise ValueError(f"the header of the file claims {self._header_bytes} bytes")
        stream.read(self._header_bytes - len(head))
        self._date_notes = Notes()
        self._start_s = _unix_time(start, clock, self._date_notes)
        self._objects = 0
        self._unread: Counter[str] = Counter()
        self._odd: Counter[str] = Counter()
        self._size_note = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was unusual or not read in the part of the log that was read so far, in sentences for users."""
        notes = [f"{what}, not read: {count:,}" for what, count in self._unread.items()]
        notes += [f"{what}: {count:,}" for what, count in self._odd.items()]
        notes = [*self._date_notes.texts, *notes]
        return (*notes, self._size_note) if self._size_note else tuple(notes)

    def __iter__(self) -> Iterator[can.Message]:
        start_s, note_oddity = self._start_s, self._note_oddity
        for place, content in self._all_objects():
            self._objects += 1
            try:
                yield message_of(content, start_s, note_oddity)
            except NoFrame as found:
                self._unread[found.oddity] += 1
            except ValueError as error:
                raise ValueError(f"the object or container at byte {place:,}: {error}") from error

    def _note_oddity(self, oddity: str) -> None:
        self._odd[oddity] += 1

    def _all_objects(self) -> Iterator[tuple[int, bytes]]:
        """Yield the objects beside and in the containers.

        Each comes with the place in the file where it begins, or where the container with its end begins.
        """
        file, inner = _Objects(self._header_bytes), _Objects(0)
        while data := self._stream.read(_READ_BYTES):
            for place, content in file.cut(data):
                if BASE.unpack_from(content)[-1] == LOG_CONTAINER:
                    for contained in self._contained(place, content, inner):
                        yield place, contained
                else:
                    yield place, content
        rest = file.rest()
        if _is_container(rest):
            place = file.taken_bytes - len(rest)
            for contained in self._contained(place, rest, inner, whole=False):
                yield place, contained
        if rest:
            raise EOFError(f"the log ends within an object, {len(rest):,} bytes after it began")
        if begun := inner.rest():
            raise EOFError(f"the log ends within an object of its last container, {len(begun):,} bytes after it began")
        self._compare_with_header(file.taken_bytes)

    def _contained(self, place: int, container: bytes, inner: "_Objects", *, whole: bool = True) -> Iterator[bytes]:
        """Yield the objects that end in a container, which begins at byte `place`.

        Raises: EOFError if the container is whole, but its compressed data are not.
        """
        try:
            data, complete = _unpacked(container)
            for _, content in inner.cut(data):
                yield content
        except ValueError as error:
            raise ValueError(f"the container at byte {place:,}: {error}") from error
        if whole and not complete:
            raise EOFError(f"the container at byte {place:,}: its compressed data end too early")

    def _compare_with_header(self, size_bytes: int) -> None:
        """Compare what was read with what the header of the file says.  Raises: EOFError if the file is shorter."""
        if size_bytes < self._claimed_bytes:
            raise EOFError(f"the log has {size_bytes:,} bytes, but its header says {self._claimed_bytes:,}")
        if self._objects < self._claimed_objects:
            self._size_note = (
                f"the log has {self._objects:,} objects, but its header says {self._claimed_objects:,}; copy the log "
                "again from the recorder"
            )
        elif size_bytes > self._claimed_bytes:
            # Recorders write the header again when they stop, so a recorder that loses power leaves an outdated header.
            self._size_note = (
                f"the log has {size_bytes:,} bytes, but its header says {self._claimed_bytes:,}, so the recorder may "
                "not have stopped properly, and frames may be missing at the end"
            )


class _Objects:
    """Cuts a stream of bytes, which arrives in several calls, into objects."""

    def __init__(self, taken_bytes: int) -> None:
        self._data = b""
        self.taken_bytes = taken_bytes
        """The number of bytes that came before and with the last call of `cut`."""

    def cut(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each object that ends in `data`, with its place in the stream.  Raises: ValueError."""
        first = self.taken_bytes - len(self._data)
        self.taken_bytes += len(data)
        data = self._data + data
        end = 0
        while (begin := data.find(SIGNATURE, end, end + _SEARCH_BYTES)) >= 0 and begin + BASE.size <= len(data):
            size = _SIZE.unpack_from(data, begin)[0]
            if size < BASE.size:
                raise ValueError(f"at byte {first + begin:,}, an object claims {size} bytes, fewer than its header has")
            if size > _OBJECT_LIMIT:
                raise ValueError(
                    f"at byte {first + begin:,}, an object of {size} bytes is above the limit of {_OBJECT_LIMIT} bytes"
                )
            if begin + size > len(data):
                break
            end = begin + size
            yield first + begin, data[begin:end]
        if begin < 0 and len(data) - end >= _SEARCH_BYTES:
            raise ValueError(f"no object begins at byte {first + end:,}, so the log is damaged")
        self._data = data[end:]

    def rest(self) -> bytes:
        """Return the first bytes of an object whose end has not come yet, or b"" if only padding came."""
        begin = self._data.find(SIGNATURE[:1])
        return b"" if begin < 0 else self._data[begin:]


def _is_container(rest: bytes) -> bool:
    return len(rest) >= BASE.size + _CONTAINER.size and BASE.unpack_from(rest)[-1] == LOG_CONTAINER


def _unpacked(container: bytes) -> tuple[bytes, bool]:
    """Return the content of a container, and whether it is complete.  Raises: ValueError if it cannot be unpacked."""
    header_bytes = BASE.unpack_from(container)[1]
    try:
        (method,) = _CONTAINER.unpack_from(container, BASE.size)
    except struct.error as error:
        raise ValueError(f"it has only {len(container)} bytes") from error
    content = container[BASE.size + _CONTAINER.size :]
    # vblf writes the header of another object, so that its containers all seem to be compressed.
    if header_bytes == HEADER_BYTES and content[:1] != _ZLIB_BEGIN:
        method = _STORED
    if method == _STORED:
        return content, True
    if method != _ZLIB:
        raise ValueError(f"it is compressed by the unknown method {method}")
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(content, _CONTAINER_LIMIT)
    except zlib.error as error:
        raise ValueError(f"its compressed data are damaged: {error}") from error
    if len(data) == _CONTAINER_LIMIT:
        raise ValueError(f"it decompresses to more than the limit of {_CONTAINER_LIMIT} bytes")
    return data, unpacker.eof


def _unix_time(start: list[int], clock: WallClock, notes: Notes) -> float:
    """Return the Unix time of a SYSTEMTIME (year, month, day of the week, day, hour, minute, second, millisecond).

    The header does not say the time zone (`agent.sources.log_times`).  Without a date, the log begins at 0.
    """
    year, month, _, day, hour, minute, second, millisecond = start
    try:
        wall = datetime(year, month, day, hour, minute, second, millisecond * 1000)
    except ValueError:
        return 0.0
    return clock.unix_ns(wall, notes) / 1e9
