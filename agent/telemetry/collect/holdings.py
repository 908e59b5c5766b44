"""How far frames are durable, for the sources that can deliver them again (a packet ring, a log).  Pure.

Such a source counts its frames from 0.  Each campaign has windows of its own, so for each campaign and source there is
a *resume point*: the first frame that is not in a closed window or a checkpoint.  The spool stores resume points with
windows and checkpoints, in one transaction: after a crash a source delivers again what was not stored, and each
campaign skips what it has stored already.

Invariant: a source releases frames only when no open window and no batch outside the spool needs them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from can_dbc.frames import FrameBlock


@runtime_checkable
class Holder(Protocol):
    """A source that keeps each frame until it is released, or finds it again."""

    @property
    def buses(self) -> tuple[str, ...]:
        """The buses that this source, and no other, delivers."""

    @property
    def position_name(self) -> str:
        """The name under which its resume points are stored."""

    @property
    def resumes(self) -> bool:
        """Whether the source still has the unreleased frames of earlier runs."""

    def begin(self, *, used: int, needed: int) -> None:
        """Learn, before the first frame, that numbers below `used` are taken and frames before `needed` not needed."""

    def release(self, number: int) -> None:
        """Release the frames before frame `number`.  Any thread may call it."""

    @property
    def pressed(self) -> bool:
        """Whether it holds so many frames that they should be made durable now."""


class Holdings:
    """Keeps account of all holders.  One thread at a time."""

    def __init__(self, holders: Iterable[Holder], stored: Mapping[str, int]) -> None:
        """`stored`: the resume points that the spool has."""
        self._holders = {holder.position_name: holder for holder in holders}
        self._owners = {bus: name for name, holder in self._holders.items() for bus in holder.buses}
        self._stored = dict(stored)
        self._campaigns: frozenset[str] = frozenset()
        self._taken: dict[str, int] = {}
        self._closed: dict[tuple[str, str], int] = {}

    def put_in_force(self, campaigns: Collection[str]) -> None:
        """Collect for these campaigns from here on, while no window is open; tell holders where to begin.

        A holder that has delivered frames already has begun.  A new campaign begins where the others are, not
        with earlier frames.
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
        """Note that `block`, in the order of its source, is in the open windows from now on."""
        owner = self._owner(block)
        if owner is not None:
            self._taken[owner] = block.first + len(block)

    def missing(self, campaign: str, blocks: Sequence[FrameBlock]) -> Sequence[FrameBlock]:
        """Return the frames of `blocks` that `campaign` has not stored before; `blocks` itself where that is all."""
        since = [self._closed_at(campaign, self._owner(block)) for block in blocks]
        if all(block.first >= first for block, first in zip(blocks, since, strict=True)):
            return blocks
        cut = [
            block.slice(min(len(block), max(0, first - block.first)), len(block))
            for block, first in zip(blocks, since, strict=True)
        ]
        return [block for block in cut if len(block)]

    def resume_points(self, campaigns: Collection[str]) -> dict[str, int]:
        """Return the resume points to store once all that `campaigns` have taken is durable.

        Points of the other campaigns are included, because a campaign that has collected nothing yet stores none.
        """
        return {
            _key(c, name): max(taken if c in campaigns else 0, self._closed_at(c, name))
            for c in self._campaigns
            for name, taken in self._taken.items()
        }

    def close(self, campaign: str) -> dict[str, int]:
        """Note that a window or checkpoint of `campaign` holds all that was taken; return the resume points for it."""
        for name, taken in self._taken.items():
            self._closed[campaign, name] = max(taken, self._closed_at(campaign, name))
        return self.resume_points(())

    def release(self, campaigns: Collection[str]) -> None:
        """Release frames that are in no open window of `campaigns` (all in force); closed windows must be durable."""
        for name, taken in self._taken.items():
            self._holders[name].release(min([taken, *(self._closed_at(c, name) for c in campaigns)]))

    @property
    def pressed(self) -> bool:
        """Whether some holder is pressed."""
        return any(holder.pressed for holder in self._holders.values())

    def _owner(self, block: FrameBlock) -> str | None:
        return self._owners.get(block.buses[int(block.bus[0])])

    def _closed_at(self, campaign: str, owner: str | None) -> int:
        return 0 if owner is None else self._closed.get((campaign, owner), 0)


def _key(campaign: str, owner: str) -> str:
    return f"{owner}:{campaign}"
