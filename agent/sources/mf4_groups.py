"""Read the frames of an MF4 log from its channel groups, by asammdf.

Pure.  ASAM's standard for bus logging gives each kind of frame a structure (`CAN_DataFrame`, `CAN_RemoteFrame`,
`CAN_ErrorFrame`) with members such as `CAN_DataFrame.ID`.  Writers leave out members that are always the same, and
choose the types of the others.  python-can's reader expects one form, and refuses a whole log for one group that
differs (https://github.com/hardbyte/python-can/issues/1913), so this module reads the groups itself:

    member missing   meaning
    IDE              bit 31 of ID says that the identifier has 29 bits
    DataLength       the length follows from DLC, and for CAN FD frames from the table of CAN FD
    DataBytes        a remote or error frame has no data
    BusChannel       the log has one bus
    EDL              a frame of more than 8 bytes is a CAN FD frame

A group whose frames cannot be told from its members is not read, but counted in a note.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.frames import CLASSIC_BYTES, FD_BYTES

_KINDS: Final = ("CAN_DataFrame", "CAN_RemoteFrame", "CAN_ErrorFrame")
_ROWS: Final = 4096  # records read in one call; a call of asammdf costs as much as some hundred records
_EXTENDED: Final = 0x8000_0000
_ID_BITS: Final = 0x1FFF_FFFF
_STANDARD_LIMIT: Final = 0x7FF
_FD_LENGTHS: Final = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64])  # by DLC, ISO 11898-1
_VLSD: Final = 0x1  # flag of a channel group that only holds the values of another group's channel


class Mf4Frame(msgspec.Struct, array_like=True):
    """One frame, with the names of python-can's Message.  `channel` is the number of the bus, or None."""

    timestamp: float
    arbitration_id: int
    is_extended_id: bool
    is_remote_frame: bool
    is_error_frame: bool
    is_fd: bool
    bitrate_switch: bool
    error_state_indicator: bool
    channel: int | None
    dlc: int
    data: bytes


class OddGroupError(Exception):
    """Says why the frames of a group cannot be told from its members."""


def frames_of(mdf: Any, tell: Callable[[str], None]) -> Iterator[Mf4Frame]:
    """Yield the frames of all groups of an `asammdf.MDF`, in the order of their times.

    `tell` gets a note for each group that is not read.

    Raises: EOFError, after all other frames, if a group has fewer records than the log says, and what asammdf raises.
    """
    start_s = mdf.header.start_time.timestamp()
    groups = []
    for number, group in enumerate(mdf.groups):
        names = {channel.name for channel in group.channels}
        records = group.channel_group.cycles_nr
        kind = next((kind for kind in _KINDS if kind in names), None)
        if kind:
            groups.append(_Group(mdf, number, kind, start_s, tell))
        elif records and not group.channel_group.flags & _VLSD:
            tell(f"channel group {number} holds no CAN frames; records not read: {records:,}")
    yield from heapq.merge(*groups, key=lambda frame: frame.timestamp)
    if missing := sum(group.missing for group in groups):
        raise EOFError(f"the log says that it has {missing:,} more records of CAN frames")


class _Group:
    """Yields the frames of one channel group."""

    def __init__(self, mdf: Any, number: int, kind: str, start_s: float, tell: Callable[[str], None]) -> None:
        self._mdf, self._number, self._kind, self._start_s, self._tell = mdf, number, kind, start_s, tell
        self._channels = {channel.name: channel for channel in mdf.groups[number].channels}
        self.missing = mdf.groups[number].channel_group.cycles_nr
        """The records that have not been read yet."""

    def __iter__(self) -> Iterator[Mf4Frame]:
        first, end = 0, self.missing
        try:
            # Records that are declared invalid give no frames, so the records are counted by their times.
            while first < end and (records := len(self._mdf.get_master(self._number, None, first, _ROWS))):
                yield from self._frames(first)
                self.missing -= records
                first += _ROWS
        except OddGroupError as error:
            self._note(str(error))
        except (IndexError, TypeError, KeyError, ValueError) as error:
            # A broken group of frames without data must not cost the data of the other groups.
            if self._kind == "CAN_DataFrame":
                raise
            self._note(f"{type(error).__name__}: {error}")

    def _note(self, reason: str) -> None:
        self._tell(f"channel group {self._number} ({self._kind}), records not read: {self.missing:,}, because {reason}")
        self.missing = 0

    def _frames(self, first: int) -> list[Mf4Frame]:
        signal = self._mdf.get(self._kind, self._number, record_offset=first, record_count=_ROWS)
        rows, times = signal.samples, signal.timestamps.astype(np.float64) + self._start_s
        count = len(rows)
        members = _Members(
            {name.removeprefix(f"{self._kind}."): rows[name] for name in rows.dtype.names or ()},
            lambda member: self._raw(member, first),
            count,
        )
        error, remote = self._kind == "CAN_ErrorFrame", self._kind == "CAN_RemoteFrame"
        ids = members.whole("ID", 0 if error else None)
        extended = members.flag("IDE") if members.has("IDE") else ids & _EXTENDED != 0
        ids &= _ID_BITS
        lengths, codes = self._lengths(members)
        fd = members.flag("EDL") if members.has("EDL") else lengths > CLASSIC_BYTES
        channels = members.whole("BusChannel", -1).tolist()
        data = [b""] * count if remote else self._data(members, lengths)
        columns = zip(
            times.tolist(),
            ids.tolist(),
            # Identifiers above 0x7FF cannot have 11 bits, whatever IDE says.
            (extended | (ids > _STANDARD_LIMIT)).tolist(),
            (members.flag("RTR") | remote).tolist(),
            fd.tolist(),
            (members.flag("BRS") & fd).tolist(),
            (members.flag("ESI") & fd).tolist(),
            channels,
            codes.tolist(),
            data,
            strict=True,
        )
        return [
            Mf4Frame(t, i, ext, rtr, error, is_fd, brs, esi, None if bus < 0 else bus, dlc, content)
            for t, i, ext, rtr, is_fd, brs, esi, bus, dlc, content in columns
        ]

    def _lengths(self, members: "_Members") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of data bytes of each frame, and the number that a remote frame asks for."""
        if members.has("DataLength"):
            lengths = members.whole("DataLength")
        elif members.has("DLC"):
            codes = members.whole("DLC").clip(0, 15)
            lengths = np.where(members.flag("EDL"), _FD_LENGTHS[codes], codes.clip(0, CLASSIC_BYTES))
        elif self._kind == "CAN_DataFrame":
            raise OddGroupError("it has neither DataLength nor DLC")
        else:
            lengths = members.whole("DLC", 0)
        if self._kind == "CAN_RemoteFrame" and members.has("DLC"):
            return lengths, members.whole("DLC")
        return lengths, lengths

    def _data(self, members: "_Members", lengths: NDArray[np.int64]) -> list[bytes]:
        if not members.has("DataBytes"):
            if self._kind == "CAN_DataFrame" and lengths.any():
                raise OddGroupError("it has no DataBytes")
            return [b""] * len(lengths)
        column = members.column("DataBytes")
        if column.dtype == np.uint8 and column.ndim == 2:
            width = column.shape[1]
            whole = np.ascontiguousarray(column).tobytes()
            rows = [whole[at : at + width] for at in range(0, len(whole), width)] if width else [b""] * len(column)
        elif column.dtype.kind in "uif" and column.ndim == 1:
            rows = self._bytes_of_numbers(column)
        elif column.dtype.kind in "SV" or column.dtype == object:
            rows = [bytes(value) for value in column]
        else:
            raise OddGroupError(f"its DataBytes have the type {column.dtype}")
        return [row[: min(length, FD_BYTES)] for row, length in zip(rows, lengths.tolist(), strict=True)]

    def _bytes_of_numbers(self, column: NDArray[Any]) -> list[bytes]:
        """Return the bytes of numbers, in the byte order that the log has for them."""
        bits = self._channels[f"{self._kind}.DataBytes"].bit_count
        size, wide = (bits + 7) // 8, column.dtype.itemsize
        whole = np.ascontiguousarray(column).tobytes()
        # asammdf widens numbers of 3 or 5 bytes to 4 or 8, with zeros on the side of the most significant byte.
        big = column.dtype.byteorder == ">" and wide > 1
        skip = wide - size if big else 0
        return [whole[at + skip : at + skip + size] for at in range(0, len(whole), wide)]

    def _raw(self, member: str, first: int) -> NDArray[Any]:
        name = f"{self._kind}.{member}"
        samples: NDArray[Any] = self._mdf.get(
            name, self._number, raw=True, record_offset=first, record_count=_ROWS
        ).samples
        return samples


class _Members:
    """The members of some records as columns."""

    def __init__(self, columns: dict[str, NDArray[Any]], raw: Callable[[str], NDArray[Any]], count: int) -> None:
        """Take the columns and `raw`, which returns a column without the conversions that the log describes."""
        self._columns, self._raw, self._count = columns, raw, count

    def has(self, member: str) -> bool:
        return member in self._columns

    def column(self, member: str) -> NDArray[Any]:
        return self._columns[member]

    def whole(self, member: str, default: int | None = None) -> NDArray[np.int64]:
        """Return a member as whole numbers, or `default` for each record.

        Raises: OddGroupError if the member is missing and `default` is None, or if the member is not a number.
        """
        if member not in self._columns:
            if default is None:
                raise OddGroupError(f"it has no {member}")
            return np.full(self._count, default, np.int64)
        column = self._columns[member]
        # A rule may turn numbers into texts, such as 0 into "Rx".
        if column.dtype.kind not in "uifb":
            column = self._raw(member)
        if column.dtype.kind not in "uifb" or column.ndim != 1:
            raise OddGroupError(f"its {member} has the type {column.dtype}")
        return column.astype(np.int64)

    def flag(self, member: str) -> NDArray[np.bool_]:
        """Return a member as truth values.  A flag that is missing is False."""
        values: NDArray[np.bool_] = self.whole(member, 0) != 0
        return values
