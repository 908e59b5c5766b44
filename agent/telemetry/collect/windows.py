"""From the collectors of campaigns to the outbox: windows that close, and checkpoints of windows that stay open.

Touches the disk through the outbox only.
"""

from collections.abc import Callable, Mapping, Sequence

from agent.formats.up.columns import Clock, Window
from agent.telemetry.collect.batcher import Batcher, Span, Tick
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.outbox.outbox import Outbox


class Windows:
    """Carries out what ticks say about windows.  One thread at a time."""

    def __init__(self, outbox: Outbox, clock: Callable[[], Clock], holdings: Holdings) -> None:
        self._outbox = outbox
        self._clock = clock
        self._holdings = holdings

    def carry_out(self, tick: Tick, batcher: Batcher, campaigns: Mapping[str, CampaignCollector]) -> None:
        """Close and checkpoint the windows that `tick` names, once what it takes has been collected.

        A window that has grown too large closes as well.
        """
        closing = list(tick.closing)
        for name, collector in campaigns.items():
            full = batcher.collected(name, collector.samples)
            if full is not None:
                closing.append(full)
        if closing:
            resume_points = {span.campaign: self._holdings.close(span.campaign) for span in closing}
            self._outbox.put([self._closed(campaigns[span.campaign], span) for span in closing], resume_points)
        closed = {span.campaign for span in closing}
        self._checkpoint([span for span in tick.checkpoints if span.campaign not in closed], batcher, campaigns)
        # What memory still holds because the disk refuses it would be lost in a crash: the sources must keep it.
        if not self._outbox.pending_bytes:
            self._holdings.release(campaigns)

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
