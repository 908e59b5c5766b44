"""Decodes the frames of one message or one container into columns of raw integers.  Pure.

Decoding a message takes one set of array operations, however many signals it has.  Frames of a container are taken
apart into PDUs (can_dbc/containers.py).  The PDUs of a contained message are decoded together, as if they were frames
with the identifier and time of the frames that held them.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.bits import Extraction, Words
from can_dbc.containers import Unpacked
from can_dbc.errors import DecodeError
from can_dbc.frames import FD_BYTES, FrameBlock
from can_dbc.plan import MessagePlan
from can_dbc.refusals import Refused, RefusedFrames
from can_dbc.selector import Selector


class SignalColumns(msgspec.Struct, frozen=True, eq=False):
    """Holds the decoded frames of one message on one bus, in block order.

    On a bus that is matched by PGN, all frames come from one sender.  `n` is the number of frames.  For a contained
    message, `n` is the number of PDUs, and a frame may hold several PDUs.

    `rows` (n,) int64 are the indices of the frames in the block.  `t_ns` (n,) int64 are their times.  `signals` (S,)
    are indices into `message.signals`.  `raw` (S, n) int64 are the raw values; unsigned 64-bit values and IEEE floats
    are bit patterns.  `valid` (S, n) bool says whether the multiplexers of the frame select the signal.  If they do
    not, the raw value means nothing.  If `valid` is None, all values are valid.  `source_address` is 0 to 255 for
    29-bit identifiers of a bus that is matched by PGN, and None otherwise.
    """

    bus: int
    message: MessagePlan
    rows: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    signals: tuple[int, ...]
    raw: NDArray[np.int64]
    valid: NDArray[np.bool_] | None
    source_address: int | None = None


class Frames(msgspec.Struct, frozen=True, eq=False):
    """Holds frames sorted by message.

    `rows` are the indices of the frames in the block, `t_ns` their times, and `length` their numbers of data bytes.
    `data` is the zero-padded data of the whole block in block order.  `words` is the data of the frames at
    `rows`, in that order.  For the PDUs of a container, `data` and `words` both have the order of the PDUs.
    """

    rows: NDArray[np.intp]
    t_ns: NDArray[np.int64]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]
    words: Words


def frames_at(block: FrameBlock, rows: NDArray[np.intp] | None) -> Frames:
    """Return the frames at `rows` of the block, or all frames in block order if `rows` is None."""
    if rows is None:
        return Frames(np.arange(len(block)), block.t_ns, block.length, block.data, Words(block.data, None))
    return Frames(rows, block.t_ns.take(rows), block.length.take(rows), block.data, Words(block.data, rows))


class MessageDecoder:
    """Decodes the wanted signals of one message.

    `has_source` says whether the identifiers of the message end in a source address.
    """

    def __init__(self, bus: int, plan: MessagePlan, wanted: tuple[int, ...], *, has_source: bool) -> None:
        """Prepare to decode the signals with the indices `wanted`.

        Raises: DecodeError if the message does not have one of these signals.
        """
        if any(not 0 <= index < len(plan.signals) for index in wanted):
            raise DecodeError(
                f"{plan.name} has the signals 0 to {len(plan.signals) - 1}, but {wanted} are wanted; "
                "ask only for signals of the message"
            )
        self._bus, self._plan, self._wanted = bus, plan, wanted
        self.has_source = has_source
        self._defect = None if plan.defect is None else Refused(plan.defect)
        # Multiplexers are always decoded, after the wanted signals, because they decide what a frame holds.  The count
        # of unlisted numbers must not depend on how many signals of a frame are wanted.
        rows = list(wanted) + [m.signal for m in plan.multiplexers if m.signal not in wanted]
        cut = [plan.signals[index] for index in rows]
        self._extraction = None
        if self._defect is None and plan.length <= FD_BYTES:
            self._extraction = Extraction(cut)
        self._selectors = [Selector(m, plan, rows) for m in plan.multiplexers]
        self._selected = any(signal.multiplexer is not None for signal in cut[: len(wanted)])

    def decode(
        self, frames: Frames, start: int, stop: int, shortest: int, refused: RefusedFrames
    ) -> tuple[SignalColumns, ...]:
        """Decode the frames `start` to `stop` - 1, and add those that do not decode to `refused`.

        `shortest` is the least length of these frames in bytes.
        """
        name = self._plan.name
        rows, t_ns = frames.rows[start:stop], frames.t_ns[start:stop]
        if self._defect is not None:
            refused.add(self._defect, rows, name)
            return ()
        enough: NDArray[np.bool_] | None = None
        if shortest < self._plan.length:
            enough = frames.length[start:stop] >= self._plan.length
            refused.add(Refused.SHORT, rows[~enough], name)
            if not enough.any():
                return ()
        assert self._extraction is not None  # No frame has enough data for more than FD_BYTES.
        raw = self._extraction(frames.words, start, stop)
        if enough is not None:
            rows, t_ns, raw = rows[enough], t_ns[enough], raw[:, enough]
        valid = None
        if self._selectors:
            valid = self._select(raw, rows, refused)
        count = len(self._wanted)
        shown = valid[:count] if valid is not None and self._selected else None
        if len(raw) > count:
            raw = raw[:count]
        return (SignalColumns(self._bus, self._plan, rows, t_ns, self._wanted, raw, shown),)

    def _select(self, raw: NDArray[np.int64], rows: NDArray[np.intp], refused: RefusedFrames) -> NDArray[np.bool_]:
        """Return which signals (signals, n) the multiplexers of each frame select, and count unlisted numbers."""
        # A multiplexer comes before the multiplexers that it selects.  The validity of each multiplexer is therefore
        # known before its number is looked up.
        valid = np.ones(raw.shape, np.bool_)
        for selector in self._selectors:
            asked = valid[selector.row]
            column = selector.columns(raw[selector.row])
            unlisted = asked & (column == selector.unlisted)
            refused.add_unlisted(rows[unlisted], self._plan.name, selector.name)
            valid[selector.children] = selector.table[:, column] & asked
        return valid


class ContainerDecoder:
    """Decodes the wanted contained messages of one container."""

    def __init__(
        self, plan: MessagePlan, inner: Sequence[tuple[MessagePlan, MessageDecoder]], *, has_source: bool
    ) -> None:
        """Prepare to decode the messages in `inner`, which pairs each wanted contained message with its decoder."""
        self._plan, self._inner = plan, inner
        self._header_ids = [message.header_id for message in plan.contained if message.header_id is not None]
        self.has_source = has_source

    def decode(
        self, frames: Frames, start: int, stop: int, _shortest: int, refused: RefusedFrames
    ) -> Iterator[SignalColumns]:
        """Yield the columns of the contained messages in the frames `start` to `stop` - 1.

        Frames and PDUs that do not decode are added to `refused`.
        """
        name, rows = self._plan.name, frames.rows[start:stop]
        # The database says that a frame of this container has at most `length` bytes, so a longer frame is refused.
        long = frames.length[start:stop] > self._plan.length
        refused.add(Refused.LONG, rows[long], name)
        held = start + np.flatnonzero(~long)
        rows, t_ns, length = frames.rows[held], frames.t_ns[held], frames.length[held]
        unpacked = Unpacked(frames.data[rows], length, self._header_ids)
        refused.add(Refused.TRUNCATED, rows[unpacked.truncated], name)
        refused.add(Refused.HEADER, rows[unpacked.unlisted], name)
        refused.containers += int(np.count_nonzero(~unpacked.truncated))
        refused.pdus += unpacked.count
        for plan, message in self._inner:
            assert plan.header_id is not None
            pdus = unpacked.of(plan.header_id, min(plan.length, FD_BYTES))
            if count := len(pdus.frame):
                words = Words(pdus.data, None)
                inner = Frames(rows[pdus.frame], t_ns[pdus.frame], pdus.length, pdus.data, words)
                yield from message.decode(inner, 0, count, int(pdus.length.min()), refused)
