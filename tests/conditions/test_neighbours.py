"""A campaign gives the same records beside others, which share tables, decoder and blocks with it."""

import pytest

from agent.errors import Permanent
from agent.formats.down.campaign import parse_campaign
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.records import records_in
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from tests.conditions.compare import difference
from tests.conditions.language import Refused
from tests.conditions.machine import SlowCampaign
from tests.conditions.triples import TRIPLES_A_WORLD, Triple, random_triple

NEIGHBOURS = 6
SEED = 11


def beside(triples: list[Triple]) -> list[str | None]:
    """Play the campaigns of all triples on the frames of the first, and return how each differs."""
    first = triples[0]
    slow, documents = [], []
    for triple in triples:
        try:
            slow.append(SlowCampaign(triple.document, first.world.rows.known()))
            campaign = parse_campaign(triple.document, "campaign")
        except (Refused, Permanent):
            continue
        if not campaign.suspended:
            documents.append(campaign)
    slow = [one for one in slow if one.campaign.running]
    for row in first.world.rows.decode(first.frames):
        for campaign in slow:
            campaign.take(row)
    for campaign in slow:
        campaign.end()
    blocks = list(first.blocks())
    tables = SignalTables(blocks[0].buses, first.world.plans)
    fast = [ConditionCollector(campaign, tables) for campaign in documents]
    decoder = tables.decoder(all_wants(collector.wants for collector in fast))
    for block in blocks:
        decoded = tables.blocks(decoder.decode(block).columns)
        for collector in fast:
            collector.take_blocks(decoded)
    for collector in fast:
        collector.close()
    expected = [campaign.records for campaign in slow]
    found = [list(records_in(collector.take_closed())) for collector in fast]
    return [difference(one, other) for one, other in zip(expected, found, strict=True)]


@pytest.mark.parametrize("world", range(40))
def test_a_campaign_gives_the_same_records_beside_others(world: int) -> None:
    number = world * TRIPLES_A_WORLD
    triples = [random_triple(SEED, number + neighbour) for neighbour in range(NEIGHBOURS)]
    assert set(beside(triples)) == {None}
