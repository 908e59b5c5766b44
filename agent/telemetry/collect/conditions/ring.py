"""A ring of the newest kept samples of signals that are kept together.  This file is pure.

A closing of a collection takes all samples out, because each sample is sent once.  Samples that were sent would still
take up their places, but this makes no difference: a ring has room for the `size` newest samples, and a sample that was
sent is older than every sample that was not.

Memory grows with the samples, up to RING_SAMPLE_BYTES for each of `size` samples of each signal.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_FIRST_SAMPLES: Final = 16
Samples = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Times (n,) and raw values (members, n)."""


class Ring:
    """Holds samples of the signals `members` (indices among those that a campaign takes from a table)."""

    def __init__(self, members: tuple[int, ...], size: int) -> None:
        self.members = members
        self.size = size
        self._start = 0
        self._count = 0
        self._fresh = 0  # the newest samples that no checkpoint has
        self._t_us = np.empty(0, np.int64)
        self._raw = np.empty((len(members), 0), np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, t_us: NDArray[np.int64], raw: NDArray[np.int64]) -> None:
        """Add samples with the times `t_us` (n,) and the values `raw` (members, n), in the order of arrival."""
        if not len(t_us):
            return
        t_us, raw = t_us[-self.size :], raw[:, -self.size :]
        if len(t_us) == self.size:
            self._start = self._count = 0
        self._make_room(min(self._count + len(t_us), self.size))
        capacity = len(self._t_us)
        place = (self._start + self._count) % capacity
        straight = min(len(t_us), capacity - place)
        self._t_us[place : place + straight] = t_us[:straight]
        self._raw[:, place : place + straight] = raw[:, :straight]
        self._t_us[: len(t_us) - straight] = t_us[straight:]
        self._raw[:, : len(t_us) - straight] = raw[:, straight:]
        self._count += len(t_us)
        if self._count > self.size:
            self._start = (self._start + self._count - self.size) % capacity
            self._count = self.size
        self._fresh = min(self._fresh + len(t_us), self._count)

    def take(self) -> Samples:
        """Remove all samples, and return their times (n,) and values (members, n), in the order of arrival."""
        t_us, raw = self.copy()
        self._start = self._count = self._fresh = 0
        return t_us, raw

    def fresh(self) -> Samples:
        """Return the samples that came since the last call of `checkpointed`, as `take` does, without removing them."""
        t_us, raw = self.copy()
        first = self._count - self._fresh
        return t_us[first:], raw[:, first:]

    def checkpointed(self) -> None:
        """Note that a durable checkpoint has all samples."""
        self._fresh = 0

    def copy(self) -> Samples:
        """Return the times (n,) and values (members, n) of all samples, in the order of arrival."""
        end = self._start + self._count
        if end <= len(self._t_us):
            return self._t_us[self._start : end].copy(), self._raw[:, self._start : end].copy()
        rest = end - len(self._t_us)
        t_us = np.concatenate((self._t_us[self._start :], self._t_us[:rest]))
        return t_us, np.concatenate((self._raw[:, self._start :], self._raw[:, :rest]), axis=1)

    def split(self, parts: list[tuple[int, ...]]) -> list["Ring"]:
        """Return a ring for each of `parts`, which together have all members.

        Members are split when they are no longer kept together, because one of them has changed and another has not.
        """
        t_us, raw = self.copy()
        rows = {member: row for row, member in enumerate(self.members)}
        rings = []
        for part in parts:
            ring = Ring(part, self.size)
            if self._count:
                ring.add(t_us, raw[[rows[member] for member in part]])
                ring._fresh = self._fresh
            rings.append(ring)
        return rings

    def _make_room(self, needed: int) -> None:
        capacity = len(self._t_us)
        if needed <= capacity:
            return
        capacity = min(self.size, max(needed, 2 * capacity, _FIRST_SAMPLES))
        t_us, raw = self.copy()
        self._t_us = np.empty(capacity, np.int64)
        self._raw = np.empty((len(self.members), capacity), np.int64)
        self._t_us[: self._count], self._raw[:, : self._count] = t_us, raw
        self._start = 0
