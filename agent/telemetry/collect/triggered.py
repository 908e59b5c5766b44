"""Passes what triggers send to the outbox as soon as their collections close.

An open collection is checkpointed when it opens, and again after each `checkpoint_ns` of frame time, so that a crash
costs at most the samples since then.  After a crash, a campaign begins anew at the first frame that is in no window or
checkpoint.  It therefore sends no sample twice.

A collection that is open when its campaign expires is closed a minute later, because frames may still come out of
order until then.

When a bus falls silent, an open collection that would be over by then is closed.  A longer one stays open, and is
checkpointed.

This file touches the disk only through the outbox.  Only one thread at a time may use it.
"""

from collections.abc import Callable, Iterable, Mapping

from agent.formats.up.columns import Clock, Window
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.triggers import CLOCK_SET_BACK_NS
from agent.telemetry.collect.conditions.window import window_of
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.outbox.outbox import Outbox


class Triggered:
    """Delivers the collections of condition-based campaigns."""

    def __init__(self, outbox: Outbox, clock: Callable[[], Clock], holdings: Holdings) -> None:
        self._outbox = outbox
        self._clock = clock
        self._holdings = holdings
        self._checkpointed: dict[str, tuple[int, int]] = {}  # trigger and clock of the last checkpoint, by campaign

    def deliver(self, campaigns: Mapping[str, ConditionCollector], checkpoint_ns: int) -> None:
        """Store what was closed, and checkpoint the open collections that are due.

        If `checkpoint_ns` is 0, a collection is checkpointed only when it opens.
        """
        windows: list[tuple[Window, int]] = []
        for name, collector in campaigns.items():
            for loss in collector.take_losses():
                self._outbox.add_loss(loss)
            if collector.open is not None and collector.newest_ns > collector.open.until_ns + CLOCK_SET_BACK_NS:
                # The campaign has expired, so no own frame will close the collection.
                collector.close()
            closed = collector.take_closed()
            if closed:
                windows.append((window_of(collector.campaign, closed, self._clock()), collector.campaign.priority))
            if closed or collector.open is None:
                self._holdings.close_seen(name)
        if windows:
            # The most important campaign comes first, because batches are numbered in this order.
            windows.sort(key=lambda each: each[1])
            points = self._holdings.resume_points(())
            self._outbox.put(windows, {window.campaign: points for window, _ in windows})
        due = {name: each for name, each in campaigns.items() if self._is_due(name, each, checkpoint_ns)}
        self.checkpoint(due)

    def checkpoint(self, campaigns: Mapping[str, ConditionCollector]) -> None:
        """Checkpoint the open collections of `campaigns`."""
        for name, collector in campaigns.items():
            made = collector.checkpoint()
            if made is None:
                continue
            window = window_of(collector.campaign, [made], self._clock())
            points = self._holdings.points_after_seen(name)
            if self._outbox.put_checkpoints([(window, collector.campaign.priority)], points):
                collector.checkpointed()
                self._holdings.close_seen(name)
                self._checkpointed[name] = (made.trigger.number, collector.clock_ns)

    def close_silent(self, campaigns: Mapping[str, ConditionCollector], silence_ns: int) -> None:
        """Close the collections that are over after `silence_ns` without a frame, and checkpoint the others."""
        for collector in campaigns.values():
            if collector.open is not None and collector.open.until_ns < collector.clock_ns + silence_ns:
                collector.close()
        self.deliver(campaigns, 0)
        self.checkpoint(campaigns)

    def close(self, campaigns: Iterable[ConditionCollector]) -> None:
        """Close all open collections of `campaigns`, because no more frames come, and store them."""
        closing = {collector.campaign.name: collector for collector in campaigns}
        for collector in closing.values():
            collector.close()
        self.deliver(closing, 0)
        for name in closing:
            self._checkpointed.pop(name, None)

    def _is_due(self, name: str, collector: ConditionCollector, checkpoint_ns: int) -> bool:
        if collector.open is None:
            return False
        number, clock_ns = self._checkpointed.get(name, (0, 0))
        return number != collector.open.number or 0 < checkpoint_ns <= collector.clock_ns - clock_ns
