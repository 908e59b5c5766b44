"""How far frames are durable, for the sources that hold them until then (the packet ring).  Pure, but for `Holder`.

Frames of a bus have positions.  Each campaign has windows of its own, so for each campaign and bus there is a position
up to which everything is in closed windows.  The spool stores it with those windows, in one transaction: after a crash
a source delivers again what it still held, and each campaign skips what it has stored already.

Invariant: a source is told to release frames only when no open window and no batch outside the spool needs them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from can_dbc.frames import FrameBlock


class Holder(Protocol):
    """A source of one bus that keeps each frame until it is released."""

    def begin(self, position: int) -> None:
        """Positions below `position` are used up.  Before the first frame is asked for."""

    def release(self, position: int) -> None:
        """No frame before `position` is needed any more.  Any thread may call it."""

    @property
    def pressed(self) -> bool:
        """Whether it holds so many frames that windows should be closed early."""


class Holdings:
    """The account of all holders, by bus.  One thread at a time."""

    def __init__(self, holders: Mapping[str, Holder], stored: Mapping[str, int]) -> None:
        """`stored`: what `positions` gave, as the spool has it."""
        self._holders = dict(holders)
        self._stored = dict(stored)
        self._taken: dict[str, int] = {}
        self._closed: dict[tuple[str, str], int] = {}
        for bus, holder in self._holders.items():
            holder.begin(max((n for key, n in stored.items() if key.startswith(f"{bus}:")), default=0))

    def take(self, block: FrameBlock) -> None:
        """`block`, in the order of its source, is now decoded and in the open windows."""
        bus = _bus(block)
        if bus in self._holders:
            self._taken[bus] = block.first + len(block)

    def missing(self, campaign: str, blocks: Sequence[FrameBlock]) -> Sequence[FrameBlock]:
        """Those frames of `blocks` that `campaign` has not stored before; `blocks` itself where that is all."""
        if all(block.first >= self._closed_at(campaign, _bus(block)) for block in blocks):
            return blocks
        cut = [
            block.slice(min(len(block), max(0, self._closed_at(campaign, _bus(block)) - block.first)), len(block))
            for block in blocks
        ]
        return [block for block in cut if len(block)]

    def close(self, campaign: str) -> dict[str, int]:
        """The window of `campaign` closes with all that was taken; the positions to store with it."""
        for bus, position in self._taken.items():
            self._closed[campaign, bus] = max(position, self._closed_at(campaign, bus))
        return {_key(campaign, bus): self._closed[campaign, bus] for bus in self._taken}

    def release(self, campaigns: Collection[str]) -> None:
        """All closed windows are durable; release what none of `campaigns` (those in force) has open."""
        for bus, position in self._taken.items():
            self._holders[bus].release(min([position, *(self._closed_at(name, bus) for name in campaigns)]))

    @property
    def pressed(self) -> bool:
        """Whether some holder is."""
        return any(holder.pressed for holder in self._holders.values())

    def _closed_at(self, campaign: str, bus: str) -> int:
        if bus not in self._holders:
            return 0
        return self._closed.get((campaign, bus), self._stored.get(_key(campaign, bus), 0))


def _bus(block: FrameBlock) -> str:
    return block.buses[int(block.bus[0])]


def _key(campaign: str, bus: str) -> str:
    return f"{bus}:{campaign}"
