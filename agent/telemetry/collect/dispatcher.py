"""Decodes frames once and gives each consumer the signals that it wants.  This file is pure.

Campaigns and late consumers are served at the end of an increment, with one decoding of the union of their wants.
Eager consumers are served with each block of a source, and only the signals that they want are decoded for them.
"""

from collections.abc import Iterable, Mapping, Sequence

from agent.formats.down.campaign import Campaign
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.buffer import Block, frames_of, values_of
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.consumer import Consumer
from agent.telemetry.collect.decode_counts import DecodeCounts
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock, concatenate


class Dispatcher:
    """Holds the campaigns and the other consumers, and the decoders for what they want.

    `holdings` knows which frames a campaign has stored already, so that they are not collected twice.  Only one thread
    at a time may call the methods.
    """

    def __init__(self, tables: SignalTables, consumers: Sequence[Consumer], holdings: Holdings) -> None:
        self.tables = tables
        """The signal tables in use."""
        self.campaigns: dict[str, CampaignCollector] = {}
        """The campaigns that are collected, by name."""
        self._holdings = holdings
        self._late = [consumer for consumer in consumers if not consumer.eager]
        self.eager = [consumer for consumer in consumers if consumer.eager]
        """The consumers that are served with each block of a source."""
        self._decoder = tables.decoder(all_wants(consumer.wants for consumer in consumers))
        self._early_decoder = tables.decoder(all_wants(consumer.wants for consumer in self.eager))
        self.decoding = DecodeCounts()
        """Counts the frames that did and did not decode."""

    def set_tables(self, tables: SignalTables) -> None:
        """Decode with other databases.  `set_campaigns` must follow, because campaigns refer to signals by number.

        `tables` must have the same buses.  There must be no consumers besides campaigns, for the same reason.
        """
        assert tables.buses == self.tables.buses
        assert not (self._late or self.eager)
        self.tables = tables
        self._early_decoder = tables.decoder({})

    def set_campaigns(self, campaigns: Sequence[Campaign], known: Mapping[str, CampaignCollector]) -> None:
        """Serve `campaigns` from the next block on, except suspended ones.  Takes seconds for thousands of signals.

        `known` has the collectors to go on with, by the revision of their campaign.
        """
        self.campaigns = {
            campaign.name: known.get(campaign.revision) or CampaignCollector(campaign, self.tables)
            for campaign in campaigns
            if not campaign.suspended
        }
        # Only this decoder counts refused frames, so it decodes the signals of eager consumers, too.
        consumers = (*self.campaigns.values(), *self._late, *self.eager)
        self._decoder = self.tables.decoder(all_wants(consumer.wants for consumer in consumers))

    def serve(self, frames: Sequence[FrameBlock], values: Sequence[SignalBlock]) -> None:
        """Decode an increment, and let campaigns and late consumers take the signals that they want."""
        blocks = [*self._decoded(frames, self._decoder, self.decoding), *values]
        for name, collector in self.campaigns.items():
            missing = self._holdings.missing(name, frames)
            if missing is frames:
                collector.take_blocks(blocks)
            else:  # the campaign stored some of the frames before a crash
                collector.take_blocks([*self._decoded(missing, self._decoder), *values])
        _deliver(blocks, self._late)

    def serve_eager(self, block: Block) -> None:
        """Let eager consumers take the signals that they want from one block of a source."""
        blocks = [*self._decoded(frames_of([block]), self._early_decoder), *values_of([block])]
        _deliver(blocks, self.eager)

    def _decoded(
        self, frames: Sequence[FrameBlock], decoder: Decoder, counts: DecodeCounts | None = None
    ) -> list[SignalBlock]:
        if not frames:
            return []
        block = concatenate(frames)
        decoded = decoder.decode(block)
        if counts is not None:
            counts.add(block, decoded, self.tables.buses)
        return self.tables.blocks(decoded.columns)


def _deliver(blocks: Sequence[SignalBlock], consumers: Iterable[Consumer]) -> None:
    for consumer in consumers:
        wanted = [block for block in blocks if block.table in consumer.wants]
        if wanted:
            consumer.take_blocks(wanted)
