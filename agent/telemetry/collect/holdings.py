"""Keeps account of how far frames are durable, for sources that can deliver them again (a packet ring, a log).

This file is pure.

Such a source counts its frames from 0.  Each campaign has windows of its own, so each pair of campaign and source has a
*resume point*.  That is the number of the first frame that is neither in a closed window nor in a checkpoint.  The
spool stores resume points in the same transaction as windows and checkpoints.  After a crash, a source delivers again
the frames that are not durable.  Each campaign then skips the frames that it has stored already.

Invariant: a source releases frames only when no open window and no batch outside the spool needs them.  The collector
breaks this rule in one case: the disk refuses, and a source has hardly any room left.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from can_dbc.frames import FrameBlock


@runtime_checkable
class Holder(Protocol):
    """A source that keeps each frame until the frame is released, or that can read each frame again."""

    @property
    def buses(self) -> tuple[str, ...]:
        """Return the buses that this source delivers.  No other source delivers them."""

    @property
    def position_name(self) -> str:
        """Return the name under which the source's resume points are stored."""

    @property
    def held_in(self) -> str:
        """Return the name of the ring or log that holds the unreleased frames, or "" if they end with this process.

        A run that finds the same name as the run before it can read the unreleased frames of that run again.
        """

    def begin(self, *, used: int, needed: int) -> None:
        """Prepare to deliver frames.  The call comes before the first frame.

        Frame numbers below `used` are taken by earlier frames, so no new frame may get one of them.  Frames before
        number `needed` need not be delivered again.
        """

    def release(self, number: int) -> None:
        """Release the frames before frame `number`.  Any thread may call this method."""

    @property
    def pressed(self) -> bool:
        """Return whether the source holds so many frames that they should be made durable now."""


class Holdings:
    """Keeps account of how far the frames of all holders are durable.  Only one thread at a time may use it."""

    def __init__(self, holders: Iterable[Holder], stored: Mapping[str, int]) -> None:
        """Begin with the resume points `stored`, which the spool has kept."""
        self._holders = {holder.position_name: holder for holder in holders}
        self._owners = {bus: name for name, holder in self._holders.items() for bus in holder.buses}
        self._stored = dict(stored)
        self._campaigns: frozenset[str] = frozenset()
        self._taken: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._closed: dict[tuple[str, str], int] = {}

    def put_in_force(self, campaigns: Collection[str]) -> None:
        """Replace the campaigns, and call `begin` of each holder that has not delivered frames yet.

        No window may be open.  If a holder has delivered frames already, a new campaign gets none of these.
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
        """Note that the open windows hold the frames of `block` from now on.  Blocks of a source must come in order."""
        owner = self._owner(block)
        if owner is not None:
            self._taken[owner] = block.first + len(block)

    def see(self, block: FrameBlock) -> None:
        """Note that eager consumers take the frames of `block` now.  Blocks of a source must come in order."""
        owner = self._owner(block)
        if owner is not None:
            self._seen[owner] = block.first + len(block)

    def missing(self, campaign: str, blocks: Sequence[FrameBlock]) -> Sequence[FrameBlock]:
        """Return the frames of `blocks` that `campaign` has not stored yet.

        If `campaign` has stored none of the frames, the result is `blocks` itself.
        """
        since = [self._closed_at(campaign, self._owner(block)) for block in blocks]
        if all(block.first >= first for block, first in zip(blocks, since, strict=True)):
            return blocks
        cut = [
            block.slice(min(len(block), max(0, first - block.first)), len(block))
            for block, first in zip(blocks, since, strict=True)
        ]
        return [block for block in cut if len(block)]

    def resume_points(self, campaigns: Collection[str]) -> dict[str, int]:
        """Return the resume points of all campaigns, to be stored with all frames that `campaigns` have taken so far.

        For a campaign that is not in `campaigns`, the present points are returned.  They are stored, too, because such
        a campaign stores no points itself while it has nothing to store.
        """
        return {
            _key(c, name): max(taken if c in campaigns else 0, self._closed_at(c, name))
            for c in self._campaigns
            for name, taken in self._points.items()
        }

    @property
    def _points(self) -> dict[str, int]:
        """Return how far the frames of each holder are taken by windows, for the holders that delivered any."""
        return dict.fromkeys(self._seen, 0) | self._taken

    def points_after_seen(self, campaign: str) -> dict[str, int]:
        """Return the resume points to be stored with all that an eager `campaign` needs of the frames seen so far."""
        return self.resume_points(()) | {_key(campaign, name): seen for name, seen in self._seen.items()}

    def close_seen(self, campaign: str) -> None:
        """Note that an eager `campaign` needs none of the frames seen so far any more."""
        for name, seen in self._seen.items():
            self._closed[campaign, name] = max(seen, self._closed_at(campaign, name))

    def close(self, campaign: str) -> dict[str, int]:
        """Note that a window or checkpoint of `campaign` holds all frames taken so far; return the resume points."""
        for name, taken in self._taken.items():
            self._closed[campaign, name] = max(taken, self._closed_at(campaign, name))
        return self.resume_points(())

    def release(self, campaigns: Collection[str]) -> None:
        """Release the frames that no open window of `campaigns` needs.

        All closed windows must be durable before this call.  Pass all current campaigns.  If `campaigns` is empty, all
        frames taken so far are released.
        """
        for name, taken in self._taken.items():
            self._holders[name].release(min([taken, *(self._closed_at(c, name) for c in campaigns)]))

    @property
    def pressed(self) -> bool:
        """Return whether any holder holds so many frames that they should be made durable now."""
        return any(holder.pressed for holder in self._holders.values())

    def _owner(self, block: FrameBlock) -> str | None:
        return self._owners.get(block.buses[int(block.bus[0])])

    def _closed_at(self, campaign: str, owner: str | None) -> int:
        return 0 if owner is None else self._closed.get((campaign, owner), 0)


def _key(campaign: str, owner: str) -> str:
    return f"{owner}:{campaign}"
