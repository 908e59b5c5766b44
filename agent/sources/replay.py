"""Replay of recorded logs: frames of a log as blocks, at once (`read_blocks`) or at the pace they had (`ReplaySource`).

The order of the log is kept even where its timestamps step back.  Times are rounded to the microsecond, which is what
python-can's float seconds hold exactly.  Blocks are bounded, so memory does not grow with the log.

A frame's position is its number among the frames of the channels.  A log can be read again, so it holds every frame
(agent.telemetry.collect.holdings): a replay that was interrupted goes on with the first frame that is not durable.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, cast

import can
import numpy as np
import structlog

from agent.errors import Permanent
from agent.sources.logs import LogFile
from agent.sources.pacing import paced
from can_dbc.frames import BRS, CLASSIC_BYTES, ERROR, ESI, EXTENDED, FD, FD_BYTES, REMOTE, FrameBlock

BLOCK_FRAMES: Final = 4096
_EXTENDED_BITS: Final = 29
_LATEST_S: Final = 2.0**63 / 1e9  # the end of int64 nanoseconds
_MOST_CHANNELS: Final = 256  # FrameBlock.bus is a byte
_HEAD_BYTES: Final = 65_536  # by which a log is known
_log = structlog.get_logger()


def read_blocks(
    path: Path,
    *,
    channels: Sequence[str] | None = None,
    block_frames: int = BLOCK_FRAMES,
    skip: int = 0,
    progress: Callable[[int, int], None] = lambda position_bytes, size_bytes: None,
) -> Generator[FrameBlock]:
    """The frames of a log, `block_frames` at a time, in its order.

    `channels` selects and orders the buses; None takes all as they appear, and then `buses` of a later block may be
    longer (never reordered).  A channel that is a number n, or not given (csv, db: 0), is named "can<n>".  `skip`
    frames of the channels are passed over.  `progress` is called after each block.  Raises Permanent: unreadable,
    damaged, or without a frame of the channels.
    """
    names = _Channels(channels, path)
    first = 0
    with LogFile(path) as log:
        messages = log.messages()
        while first < skip and (message := next(messages, None)) is not None:
            first += names.wants(message)
        while batch := list(islice(messages, block_frames)):
            if block := _block(batch, names, first, path):
                yield block
                first += len(block)
            progress(log.position_bytes, log.size_bytes)
    if not first:
        raise Permanent(names.nothing())


def channels_of(path: Path) -> tuple[str, ...]:
    """The names of all channels of a log, in the order in which they appear: one pass over it.  Raises Permanent."""
    buses: tuple[str, ...] = ()
    for block in read_blocks(path):
        buses = block.buses
    return buses


class ReplaySource:
    """A log as a source of frames; see `agent.sources.Source`."""

    def __init__(
        self, path: Path, *, channels: Sequence[str] = (), speed: float = 1.0, drain_ms: int = 50, name: str = ""
    ) -> None:
        """`speed` in frame time per wall time, 0 without waiting; no `channels`: all, found by a pass over the log."""
        self._path, self._speed, self._drain_ms = path, speed, drain_ms
        self._buses = tuple(channels) or channels_of(path)
        self._name = name or path.name
        self._begin = 0

    @property
    def name(self) -> str:
        """What the settings call this source."""
        return self._name

    @property
    def position_name(self) -> str:
        """The log by its name, its first bytes and the channels: what the positions count."""
        return f"{self._path.name}@{_fingerprint(self._path, self._buses)}"

    @property
    def resumes(self) -> bool:
        """A log has all of its frames."""
        return True

    def begin(self, *, used: int, needed: int) -> None:
        """Frames before `needed` are delivered already."""
        self._begin = needed

    def release(self, position: int) -> None:
        """The log keeps its frames."""

    @property
    def pressed(self) -> bool:
        """A log has room for its frames."""
        return False

    @property
    def buses(self) -> tuple[str, ...]:
        """The channels that are replayed."""
        return self._buses

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """The log's frames when they are due.  Raises Permanent where the log is damaged."""
        reading = read_blocks(self._path, channels=self._buses, skip=self._begin)
        if self._begin:
            _log.info("log_continues", log=self._name, frame=self._begin, to_replay_all="copy it under another name")
        # One thread reads from beginning to end: the SQLite reader may not change threads.
        with ThreadPoolExecutor(1, thread_name_prefix="replay") as thread:
            try:
                blocks = iter(lambda: thread.submit(next, reading, None).result(), None)
                async for block in paced(blocks, speed=self._speed, drain_ms=self._drain_ms):
                    yield block
            finally:
                thread.submit(reading.close)


class _Channels:
    """Numbers for channel names: those asked for, or all in the order in which they appear."""

    def __init__(self, wanted: Sequence[str] | None, path: Path) -> None:
        self._path = path
        self._open = wanted is None
        self._number: dict[str, int] = {name: number for number, name in enumerate(wanted or ())}
        self._seen: dict[str | int | None, int | None] = {}
        self._others: set[str] = set()

    @property
    def buses(self) -> tuple[str, ...]:
        return tuple(self._number)

    def number(self, channel: str | int | None) -> int | None:
        """The bus of a python-can channel, None where it is not wanted."""
        if channel not in self._seen:
            self._seen[channel] = self._named(f"can{channel or 0}" if isinstance(channel, int | None) else channel)
        return self._seen[channel]

    def wants(self, message: can.Message) -> bool:
        """Whether it is a frame of the channels."""
        return self.number(cast(str | int | None, message.channel)) is not None

    def _named(self, name: str) -> int | None:
        if self._open and len(self._number) == _MOST_CHANNELS and name not in self._number:
            raise Permanent(
                f"{self._path}: more than {_MOST_CHANNELS} channels; is it of another format than its name says?"
            )
        if self._open:
            return self._number.setdefault(name, len(self._number))
        if name not in self._number:
            self._others.add(name)
        return self._number.get(name)

    def nothing(self) -> str:
        """The message for a log without a frame of the wanted channels."""
        if not self._others:
            return f"{self._path}: the log holds no CAN frame; is it of another format than its name says?"
        return f"{self._path}: no frame of {', '.join(self._number)}; the log has {', '.join(sorted(self._others))}"


def _fingerprint(path: Path, channels: Sequence[str]) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # reading the log says why
        head = b""
    return hashlib.sha256("\0".join(channels).encode() + b"\0" + head).hexdigest()[:12]


def _block(batch: Sequence[can.Message], names: _Channels, first: int, path: Path) -> FrameBlock | None:
    """Frames of the wanted channels as columns; None where there is none.  Raises Permanent on what is no CAN frame."""
    buses = [names.number(cast(str | int | None, message.channel)) for message in batch]
    if None in buses:
        batch = [message for message, bus in zip(batch, buses, strict=True) if bus is not None]
        buses = [bus for bus in buses if bus is not None]
    if not batch:
        return None
    times = np.array([message.timestamp for message in batch], np.float64)
    ids = [message.arbitration_id for message in batch]
    lengths = [len(message.data) for message in batch]
    timely = np.isfinite(times) & (np.abs(times) < _LATEST_S)
    if max(lengths) > FD_BYTES or min(ids) < 0 or max(ids) >> _EXTENDED_BITS or not timely.all():
        raise Permanent(_impossible(batch, path))
    width = CLASSIC_BYTES if max(lengths) <= CLASSIC_BYTES else FD_BYTES
    data = b"".join([message.data.ljust(width, b"\0") for message in batch])
    return FrameBlock(
        t_ns=np.rint(times * 1e6).astype(np.int64) * 1000,
        bus=np.array(buses, np.uint8),
        can_id=np.array(ids, np.uint32),
        flags=np.array([_flags(message) for message in batch], np.uint8),
        length=np.array(lengths, np.uint8),
        data=np.frombuffer(data, np.uint8).reshape(-1, width),
        buses=names.buses,
        first=first,
    )


def _flags(message: can.Message) -> int:
    flags = EXTENDED if message.is_extended_id else 0
    if message.is_remote_frame:
        flags |= REMOTE
    if message.is_error_frame:
        flags |= ERROR
    if message.is_fd:
        flags |= FD | (BRS if message.bitrate_switch else 0) | (ESI if message.error_state_indicator else 0)
    return flags


def _impossible(batch: Sequence[can.Message], path: Path) -> str:
    for message in batch:
        frame = f"{path}: the frame at {message.timestamp} s"
        if len(message.data) > FD_BYTES:
            return f"{frame} has {len(message.data)} data bytes; CAN has at most {FD_BYTES}"
        if message.arbitration_id < 0 or message.arbitration_id >> _EXTENDED_BITS:
            return f"{frame} has identifier {message.arbitration_id:#x}; CAN has at most {_EXTENDED_BITS} bits"
    return f"{path}: a timestamp is not a number of seconds since 1970; export the log again"
