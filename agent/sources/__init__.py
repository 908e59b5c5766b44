"""Sources: where frames and values come in.  This file holds what every source promises and what it may report."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from agent.formats.up.signals import SignalBlock, SignalTable
from can_dbc.frames import FrameBlock


@dataclass(frozen=True, slots=True)
class BusLoss:
    """Frames that a bus carried and the source could not deliver; the app makes a loss record of it, `bus_overflow`.

    `first_ns` to `last_ns` holds the timestamps of the lost frames; `count` is 0 where nobody can know how many.
    """

    bus: str
    count: int
    first_ns: int
    last_ns: int
    detail: str


class Source(Protocol):
    """One origin of frames: an interface, a log, the virtual vehicle.

    Ownership: `blocks()` is called once.  The source owns its interface or file from the first `anext` until the
    iterator is exhausted or closed (`aclose`), and lets go of it then, threads included.  A block belongs to whoever
    received it; the source does not touch its arrays again.
    Ordering: frames come in the order of the bus or of the log, positions without a gap (`FrameBlock.first`); the
    timestamps may step back.  `block.buses` is always `buses`.
    Timing: a live source yields at most one block a drain interval, and none while nothing arrives.
    Ending: a log and a vehicle of limited duration end; a live interface never ends by itself, and waits where it is
    missing or has gone away.
    Errors: Permanent where the configuration or the log is wrong and stays wrong.  Nothing else.
    """

    @property
    def name(self) -> str:
        """What the settings call this source."""

    @property
    def buses(self) -> tuple[str, ...]:
        """The buses it delivers, in the order of `FrameBlock.bus`."""

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """Every frame from here on, in blocks that are not empty."""


class ValueSource(Protocol):
    """One origin of values that are not CAN frames, such as a GNSS receiver or diagnostic answers.

    Ownership, ordering, timing, ending and errors are those of `Source`.  Values have no resume points: what is not
    durable when the agent crashes is lost.
    """

    @property
    def name(self) -> str:
        """What the settings call this source; the `bus` of its signals."""

    @property
    def tables(self) -> tuple[SignalTable, ...]:
        """Its signal tables, in the order of `SignalBlock.table`."""

    def blocks(self) -> AsyncIterator[SignalBlock]:
        """Every sample from here on, in blocks that are not empty."""
