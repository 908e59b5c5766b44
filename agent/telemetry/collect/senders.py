"""Bounds how many J1939 senders one campaign collects from, and counts the samples of all others as lost.

This file is pure.  A campaign keeps a state for each message and source address, because one control unit must not hide
another.  The source address is a byte of the identifier, so a device on the bus can claim all 256 for every message.

The first MAX_SENDERS senders get a place, in the order of their first frames, and keep it as long as they send.  A
sender that sent nothing during a whole window gives up its place if another was turned away in that window.  A flood
thus cannot displace a control unit that is collected, and does not keep new ones out after it has ended.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.formats.up.losses import Reason
from agent.formats.up.signals import SignalBlock
from agent.telemetry.losses import Loss, merge

MAX_SENDERS: Final = 2_048
"""The greatest number of pairs of a message and a source address that one campaign collects at a time.

Each pair takes some 3.5 KB, so a campaign takes at most some 8 MB for them.  A truck with 20 control units that send 25
messages each on every one of three buses has 1,500 pairs.
"""

Key = tuple[int, int]
"""The number of a signal table, and the source address; NO_SENDER for a table that is not collected by sender."""
NO_SENDER: Final = -1


def key_of(block: SignalBlock) -> Key:
    """Return the signal table and the sender of a block."""
    return block.table, NO_SENDER if block.source_address is None else block.source_address


class Senders:
    """Holds the places of one campaign.  Tables that are not collected by sender need no place."""

    def __init__(self, campaign: str, limit: int, sizes: Mapping[int, int] | None = None) -> None:
        """Make room for `limit` places, or for places whose sizes add up to `limit`.

        `sizes` has the size of a place by number of the signal table; without it, all places have the size 1.
        """
        self._campaign = campaign
        self._limit = limit
        self._sizes = sizes
        self._used = 0
        self._heard: dict[Key, bool] = {}  # whether the holder of each place sent anything in the open window
        self._turned_away = False  # in the open window
        self._losses: dict[str, Loss] = {}  # by bus

    def admit(self, blocks: Iterable[SignalBlock]) -> None:
        """Give free places to the new senders among `blocks`, and note which senders sent something."""
        new = []
        for block in blocks:
            key = key_of(block)
            if key in self._heard:
                self._heard[key] = True
            elif key[1] != NO_SENDER:
                new.append(block)
        # The decoder sorts blocks by message.  Places go by the order on the bus, which gives no message precedence.
        for block in sorted(new, key=lambda block: 0 if block.rows is None else int(block.rows[0])):
            size = self._size_of(key_of(block))
            if self._used + size <= self._limit:
                self._used += size
                self._heard[key_of(block)] = True

    def has_place(self, key: Key) -> bool:
        """Return whether the samples of this table and sender may be collected."""
        return key[1] == NO_SENDER or key in self._heard

    def turn_away(self, bus: str, t_us: NDArray[np.int64]) -> None:
        """Count the frames of a sender without a place, at the times `t_us`, as lost.  A PDU counts as a frame."""
        self._turned_away = True
        loss = Loss(
            Reason.TOO_MANY_SENDERS,
            bus=bus,
            campaign=self._campaign,
            detail=self._detail(),
            frames=len(t_us),
            first_t_us=int(t_us.min()),
            last_t_us=int(t_us.max()),
        )
        counted = self._losses.get(bus)
        self._losses[bus] = loss if counted is None else merge(counted, loss)

    def take_losses(self) -> tuple[Loss, ...]:
        """Return the losses counted since the last call, one for each bus."""
        taken, self._losses = tuple(self._losses.values()), {}
        return taken

    def close(self) -> list[Key]:
        """Begin a new window, and return the senders that gave up their places."""
        silent = [key for key, heard in self._heard.items() if not heard] if self._turned_away else []
        for key in silent:
            del self._heard[key]
            self._used -= self._size_of(key)
        self._heard = dict.fromkeys(self._heard, False)
        self._turned_away = False
        return silent

    def _size_of(self, key: Key) -> int:
        return 1 if self._sizes is None else self._sizes[key[0]]

    def _detail(self) -> str:
        if self._sizes is None:
            return f"only {self._limit} pairs of a J1939 message and a source address are collected at a time"
        return f"the rings of all J1939 senders may take {self._limit} bytes"
