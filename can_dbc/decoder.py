"""Decodes frame blocks into columns of raw integers, separately for each message.  Pure.

The values equal those of cantools.  The frames of a block are grouped by bus and identifier with one stable sort, and
each group goes to the decoder of its message.  On a bus that is matched by PGN (J1939), the frames of a message are
also separated by source address, because the same signal from two control units is two signals.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.frames import ERROR, EXTENDED, REMOTE, FrameBlock
from can_dbc.message_decoder import ContainerDecoder, MessageDecoder, SignalColumns, frames_at
from can_dbc.plan import EXTENDED_KEY, BusPlan, Match, MessagePlan, match_key, pgn_masked
from can_dbc.refusals import BUS_SHIFT, ID_BITS, STANDARD_IDS, Refusal, Refused, RefusedFrames, Unlisted

__all__ = ["Decoded", "Decoder", "Refusal", "Refused", "SignalColumns", "Unlisted", "Wanted"]

Wanted = Callable[[int, MessagePlan], Sequence[int]]
_BUFFER_VALUES: Final = 128  # numpy buffers rows shorter than this, and then shifts them three times as slowly.
_SOURCE_ADDRESS: Final = 0xFF  # The last byte of an identifier (J1939-21).


class Decoded(msgspec.Struct, frozen=True, eq=False):
    """Holds the result for one block.

    Each frame was decoded into `columns`, refused, taken apart into PDUs, or not wanted.  Likewise, each PDU was
    decoded, refused or not wanted.  A frame with an unlisted multiplexer number is decoded, and counted in `unlisted`.
    """

    columns: tuple[SignalColumns, ...]
    _refused: RefusedFrames

    @property
    def containers(self) -> int:
        """Return how many frames were taken apart into PDUs."""
        return self._refused.containers

    @property
    def pdus(self) -> int:
        """Return the number of PDUs in the frames that were taken apart."""
        return self._refused.pdus

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Return the refused frames, counted by reason and identifier.  The result is computed on each access."""
        return self._refused.by_identifier()

    @property
    def unlisted(self) -> tuple[Unlisted, ...]:
        """Return the number of frames whose multiplexer has a number that the database does not list.

        They are decoded without the signals that the multiplexer selects.  The result is computed on each access.
        """
        return self._refused.unlisted()

    @property
    def refused(self) -> Counter[Refused]:
        """Return the number of refused frames for each reason."""
        return self._refused.by_kind()

    def refused_by_bus(self) -> Counter[int]:
        """Return the number of frames of each bus that were refused."""
        return self._refused.by_bus()


class Decoder:
    """Decodes blocks with the plans of their buses.  It decodes all signals, or only the wanted ones."""

    def __init__(self, plans: Mapping[int, BusPlan], wanted: Wanted | None = None) -> None:
        """Prepare to decode with `plans`.  The key of each plan is the number that frame blocks use for its bus.

        `wanted(bus, message)` is called once for each message, and returns the signals to decode as indices into
        `message.signals`.  If it returns no index, frames of the message are skipped and not even counted as refused.
        A container is skipped if none of its contained messages is wanted.  Whether a frame is refused does not depend
        on how many of its signals are wanted.

        Raises: DecodeError if `wanted` returns an index that the message does not have.
        """
        self._messages: list[MessageDecoder | ContainerDecoder] = []
        self._pgn_buses = [bus for bus, plan in plans.items() if plan.match is Match.PGN]
        groups: dict[int, int] = {}
        for bus, plan in plans.items():
            for message in plan.messages:
                key = bus << BUS_SHIFT | match_key(message.can_id, message.extended, plan.match)
                has_source = message.extended and plan.match is Match.PGN
                made = _prepare(bus, message, wanted, has_source=has_source)
                groups[key] = -1 if made is None else len(self._messages)
                if made is not None:
                    self._messages.append(made)
        count = len(self._messages)
        self._unknown, self._dead, self._skipped = count, count + 1, count + 2
        # numpy sorts integers of at most 16 bits by radix, with one pass for each byte (numpy.sort, kind="stable").
        number = np.min_scalar_type(self._skipped) if self._skipped <= np.iinfo(np.uint16).max else np.int64
        known = sorted(groups)
        self._keys = np.array([*known, np.iinfo(np.int64).max], np.int64)
        numbers = [self._skipped if groups[key] < 0 else groups[key] for key in known]
        self._group_of_key = np.array([*numbers, self._unknown], number)
        # 11-bit identifiers are looked up in a table.  Buses without a plan share its last row.  Longer identifiers
        # share the last entry of each row.
        self._buses = min(max(plans, default=-1) + 1, np.iinfo(np.uint8).max)
        self._standard = np.full((self._buses + 1, STANDARD_IDS + 1), self._unknown, number)
        for key, group in zip(known, numbers, strict=True):
            if not key & EXTENDED_KEY and key & ID_BITS < STANDARD_IDS:
                self._standard[key >> BUS_SHIFT, key & ID_BITS] = group

    def decode(self, block: FrameBlock) -> Decoded:
        """Decode all frames of `block`; frames of a bus without a plan are refused as unknown."""
        refused = RefusedFrames(block)
        columns: list[SignalColumns] = []
        if not len(block):
            return Decoded((), refused)
        group = self._group(block)
        # A block with frames of a single message needs no sorting.
        alone = bool((group == group[0]).all())
        # A stable sort keeps the frames of each message in the order of the bus.
        order = np.arange(len(group)) if alone else np.argsort(group, kind="stable")
        ordered = group if alone else group.take(order)
        changes = ((ordered[1:] != ordered[:-1]).nonzero()[0] + 1).tolist()
        starts, stops = [0, *changes], [*changes, len(group)]
        # The numbers of messages sort before the numbers for unknown, dead and skipped frames.
        numbers: list[int] = ordered.take(starts).tolist()
        known = bisect_left(numbers, self._unknown)
        if known:
            used = order[: stops[known - 1]]
            frames = frames_at(block, None if alone else used)
            shortest = np.minimum.reduceat(frames.length, starts[:known]).tolist()
            # numpy keeps one buffer size for each thread.  It is restored afterwards, so that the caller's own array
            # operations are not affected.
            usual = np.setbufsize(_BUFFER_VALUES)
            try:
                for number, start, stop, length in zip(numbers, starts, stops, shortest, strict=False):
                    message = self._messages[number]
                    for decoded in message.decode(frames, start, stop, length, refused):
                        columns += _by_source(decoded, block) if message.has_source else (decoded,)
            finally:
                np.setbufsize(usual)
        for number, start, stop in zip(numbers[known:], starts[known:], stops[known:], strict=True):
            self._refuse(block, number, order[start:stop], refused)
        return Decoded(tuple(columns), refused)

    def _group(self, block: FrameBlock) -> NDArray[np.int64] | NDArray[np.uint16]:
        """Return one number for each frame: the number of its message, or a special number if it is not decoded.

        - `_unknown`: no message of the bus has the identifier of the frame.
        - `_dead`: the frame is a remote request or an error frame.
        - `_skipped`: the message of the frame is not wanted.
        """
        flags = block.flags
        group: NDArray[np.int64] | NDArray[np.uint16]
        entry = block.can_id
        if entry.max() > STANDARD_IDS:
            entry = np.minimum(entry & ID_BITS, STANDARD_IDS)
        if (highest := block.bus.max()) > 0:
            row = block.bus if highest < self._buses else np.minimum(block.bus, self._buses)
            entry = entry + row.astype(np.uint32) * np.uint32(STANDARD_IDS + 1)
        group = self._standard.take(entry)
        # Frames without flags need only the table.  In most cars this is true of most buses (classic CAN, 11-bit
        # identifiers).
        if not flags.any():
            return group
        extended = np.flatnonzero(flags & EXTENDED)
        if len(extended):
            bus, can_id = block.bus[extended].astype(np.int64), block.can_id[extended].astype(np.int64) & ID_BITS
            if self._pgn_buses:
                can_id = np.where(np.isin(bus, self._pgn_buses), pgn_masked(can_id), can_id)
            key = bus << BUS_SHIFT | EXTENDED_KEY | can_id
            place = np.searchsorted(self._keys, key)
            group[extended] = np.where(self._keys[place] == key, self._group_of_key[place], self._unknown)
        # This comes last, because a remote request or an error frame may have the identifier of a message.
        group[(flags & (REMOTE | ERROR)).astype(bool)] = self._dead
        return group

    def _refuse(self, block: FrameBlock, number: int, rows: NDArray[np.intp], refused: "RefusedFrames") -> None:
        """Count the frames at `rows` as refused if `number` stands for unknown or dead frames, else do nothing."""
        if number == self._unknown:
            refused.add(Refused.UNKNOWN, rows, None)
        elif number == self._dead:
            errors = (block.flags[rows] & ERROR).astype(bool)
            refused.add(Refused.ERROR, rows[errors], None)
            refused.add(Refused.REMOTE, rows[~errors], None)


def _by_source(columns: SignalColumns, block: FrameBlock) -> Iterator[SignalColumns]:
    """Yield the columns of one message separately for each source address."""
    addresses = block.can_id[columns.rows] & _SOURCE_ADDRESS
    present = np.flatnonzero(np.bincount(addresses)).tolist()
    for address in present:
        if len(present) == 1:
            yield msgspec.structs.replace(columns, source_address=address)
            return
        chosen = addresses == address
        yield msgspec.structs.replace(
            columns,
            rows=columns.rows[chosen],
            t_ns=columns.t_ns[chosen],
            raw=columns.raw[:, chosen],
            valid=None if columns.valid is None else columns.valid[:, chosen],
            source_address=address,
        )


def _prepare(
    bus: int, plan: MessagePlan, wanted: Wanted | None, *, has_source: bool
) -> MessageDecoder | ContainerDecoder | None:
    """Return the decoder of a message or container, or None if none of its signals is wanted."""
    if plan.contained:
        inner = [(m, _prepare(bus, m, wanted, has_source=has_source)) for m in plan.contained]
        wanted_inner = [(m, made) for m, made in inner if isinstance(made, MessageDecoder)]
        return ContainerDecoder(plan, wanted_inner, has_source=has_source) if wanted_inner else None
    signals = range(len(plan.signals)) if wanted is None else wanted(bus, plan)
    if wanted is not None and not len(signals):
        return None
    return MessageDecoder(bus, plan, tuple(signals), has_source=has_source)
