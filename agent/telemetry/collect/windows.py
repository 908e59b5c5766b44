"""Passes closed windows, and checkpoints of open windows, from the collectors of campaigns to the outbox.

This file touches the disk only through the outbox.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from agent.formats.up.columns import Clock, Window
from agent.telemetry.collect.batcher import Batcher, Span, Tick
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.outbox.outbox import Outbox


class Windows:
    """Closes and checkpoints the windows that ticks name.  Only one thread at a time may use it."""

    def __init__(self, outbox: Outbox, clock: Callable[[], Clock], holdings: Holdings) -> None:
        self._outbox = outbox
        self._clock = clock
        self._holdings = holdings

    def carry_out(self, tick: Tick, batcher: Batcher, campaigns: Mapping[str, CampaignCollector]) -> None:
        """Close and checkpoint the windows that `tick` names, and close windows that have grown too large.

        Before this call, the campaigns must have collected the frames of `tick`.
        """
        closing = list(tick.closing)
        for name, collector in campaigns.items():
            for loss in collector.take_losses():  # before the resume points move past the lost frames
                self._outbox.add_loss(loss)
            full = batcher.collected(name, collector.samples)
            if full is not None:
                closing.append(full)
        if closing:
            resume_points = {span.campaign: self._holdings.close(span.campaign) for span in closing}
            self._outbox.put([self._closed(campaigns[span.campaign], span) for span in closing], resume_points)
        closed = {span.campaign for span in closing}
        self._checkpoint([span for span in tick.checkpoints if span.campaign not in closed], batcher, campaigns)

    def release(self, names: Collection[str]) -> None:
        """Release the frames that no campaign needs any more; `names` has all campaigns."""
        # While the disk refuses, a crash would lose the windows that wait in memory, so the sources keep their frames.
        if not self._outbox.pending_bytes:
            self._holdings.release(names)

    def _checkpoint(self, spans: Sequence[Span], batcher: Batcher, campaigns: Mapping[str, CampaignCollector]) -> None:
        if not spans:
            return
        names = [span.campaign for span in spans]
        made = [self._checkpoint_of(campaigns[span.campaign], span) for span in spans]
        if self._outbox.put_checkpoints(made, self._holdings.resume_points(names)):
            for name in names:
                campaigns[name].checkpointed()
                batcher.checkpointed(name)
                self._holdings.close(name)

    def _closed(self, collector: CampaignCollector, span: Span) -> tuple[Window, int]:
        window = collector.close(start_us=span.start_ns // 1_000, end_us=span.end_ns // 1_000, clock=self._clock())
        return window, collector.campaign.priority

    def _checkpoint_of(self, collector: CampaignCollector, span: Span) -> tuple[Window, int]:
        start_us, end_us = span.start_ns // 1_000, span.end_ns // 1_000
        window = collector.checkpoint_window(start_us=start_us, end_us=end_us, clock=self._clock())
        return window, collector.campaign.priority
