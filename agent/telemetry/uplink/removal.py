"""Removes answered batches from the spool while others are sent, and tries again while the disk refuses.

With `ack = "broker"`, the batches that the broker accepted are removed in groups.  With `ack = "receiver"`, the uplink
removes batches when the acknowledgement arrives; only what the disk refused then is left for this file.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from agent.errors import Transient
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.late_answers import RETRY_S
from agent.telemetry.uplink.standing import Standing
from agent.telemetry.uplink.unanswered import Key

GATHER_S: Final = 0.05
"""How many seconds to gather accepted batches, so that one transaction removes them (`ack = "broker"`).

If the agent crashes, it sends the gathered batches again."""
MAX_TAKEN: Final = 1_000
"""At most this many accepted batches are remembered while the disk refuses to remove them; then sending pauses."""


class Removal:
    """Works over one connection.

    `removed` is called after each removal.  `pause` pauses the sending because of an error, and returns for how long.
    """

    def __init__(self, standing: Standing, removed: Callable[[], None], pause: Callable[[Transient], float]) -> None:
        self._standing = standing
        self._removed = removed
        self._pause = pause
        self._has_taken = asyncio.Event()

    def take(self, entry: Entry) -> None:
        """Note that the broker accepted a batch, which is to be removed."""
        self._standing.taken[entry.key] = entry
        self._has_taken.set()

    async def forget_taken(self) -> None:
        """Remove from the spool, in groups, the batches that the broker accepted.  Runs until cancelled.

        Only with `ack = "broker"` are there such batches to remove.
        """
        taken = self._standing.taken
        self._has_taken.set()  # an earlier connection may have left some
        while True:
            await self._has_taken.wait()
            await asyncio.sleep(GATHER_S)
            self._has_taken.clear()
            gone, error = await asyncio.to_thread(self._forget, list(taken.values()))
            for key in gone:
                del taken[key]
            self._removed()
            if error is None:
                await asyncio.to_thread(self._standing.spool.sweep)
                continue
            await asyncio.sleep(self._pause(error) if len(taken) >= MAX_TAKEN else RETRY_S)
            self._has_taken.set()

    def _forget(self, group: Sequence[Entry]) -> tuple[list[Key], Transient | None]:
        """Remove batches, one epoch after the other; return those that are gone, and the error if the disk refused."""
        epochs: dict[str, list[Entry]] = {}
        for entry in group:
            epochs.setdefault(entry.epoch, []).append(entry)
        gone: list[Key] = []
        refused: Transient | None = None
        for epoch, entries in epochs.items():
            try:
                answer = self._standing.spool.acknowledge(epoch, [entry.sealed for entry in entries], end_to_end=False)
            except Transient as error:
                refused = error
                continue
            self._standing.counts.acknowledged += len(answer.removed)
            gone += [entry.key for entry in entries]
        return gone, refused

    async def record_late(self) -> None:
        """Record the acknowledgements that the disk refused before.  Runs until cancelled."""
        late, standing = self._standing.late, self._standing
        while True:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(Transient):
                while late:
                    ack = late.oldest
                    answer = await asyncio.to_thread(standing.spool.acknowledge, ack.epoch, ack.stored)
                    standing.counts.acknowledged += len(answer.removed)
                    late.drop_oldest()
                    self._removed()
