"""Sources deliver frames and values.  This file defines the contract of every source and the losses that it reports."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from agent.formats.up.signals import SignalBlock, SignalTable
from can_dbc.frames import FrameBlock


class BusLoss(msgspec.Struct, frozen=True):
    """Describes frames that a bus carried and its source could not deliver.  The ledger calls them `bus_overflow`.

    The timestamps of the frames are from `first_ns` to `last_ns` (Unix epoch).  `count` is 0 if their number is
    unknown.
    """

    bus: str
    count: int
    first_ns: int
    last_ns: int
    detail: str


class Source(Protocol):
    """Delivers frames from one origin: an interface, a log, or the virtual vehicle.

    Ownership: `blocks()` is called once.  The source owns its interface or file from the first `anext` until the
    iterator is exhausted or closed (`aclose`).  The source then closes the interface or file, and ends its threads.  A
    block belongs to its receiver; the source does not touch the arrays again.
    Ordering: frames come in the order of the bus or of the log, and their positions have no gap (`FrameBlock.first`);
    timestamps may step back.  `block.buses` is always `buses`.
    Timing: a live source yields at most one block per drain interval, and none while nothing arrives.
    Ending: a log ends, and so does a simulated drive of limited duration.  A live interface never ends by itself.  Its
    source waits while the interface is missing.
    Errors: a source raises Permanent, and no other error, if the configuration or the log is wrong.
    """

    @property
    def name(self) -> str:
        """Return the name of this source, for messages and for the status."""

    @property
    def buses(self) -> tuple[str, ...]:
        """Return the buses that this source delivers, in the order of `FrameBlock.bus`."""

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """Return every frame from now on, in blocks that are not empty."""


class ValueSource(Protocol):
    """Delivers values that do not come from CAN frames, such as those of a GNSS receiver or diagnostic answers.

    Ownership, ordering, timing, ending and errors are as in `Source`.  A source of values cannot deliver a value again,
    so values that are not durable are lost when the agent crashes.
    """

    @property
    def name(self) -> str:
        """Return the name of this source in the settings, which is the `bus` of its signals."""

    @property
    def tables(self) -> tuple[SignalTable, ...]:
        """Return the signal tables of this source, in the order of `SignalBlock.table`."""

    def blocks(self) -> AsyncIterator[SignalBlock]:
        """Return every sample from now on, in blocks that are not empty."""
