"""Replay recorded logs as frame blocks, at once (`read_blocks`) or at their recorded pace (`ReplaySource`).

The order of the log is kept even if its timestamps step back.  Blocks are bounded, so memory does not grow with the
log.

The position of a frame is its number among the frames of the wanted channels, counted from 0.  A log can
be read again, so a replay that was interrupted goes on with the first frame that is not durable
(agent.telemetry.collect.holdings).
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

import can
import numpy as np
import structlog

from agent.errors import Permanent
from agent.sources.logs import LogFile
from agent.sources.messages import EXTENDED_IDS, block_of
from agent.sources.pacing import DRAIN_MS, paced
from can_dbc.frames import FD_BYTES, FrameBlock

BLOCK_FRAMES: Final = 4096
_LATEST_S: Final = 2.0**63 / 1e9  # int64 nanoseconds end here, in the year 2262.
_MOST_CHANNELS: Final = 256  # FrameBlock.bus is a byte.
_HEAD_BYTES: Final = 65_536  # A log is recognized by this much of its beginning.
_log = structlog.get_logger()


def read_blocks(
    path: Path,
    *,
    channels: Sequence[str] | None = None,
    block_frames: int = BLOCK_FRAMES,
    skip: int = 0,
    progress: Callable[[int, int], None] = lambda position_bytes, size_bytes: None,
    tell: Callable[[str], None] = lambda note: None,
    zone: str = "",
) -> Generator[FrameBlock]:
    """Yield the frames of a log in blocks of at most `block_frames`, in the order of the log.

    `channels` selects and orders the buses.  None selects all channels, in the order in which they appear; a block then
    names only the buses seen so far, so a later block may name more buses.  A channel with number n is named
    "can<n>", and a channel without a number (csv, db) is named "can0".

    The first `skip` frames of the channels are skipped.  `progress` is called after each block with the number of bytes
    read and the size of the file.  `tell` is called at the end with each note about the log (`LogFile.notes`).
    `zone` is the time zone of dates in the log that name none (`agent.sources.log_times`).

    Raises: Permanent if the log is unreadable, damaged, or without a frame of the channels.  The frames before the
    damage come first.
    """
    names = _Channels(channels, path)
    first = 0
    with LogFile(path, zone) as log:
        messages = log.messages()
        # Frames are skipped one by one, because no format of logs says where frame n is.
        while first < skip and (message := next(messages, None)) is not None:
            first += names.wants(message)
        try:
            for batch in _batches(messages, block_frames):
                if block := _block(batch, names, first, path):
                    yield block
                    first += len(block)
                progress(log.position_bytes, log.size_bytes)
        finally:
            for note in log.notes:
                tell(note)
    if not first:
        raise Permanent(names.nothing())


def _batches(messages: Iterator[can.Message], most: int) -> Iterator[list[can.Message]]:
    """Yield the messages in lists of at most `most`.  The messages before damage come before its error."""
    batch: list[can.Message] = []
    try:
        for message in messages:
            batch.append(message)
            if len(batch) == most:
                yield batch
                batch = []
    except Permanent:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def channels_of(path: Path, zone: str = "") -> tuple[str, ...]:
    """Read a whole log; return the names of its channels, in the order in which they appear.  Raises: Permanent."""
    buses: tuple[str, ...] = ()
    for block in read_blocks(path, zone=zone):
        buses = block.buses
    return buses


class ReplaySource:
    """Replays a log as a source of frames (see `agent.sources.Source`)."""

    def __init__(
        self,
        path: Path,
        *,
        channels: Sequence[str] = (),
        speed: float = 1.0,
        drain_ms: int = DRAIN_MS,
        name: str = "",
        zone: str = "",
    ) -> None:
        """Prepare to replay `channels` at `speed` times real time, or without waiting if `speed` is 0.

        `zone` is the time zone of dates in the log that name none.

        Without `channels`, all channels are replayed, and this call reads the whole log to find them.

        Raises: Permanent if `channels` is empty and the log cannot be read.
        """
        self._path, self._speed, self._drain_ms, self._zone = path, speed, drain_ms, zone
        self._buses = tuple(channels) or channels_of(path, zone)
        self._name = name or path.name
        self._begin = 0
        self.rest = None  # the log keeps its frames
        self.waiting = None  # a file is always there

    @property
    def name(self) -> str:
        """Return the `name` that the constructor got, or the file name of the log if it got none."""
        return self._name

    @property
    def position_name(self) -> str:
        """Return the name under which resume points are stored.

        The name has the file name of the log, and a hash of the channels and of the beginning of the file.
        """
        return f"{self._path.name}@{_fingerprint(self._path, self._buses)}"

    @property
    def held_in(self) -> str:
        """Return the name of the log, which still has every frame of earlier runs."""
        return self.position_name

    def begin(self, *, used: int, needed: int) -> None:
        """Begin the replay at position `needed`, as earlier frames are durable.  Call this method before `blocks`."""
        self._begin = needed

    def release(self, position: int) -> None:
        """Do nothing, because the log keeps its frames."""

    @property
    def pressed(self) -> bool:
        """Return False, because a log never runs out of room."""
        return False

    @property
    def buses(self) -> tuple[str, ...]:
        """Return the channels that are replayed."""
        return self._buses

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """Yield the log's frames when they are due.  Raises: Permanent if the log is damaged."""
        reading = read_blocks(
            self._path,
            channels=self._buses,
            skip=self._begin,
            zone=self._zone,
            tell=lambda note: _log.warning("log_note", log=self._name, note=note),
        )
        if self._begin:
            _log.info(
                "log_continues", log=self._name, frame=self._begin, to_replay_all="copy the log to another file name"
            )
        # One thread reads from beginning to end, because Python's SQLite connections must not change threads.
        with ThreadPoolExecutor(1, thread_name_prefix="replay") as thread:
            try:
                blocks = iter(lambda: thread.submit(next, reading, None).result(), None)
                async for block in paced(blocks, speed=self._speed, drain_ms=self._drain_ms):
                    yield block
            finally:
                # For the same reason, the generator must be closed in the thread that ran it.
                thread.submit(reading.close)


class _Channels:
    """Numbers the channels in `wanted` by their order.  If `wanted` is None, numbers all channels as they appear."""

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
        """Return the number of the bus of a python-can channel, or None if the channel is not wanted."""
        if channel not in self._seen:
            self._seen[channel] = self._named(f"can{channel or 0}" if isinstance(channel, int | None) else channel)
        return self._seen[channel]

    def wants(self, message: can.Message) -> bool:
        """Return whether a message belongs to a wanted channel."""
        return self.number(cast(str | int | None, message.channel)) is not None

    def _named(self, name: str) -> int | None:
        if self._open and len(self._number) == _MOST_CHANNELS and name not in self._number:
            raise Permanent(
                f"{self._path}: the log has more than {_MOST_CHANNELS} channels; check that its suffix fits its format"
            )
        if self._open:
            return self._number.setdefault(name, len(self._number))
        if name not in self._number:
            self._others.add(name)
        return self._number.get(name)

    def nothing(self) -> str:
        """Return the error message for a log that has no frame of the wanted channels."""
        if not self._others:
            return f"{self._path}: the log holds no CAN frame; check that its suffix fits its format"
        return (
            f"{self._path}: the log has no frame of {', '.join(self._number)}; "
            f"its channels are {', '.join(sorted(self._others))}: name one of these"
        )


def _fingerprint(path: Path, channels: Sequence[str]) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # The error is reported when the log is read.
        head = b""
    # A log that is replaced by another of the same name must not continue where the earlier log ended.
    return hashlib.sha256("\0".join(channels).encode() + b"\0" + head).hexdigest()[:12]


def _block(batch: Sequence[can.Message], names: _Channels, first: int, path: Path) -> FrameBlock | None:
    """Return a frame block of the messages in `batch` that belong to wanted channels, or None if there are none.

    Raises: Permanent if such a message cannot be a frame.
    """
    buses = [names.number(cast(str | int | None, message.channel)) for message in batch]
    if None in buses:
        batch = [message for message, bus in zip(batch, buses, strict=True) if bus is not None]
    if not batch:
        return None
    _require_possible(batch, path)
    return block_of(batch, names.buses, first, [bus for bus in buses if bus is not None])


def _require_possible(batch: Sequence[can.Message], path: Path) -> None:
    """Raise Permanent if a message of `batch` cannot be a frame.  The error names the first such message."""
    # A log is judged less strictly than a live bus (messages.is_frame).  Tools write cut frames with their original
    # length, and the decoder counts such frames as refused.  Only values that no frame block can hold are damage.
    times = np.array([message.timestamp for message in batch], np.float64)
    ids = [message.arbitration_id for message in batch]
    timely = np.isfinite(times) & (np.abs(times) < _LATEST_S)
    longest = max(len(message.data) for message in batch)
    if longest > FD_BYTES or min(ids) < 0 or max(ids) >= EXTENDED_IDS or not timely.all():
        raise Permanent(_impossible(batch, path))


def _impossible(batch: Sequence[can.Message], path: Path) -> str:
    for message in batch:
        frame = f"{path}: the frame at {message.timestamp} s"
        if len(message.data) > FD_BYTES:
            return f"{frame} has {len(message.data)} data bytes; CAN has at most {FD_BYTES}, so export the log again"
        if not 0 <= message.arbitration_id < EXTENDED_IDS:
            return (
                f"{frame} has identifier {message.arbitration_id:#x}; CAN has at most 29 bits, so export the log again"
            )
    return f"{path}: a timestamp is not a number of seconds since 1970; export the log again"
