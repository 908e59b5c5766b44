"""Decodes frames once and gives each consumer the signals that it wants.  This file is pure.

Campaigns and late consumers are served at the end of an increment, with one decoding of the union of their wants.
Eager consumers and condition-based campaigns are served with each block of a source, and only the signals that they
want are decoded for them.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from agent.formats.down.campaign import Campaign
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.buffer import Block, frames_of
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.conditions.admission import CampaignRefused, admit
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.consumer import Consumer
from agent.telemetry.collect.decode_counts import DecodeCounts
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock, concatenate

Known = Mapping[str, CampaignCollector | ConditionCollector]
"""The collectors to go on with, by the revision of their campaign."""


class Dispatcher:
    """Holds the campaigns and the other consumers, and the decoders for what they want.

    `holdings` knows which frames a campaign has stored already, so that they are not collected twice.  Only one thread
    at a time may call the methods.
    """

    def __init__(self, tables: SignalTables, consumers: Sequence[Consumer], holdings: Holdings) -> None:
        self.tables = tables
        """The signal tables in use."""
        self.campaigns: dict[str, CampaignCollector] = {}
        """The time-based campaigns that are collected, by name."""
        self.conditions: dict[str, ConditionCollector] = {}
        """The condition-based campaigns that are collected, by name; the most important ones come first."""
        self.refused: Sequence[CampaignRefused] = ()
        """The campaigns that this vehicle does not take."""
        self._holdings = holdings
        self._late = [consumer for consumer in consumers if not consumer.eager]
        self._eager = [consumer for consumer in consumers if consumer.eager]
        self._decoder = tables.decoder(all_wants(consumer.wants for consumer in consumers))
        self._early_decoder = tables.decoder(all_wants(consumer.wants for consumer in self._eager))
        self.decoding = DecodeCounts()
        """Counts the frames that did and did not decode."""

    def set_tables(self, tables: SignalTables) -> None:
        """Decode with other databases.  `set_campaigns` must follow, because campaigns refer to signals by number.

        `tables` must have the same buses.  There must be no consumers besides campaigns, for the same reason.
        """
        assert tables.buses == self.tables.buses
        assert not (self._late or self._eager)
        self.tables = tables

    @property
    def collectors(self) -> Mapping[str, CampaignCollector | ConditionCollector]:
        """Return all campaigns that are collected, by name."""
        return {**self.campaigns, **self.conditions}

    @property
    def serves_early(self) -> bool:
        """Return whether any consumer is served with each block of a source."""
        return bool(self._eager or self.conditions)

    def set_campaigns(self, campaigns: Sequence[Campaign], known: Known, rings_max_bytes: int) -> None:
        """Serve `campaigns` from the next block on, except suspended ones.  Takes seconds for thousands of signals.

        `known` has the collectors to go on with, by the revision of their campaign.  The rings of all condition-based
        campaigns may take `rings_max_bytes`; `refused` says which campaigns are left out, and why.
        """
        self.campaigns = {}
        conditions = []
        for campaign in campaigns:
            collector = known.get(campaign.revision)
            if campaign.suspended:
                continue
            if campaign.condition is None:
                late = collector if isinstance(collector, CampaignCollector) else None
                self.campaigns[campaign.name] = late or CampaignCollector(campaign, self.tables)
            else:
                early = collector if isinstance(collector, ConditionCollector) else None
                conditions.append(early or ConditionCollector(campaign, self.tables))
        admitted, self.refused = admit(conditions, self.tables.names, rings_max_bytes)
        self.conditions = {collector.campaign.name: collector for collector in admitted}
        early_wants = all_wants(consumer.wants for consumer in (*self._eager, *self.conditions.values()))
        self._early_decoder = self.tables.decoder(early_wants)
        # Only this decoder counts refused frames.  One signal of each message that is decoded early is enough for that.
        counted = {table: signals[:1] for table, signals in early_wants.items()}
        consumers = (*self.campaigns.values(), *self._late)
        self._decoder = self.tables.decoder(all_wants([counted, *(consumer.wants for consumer in consumers)]))

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
        """Let eager consumers and condition-based campaigns take what they want from one block of a source."""
        frames, values = frames_of([block]), []
        if isinstance(block, SignalBlock):
            values = [msgspec.structs.replace(block, rows=np.arange(len(block)))]
        blocks = [*self._decoded(frames, self._early_decoder), *values]
        _deliver(blocks, self._eager)
        for name, collector in self.conditions.items():
            missing = self._holdings.missing(name, frames)
            if missing is frames:
                collector.take_blocks(blocks)
            else:  # the campaign stored some of the frames before a crash
                collector.take_blocks([*self._decoded(missing, self._early_decoder), *values])

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
