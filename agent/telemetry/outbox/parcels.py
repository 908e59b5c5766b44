"""Queues the parcels that the disk has not taken yet, and remembers the append whose outcome is in doubt.

Invariants: parcels leave in the order in which they came.  A parcel that is dropped while its append is in doubt is
remembered without its bodies.  Such a parcel counts as lost only if the append did not happen.

Any thread may enqueue parcels, but only one thread at a time may take parcels out.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.packer import Parcel


class Shed(msgspec.Struct, frozen=True):
    """A parcel that memory could not hold, remembered without its bodies.

    `window` is the id of its window, or None if the parcel held events or a catalogue.  The other fields are those of
    the parcel.
    """

    loss: Loss
    window: str | None
    checkpoints: int | None
    batches: int
    samples: int
    resume_points: Mapping[str, int]

    @classmethod
    def of(cls, parcel: Parcel) -> "Shed":
        """Return what is remembered of a parcel."""
        return cls(
            parcel.lost(Reason.MEMORY_FULL),
            parcel.window,
            parcel.checkpoints,
            len(parcel.bodies),
            parcel.samples,
            parcel.resume_points,
        )


@dataclass(slots=True)
class Doubt:
    """An append whose outcome is unknown, named by its token.

    `queued` is the number of the append's parcels that are still in the queue.  `shed` has the append's parcels that
    were dropped because memory could not hold them.
    """

    token: str
    queued: int
    shed: list[Shed] = field(default_factory=list)


class ParcelQueue:
    """A queue of parcels, together with the append in doubt.  `doubt` is None if no append is in doubt."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # never held while the disk works
        self._parcels: deque[Parcel] = deque()
        self.size_bytes = 0
        self.doubt: Doubt | None = None

    def __len__(self) -> int:
        return len(self._parcels)

    def enqueue(self, parcel: Parcel) -> None:
        """Append a parcel."""
        with self._turn:
            self._parcels.append(parcel)
            self.size_bytes += parcel.size_bytes

    def all(self) -> list[Parcel]:
        """Return all parcels in order."""
        with self._turn:
            return list(self._parcels)

    def first(self, limit: int) -> list[Parcel]:
        """Return up to `limit` parcels from the front of the queue.  They stay in the queue."""
        with self._turn:
            return list(islice(self._parcels, limit))

    def drop_first(self) -> Parcel:
        """Remove and return the first parcel."""
        with self._turn:
            parcel = self._parcels.popleft()
            self.size_bytes -= parcel.size_bytes
            return parcel

    def take_windows(self) -> list[Parcel]:
        """Remove and return the parcels that hold windows, in order.  No append may be in doubt."""
        assert self.doubt is None
        with self._turn:
            windows = [parcel for parcel in self._parcels if parcel.window is not None]
            self._parcels = deque(parcel for parcel in self._parcels if parcel.window is None)
            self.size_bytes -= sum(parcel.size_bytes for parcel in windows)
            return windows

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Put parcels back at the front of the queue."""
        with self._turn:
            self._parcels.extendleft(reversed(parcels))
            self.size_bytes += sum(parcel.size_bytes for parcel in parcels)

    def shed(self, limit_bytes: int) -> list[Shed]:
        """Remove the oldest parcels until the queue has at most `limit_bytes`, and return the parcels that are lost.

        A removed parcel whose append is in doubt may be on the disk already.  Such a parcel is not returned, but
        remembered in `doubt`.  The newest parcel stays in the queue, however large it is.
        """
        lost: list[Shed] = []
        while len(self._parcels) > 1 and self.size_bytes > limit_bytes:
            parcel = self.drop_first()
            shed = Shed.of(parcel)
            if self.doubt is not None and self.doubt.queued:
                self.doubt.queued -= 1
                self.doubt.shed.append(shed)
            else:
                lost.append(shed)
        return lost
