"""The reporter packs events, and the losses of the spool's ledger, into parcels of the events lane.

Invariants: each loss in the spool's ledger is reported in one batch of events.  It is reported again, under the same
id, only if that batch is lost.  At most EVENTS_HELD events are held in memory.

Any thread may add events, but only one thread at a time may pack them.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, Event, Window
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss, to_event
from agent.telemetry.outbox.packer import Packer, Parcel

EVENTS_AT_ONCE: Final = 256  # events and losses in one batch: a few kilobytes
EVENTS_HELD: Final = 4_096  # events in memory; more than all receipts of a year


class Reporter:
    """Holds events that are not stored yet.  `lose` counts the loss of an event."""

    def __init__(self, packer: Packer, lose: Callable[[Loss], None]) -> None:
        self._packer = packer
        self._lose = lose
        self._turn = threading.Lock()  # never held while the disk works
        self._events: deque[Event] = deque()

    def add_event(self, event: Event) -> None:
        """Hold an event.  If EVENTS_HELD events are held already, the oldest is dropped and counted as lost."""
        with self._turn:
            if len(self._events) >= EVENTS_HELD:
                oldest = self._events.popleft()
                lost = Loss(Reason.MEMORY_FULL, lane=Lane.EVENTS, detail=oldest.kind)
                self._lose(replace(lost, first_t_us=oldest.t_us, last_t_us=oldest.t_us))
            self._events.append(event)

    def pack(self, losses: Sequence[tuple[int, Loss]], clock: Clock) -> list[Parcel]:
        """Return parcels that contain all `losses`, and take held events into the parcels, the oldest first.

        Each loss is given with its id in the ledger.  Events are taken until the parcels contain EVENTS_AT_ONCE losses
        and events in total.
        """
        items: list[tuple[int | None, Event]] = [(id_, to_event(id_, loss, clock.wall_us)) for id_, loss in losses]
        with self._turn:
            while self._events and len(items) < EVENTS_AT_ONCE:
                items.append((None, self._events.popleft()))
        return list(self._parcels(items, clock)) if items else []

    def _parcels(self, items: Sequence[tuple[int | None, Event]], clock: Clock) -> Iterator[Parcel]:
        """Yield parcels of `items`.  Items that do not fit into one batch are halved until each half fits.

        Only the first batch of a parcel is marked as reporting losses.  Each parcel must therefore be a single batch.
        """
        times = [event.t_us for _, event in items]
        window = Window("", "", min(times), max(times) + 1, clock, (), tuple(event for _, event in items))
        parcel = self._packer.pack_events(window, [id_ for id_, _ in items if id_ is not None])
        if parcel is not None:
            yield parcel
            return
        middle = len(items) // 2
        yield from self._parcels(items[:middle], clock)
        yield from self._parcels(items[middle:], clock)
