"""How far frames are durable, for the sources that can deliver them again (a packet ring, a log).  Pure.

Frames of such a source have positions.  Each campaign has windows of its own, so for each campaign and source there is
a position up to which everything is in closed windows.  The spool stores it with those windows, in one transaction:
after a crash a source delivers again what was not stored, and each campaign skips what it has stored already.

Invariant: a source is told to release frames only when no open window and no batch outside the spool needs them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from can_dbc.frames import FrameBlock


@runtime_checkable
class Holder(Protocol):
    """A source that keeps each frame until it is released, or finds it again."""

    @property
    def buses(self) -> tuple[str, ...]:
        """What it delivers; no other source does."""

    @property
    def position_name(self) -> str:
        """What its positions are stored under."""

    @property
    def resumes(self) -> bool:
        """Whether it still has what it delivered before this run, and was not told to release."""

    def begin(self, *, used: int, needed: int) -> None:
        """Positions below `used` are used up; frames before `needed` nobody wants.  Before the first frame comes."""

    def release(self, position: int) -> None:
        """No frame before `position` is needed any more.  Any thread may call it."""

    @property
    def pressed(self) -> bool:
        """Whether it holds so many frames that they should be made durable now."""


class Holdings:
    """The account of all holders.  One thread at a time."""

    def __init__(self, holders: Iterable[Holder], stored: Mapping[str, int]) -> None:
        """`stored`: what `close` gave, as the spool has it."""
        self._holders = {holder.position_name: holder for holder in holders}
        self._owners = {bus: name for name, holder in self._holders.items() for bus in holder.buses}
        self._stored = dict(stored)
        self._campaigns: frozenset[str] = frozenset()
        self._taken: dict[str, int] = {}
        self._closed: dict[tuple[str, str], int] = {}

    def put_in_force(self, campaigns: Collection[str]) -> None:
        """These campaigns collect from here on; no window is open.  Says to holders without a frame yet where to begin.

        A campaign that is new begins where the others are, not with what was before it.
        """
        for name, holder in self._holders.items():
            used = max((n for key, n in self._stored.items() if key.startswith(f"{name}:")), default=0)
            for campaign in campaigns:
                if name in self._taken and campaign not in self._campaigns:
                    self._closed[campaign, name] = self._taken[name]
                elif name not in self._taken:
                    self._closed[campaign, name] = self._stored.get(_key(campaign, name), used)
            if name not in self._taken:
                holder.begin(used=used, needed=min((self._closed[c, name] for c in campaigns), default=used))
        self._campaigns = frozenset(campaigns)

    def take(self, block: FrameBlock) -> None:
        """`block`, in the order of its source, is now decoded and in the open windows."""
        owner = self._owner(block)
        if owner is not None:
            self._taken[owner] = block.first + len(block)

    def missing(self, campaign: str, blocks: Sequence[FrameBlock]) -> Sequence[FrameBlock]:
        """Those frames of `blocks` that `campaign` has not stored before; `blocks` itself where that is all."""
        since = [self._closed_at(campaign, self._owner(block)) for block in blocks]
        if all(block.first >= position for block, position in zip(blocks, since, strict=True)):
            return blocks
        cut = [
            block.slice(min(len(block), max(0, position - block.first)), len(block))
            for block, position in zip(blocks, since, strict=True)
        ]
        return [block for block in cut if len(block)]

    def positions(self, campaigns: Collection[str]) -> dict[str, int]:
        """The positions to store with all that was taken, for `campaigns`; `close` says that it was done.

        Those of the other campaigns too: nobody else stores where one began, or got to, that collects nothing yet.
        """
        return {
            _key(c, name): max(position if c in campaigns else 0, self._closed_at(c, name))
            for c in self._campaigns
            for name, position in self._taken.items()
        }

    def close(self, campaign: str) -> dict[str, int]:
        """The window of `campaign` closes, or a part of it, with all that was taken; the positions to store with it."""
        for name, position in self._taken.items():
            self._closed[campaign, name] = max(position, self._closed_at(campaign, name))
        return self.positions(())

    def release(self, campaigns: Collection[str]) -> None:
        """All closed windows are durable; release what none of `campaigns` (those in force) has open."""
        for name, position in self._taken.items():
            self._holders[name].release(min([position, *(self._closed_at(c, name) for c in campaigns)]))

    @property
    def pressed(self) -> bool:
        """Whether some holder is."""
        return any(holder.pressed for holder in self._holders.values())

    def _owner(self, block: FrameBlock) -> str | None:
        return self._owners.get(block.buses[int(block.bus[0])])

    def _closed_at(self, campaign: str, owner: str | None) -> int:
        return 0 if owner is None else self._closed.get((campaign, owner), 0)


def _key(campaign: str, owner: str) -> str:
    return f"{owner}:{campaign}"
