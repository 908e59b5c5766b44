"""Sources deliver frames and values.  This file defines the contract of every source and the losses that it reports."""

from collections.abc import AsyncIterator
from typing import Final, Protocol

import msgspec

from agent.formats.up.signals import SignalBlock, SignalTable
from can_dbc.frames import FrameBlock


class BusLoss(msgspec.Struct, frozen=True):
    """Describes frames that a bus carried and its source could not deliver.

    `count` is the number of lost frames, or 0 if this number is unknown.  The frames were lost between `first_ns` and
    `last_ns` (Unix epoch).  `detail` is the cause, such as "ring full".  In the ledger, the reason of all these losses
    is `bus_overflow`.
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
    Ordering: frames come in the order of the bus or of the log, but timestamps may step back.  The positions of the
    frames (`FrameBlock.first`) have no gap.  The `buses` of every block are the `buses` of the source.
    Timing: a live source yields at most one block per drain interval, and none while nothing arrives.
    Ending: the iterator is exhausted at the end of a log, or of a simulated drive of limited duration.  A live source
    never ends by itself; it waits while its interface is missing.
    Errors: a source raises Permanent if the configuration or the log is wrong.  Any other exception is a defect of the
    source.
    """

    @property
    def name(self) -> str:
        """Return the name of this source, which log messages and the status show."""

    @property
    def buses(self) -> tuple[str, ...]:
        """Return the names of the buses that this source delivers.  `FrameBlock.bus` has indices into them."""

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """Return an iterator over all frames of the source, in blocks that are not empty."""

    @property
    def waiting(self) -> str | None:
        """Return why the source cannot deliver frames now, with a remedy, or None if it can."""

    @property
    def rest(self) -> FrameBlock | None:
        """Return the frames that had arrived when the iterator was closed and that are in no block.

        These frames follow those of the last block.  The result is None if there are no such frames, for example
        because the source has ended by itself, or is a log.
        """


OPENING: Final = "the interface is being opened"
"""Why a live source waits until it has tried to open its interface."""


class ValueSource(Protocol):
    """Delivers values that do not come from CAN frames, such as those of a GNSS receiver or diagnostic answers.

    Ownership, ordering, timing, ending and errors are as in `Source`.  A source of values cannot deliver a value again,
    so values that are not durable are lost when the agent crashes.
    """

    @property
    def name(self) -> str:
        """Return the name of this source in the settings.  Its signals have this name as their `bus`."""

    @property
    def tables(self) -> tuple[SignalTable, ...]:
        """Return the signal tables of this source.  `SignalBlock.table` is an index into them."""

    def blocks(self) -> AsyncIterator[SignalBlock]:
        """Return an iterator over all samples of the source, in blocks that are not empty."""
