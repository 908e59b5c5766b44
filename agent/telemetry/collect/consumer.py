"""Defines the contract between the collector and the consumers of decoded signals."""

from collections.abc import Sequence
from typing import Protocol

from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.signal_tables import Wants


class Consumer(Protocol):
    """Takes signal blocks.  A campaign is a consumer; a store of the latest values or a detector could be others.

    Threads: blocks come from the collector's worker thread, one call at a time.  A slow consumer holds up all others.

    Order: the samples of one table and sender come in the order of their source, each exactly once.  The cuts between
    blocks and calls are arbitrary, so a consumer's results must not depend on them.
    """

    @property
    def wants(self) -> Wants:
        """Return the signals that the consumer wants.  A change takes effect the next time campaigns are set."""

    @property
    def eager(self) -> bool:
        """Return whether the consumer gets blocks whenever a source is drained, about every 100 ms.

        Other consumers get blocks at the end of an increment.  The messages that an eager consumer wants are decoded
        twice, once early and once with the increment.  A frame in a small block costs up to twenty times as much as in
        a large one, so an eager consumer should want few messages.
        """

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> None:
        """Take samples of the wanted tables.  A block may hold more signals of its table than the consumer wants."""
