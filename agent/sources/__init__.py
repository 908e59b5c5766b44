"""Sources: where frames and values come in.  This file holds what every source promises and what it may report."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from agent.formats.up.signals import SignalBlock, SignalTable
from can_dbc.frames import FrameBlock


@dataclass(frozen=True, slots=True)
class BusLoss:
    """Frames that a bus carried and the source could not deliver; the ledger calls them `bus_overflow`.

    `first_ns` to `last_ns` is the range of their timestamps; `count` is 0 if their number cannot be known.
    """

    bus: str
    count: int
    first_ns: int
    last_ns: int
    detail: str


class Source(Protocol):
    """One origin of frames: an interface, a log, the virtual vehicle.

    Ownership: `blocks()` is called once.  The source owns its interface or file from the first `anext` until the
    iterator is exhausted or closed (`aclose`), and then closes it and ends its threads.  A block belongs to its
    receiver; the source does not touch the arrays again.
    Ordering: frames come in the order of the bus or of the log, and their positions have no gap (`FrameBlock.first`);
    timestamps may step back.  `block.buses` is always `buses`.
    Timing: a live source yields at most one block a drain interval, and none while nothing arrives.
    Ending: a log ends, and so does a simulated drive of limited duration.  A live interface never ends by itself; its
    source waits while it is missing.
    Errors: Permanent, and only that, if the configuration or the log is wrong and stays wrong.
    """

    @property
    def name(self) -> str:
        """Return what the settings call this source."""

    @property
    def buses(self) -> tuple[str, ...]:
        """Return the buses that this source delivers, in the order of `FrameBlock.bus`."""

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """Return every frame from now on, in blocks that are not empty."""


class ValueSource(Protocol):
    """One origin of values that are not CAN frames, such as a GNSS receiver or diagnostic answers.

    Ownership, ordering, timing, ending and errors are those of `Source`.  Values have no resume points: what is not
    durable when the agent crashes is lost.
    """

    @property
    def name(self) -> str:
        """Return the name of this source in the settings, which is the `bus` of its signals."""

    @property
    def tables(self) -> tuple[SignalTable, ...]:
        """Return the signal tables of this source, in the order of `SignalBlock.table`."""

    def blocks(self) -> AsyncIterator[SignalBlock]:
        """Return every sample from now on, in blocks that are not empty."""
