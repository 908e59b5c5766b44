"""Message decoders: the frames of one message, or of one container, to columns of raw integers.  Pure.

A message costs one set of array operations, whatever its number of signals.  Frames of a container are taken apart
(can_dbc/containers.py), and the PDUs of a contained message are decoded together as if they were frames of their own,
with the identifier and time of the frame that they came in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    """The decoded frames of one message on one bus, in block order; on a J1939 bus, those of one sender.

    A contained message has a row for each PDU, and a frame may hold several.
    `rows` (n,) int64: places in the block.  `t_ns` (n,) int64.  `signals` (S,): indices into `message.signals`.
    `raw` (S, n) int64: unsigned 64-bit values and IEEE floats are bit patterns.  `valid` (S, n) bool: whether the
    frame's multiplexers select the signal, without which raw means nothing; None if all are valid.
    `source_address`: 0 to 255 for 29-bit identifiers of a bus that is matched by PGN, else None.
    """

    bus: int
    message: MessagePlan
    rows: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    signals: tuple[int, ...]
    raw: NDArray[np.int64]
    valid: NDArray[np.bool_] | None
    source_address: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """All frames that have a message, in the order of the messages: places in the block, times, lengths.

    `data` is that of the whole block, zero-padded; `words` is the same in the order of the messages.
    """

    rows: NDArray[np.intp]
    t_ns: NDArray[np.int64]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]
    words: Words


def frames_at(block: FrameBlock, rows: NDArray[np.intp] | None) -> Frames:
    """Return the frames at `rows` of the block, or all of them as they are."""
    if rows is None:
        return Frames(np.arange(len(block)), block.t_ns, block.length, block.data, Words(block.data, None))
    return Frames(rows, block.t_ns.take(rows), block.length.take(rows), block.data, Words(block.data, rows))


class MessageDecoder:
    """Decodes the wanted signals of one message.

    `has_source` says whether its identifiers end in a source address.
    """

    def __init__(self, bus: int, plan: MessagePlan, wanted: tuple[int, ...], *, has_source: bool) -> None:
        """Prepare to cut out the signals `wanted`.  Raises: DecodeError if the message does not have one of them."""
        if any(not 0 <= index < len(plan.signals) for index in wanted):
            raise DecodeError(f"{plan.name} has signals 0 to {len(plan.signals) - 1}, wanted are {wanted}")
        self._bus, self._plan, self._wanted = bus, plan, wanted
        self.has_source = has_source
        self._defect = None if plan.defect is None else Refused(plan.defect)
        # Multiplexers are always cut out, after the wanted signals, because they decide whether the frame is refused: a
        # frame must be refused by the same rules however few of its signals are wanted.
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
        """Decode the frames start to stop-1, of at least `shortest` bytes; `refused` gets what does not decode."""
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
        assert self._extraction is not None  # A message beyond FD_BYTES never finds enough data.
        raw = self._extraction(frames.words, start, stop)
        if enough is not None:
            rows, t_ns, raw = rows[enough], t_ns[enough], raw[:, enough]
        valid = None
        if self._selectors:
            valid, unlisted, broken = self._select(raw)
            if (wrong := unlisted | broken).any():
                refused.add(Refused.MUX, rows[unlisted], name)
                refused.add(Refused.LAYOUT, rows[broken & ~unlisted], name)
                rows, t_ns, raw, valid = rows[~wrong], t_ns[~wrong], raw[:, ~wrong], valid[:, ~wrong]
                if not len(rows):
                    return ()
        count = len(self._wanted)
        shown = valid[:count] if valid is not None and self._selected else None
        if len(raw) > count:
            raw = raw[:count]
        return (SignalColumns(self._bus, self._plan, rows, t_ns, self._wanted, raw, shown),)

    def _select(self, raw: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return validity (rows, n), frames with an unlisted multiplexer number, and frames of a broken group."""
        # Selecting multiplexers come before selected ones, so the validity of a multiplexer is known when it is asked.
        valid = np.ones(raw.shape, np.bool_)
        unlisted = np.zeros(raw.shape[1], np.bool_)
        broken = np.zeros(raw.shape[1], np.bool_)
        for selector in self._selectors:
            asked = valid[selector.row]
            column = selector.columns(raw[selector.row])
            unlisted |= asked & (column == selector.unlisted)
            broken |= asked & selector.broken[column]
            valid[selector.children] = selector.table[:, column] & asked
        return valid, unlisted, broken


class ContainerDecoder:
    """Decodes those contained messages of a container that are wanted."""

    def __init__(
        self, plan: MessagePlan, inner: Sequence[tuple[MessagePlan, MessageDecoder]], *, has_source: bool
    ) -> None:
        """Prepare to decode `inner`, the contained messages that are wanted with their decoders."""
        self._plan, self._inner = plan, inner
        self._header_ids = [message.header_id for message in plan.contained if message.header_id is not None]
        self.has_source = has_source

    def decode(
        self, frames: Frames, start: int, stop: int, _shortest: int, refused: RefusedFrames
    ) -> Iterator[SignalColumns]:
        """Decode the contained messages of the frames start to stop-1; `refused` gets what does not decode."""
        name, rows = self._plan.name, frames.rows[start:stop]
        # `length` is the most that a frame of this container has: one with more is not what the database describes.
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
