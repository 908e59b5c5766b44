"""The contract between the collector and the consumers of decoded signals."""

from collections.abc import Sequence
from typing import Protocol

from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.signal_tables import Wants


class Consumer(Protocol):
    """Takes signal blocks: a campaign, the latest values for apps, a detector.

    Threads: blocks come from the collector's worker thread, one call at a time; a consumer that is slow holds up all.
    Order: the samples of one table and sender come in the order of their source, each exactly once.  How they are cut
    into blocks and calls means nothing, and what a consumer makes of them must not depend on it.
    """

    @property
    def wants(self) -> Wants:
        """The signals that the consumer wants.  The collector asks when consumers or campaigns change."""

    @property
    def eager(self) -> bool:
        """Whether the consumer gets blocks at each drain of a source (100 ms) instead of at the end of an increment.

        The wanted messages are then decoded twice, once early and once with the increment.  A frame in a small block
        costs up to twenty times as much as in a large one, so an eager consumer should want few messages.
        """

    def take_blocks(self, blocks: Sequence[SignalBlock]) -> None:
        """Take samples of the wanted tables; a block may hold more signals of its table than are wanted."""
