"""Test the bound on J1939 senders: a flood of random senders takes little memory, and its losses are counted."""

from itertools import pairwise

import numpy as np

from agent.formats.up.losses import Reason
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.frames import EXTENDED, FrameBlock
from can_dbc.plan import BusPlan, Match, MessagePlan
from tests.agent.telemetry.collect.test_campaign import campaign, close, plan

SECOND = 10**9
MESSAGES = tuple(MessagePlan(f"M{i}", 0x18F00000 | i << 8, True, 8, (plan("Value"),)) for i in range(64))
TABLES = SignalTables(("can0",), {"can0": BusPlan(MESSAGES, Match.PGN)})
EVERYTHING = campaign({"name": "*"})
HONEST = 0x18F00003  # one control unit, which sends message 0 with source address 3 ten times a second


def frames(can_ids, start_s, seconds=1.0):
    """Return frames with these identifiers, spread over `seconds`."""
    n = len(can_ids)
    t_ns = np.linspace(start_s * SECOND, (start_s + seconds) * SECOND, n, endpoint=False).astype(np.int64)
    flags, length = np.full(n, EXTENDED, np.uint8), np.full(n, 8, np.uint8)
    data = np.zeros((n, 8), np.uint8)
    return FrameBlock(t_ns, np.zeros(n, np.uint8), np.array(can_ids, np.uint32), flags, length, data, ("can0",))


def flood(second, count=3_000):
    """Return one second of frames from random senders of random messages, with ten frames of the honest sender."""
    random = np.random.default_rng(second)
    ids = 0x18F00000 | random.integers(0, len(MESSAGES), count) << 8 | random.integers(10, 256, count)
    ids[:: count // 10] = HONEST
    return frames(ids, second)


class Rig:
    """One campaign with 200 places, which collects everything, and its decoder."""

    def __init__(self, drive=EVERYTHING):
        self.collector = CampaignCollector(drive, TABLES, max_senders=200)
        self._decoder = TABLES.decoder(self.collector.wants)

    def take(self, block):
        self.collector.take_blocks(TABLES.blocks(self._decoder.decode(block).columns))

    def close(self):
        """Return the number of samples by (message, sender), and the number of frames that are lost."""
        lost = sum(loss.frames for loss in self.collector.take_losses())
        found = {}
        for group in close(self.collector).groups:
            key = group.signals[0].name.partition(".")[0], group.source_address
            found[key] = found.get(key, 0) + len(group.t_us)
        return found, lost


def test_a_flood_of_random_senders_is_bounded_and_every_frame_is_collected_or_counted_as_lost():
    rig = Rig()
    for window in range(4):
        for second in range(window * 5, window * 5 + 5):
            rig.take(flood(second))
        collected, lost = rig.close()
        assert len(collected) <= 200
        assert lost > 10_000
        assert sum(collected.values()) + lost == 5 * 3_000


def test_a_sender_that_is_collected_goes_on_being_collected_while_others_flood_the_bus():
    rig = Rig()
    for window in range(6):
        for second in range(window * 5, window * 5 + 5):
            rig.take(flood(second))
        collected, _ = rig.close()
        assert collected["M0", 3] == 50


def test_a_flood_does_not_keep_new_senders_out_after_it_has_ended():
    rig = Rig()
    rig.take(flood(0))
    rig.close()
    late = 0x18F00105
    rig.take(frames([late] * 10, 10))
    assert rig.close() == ({}, 10)  # the places are free from the next window on
    rig.take(frames([late] * 10, 20))
    assert rig.close() == ({("M1", 5): 10}, 0)


def test_a_loss_by_too_many_senders_names_campaign_bus_and_time():
    rig = Rig()
    rig.take(flood(7))
    (loss,) = rig.collector.take_losses()
    assert (loss.reason, loss.bus, loss.campaign) == (Reason.TOO_MANY_SENDERS, "can0", "drive")
    assert 7_000_000 <= loss.first_t_us < loss.last_t_us < 8_000_000
    assert rig.collector.take_losses() == ()


def test_a_silent_sender_keeps_its_interval_unless_another_sender_needs_its_place():
    drive = campaign({"name": "*", "minimumSamplingIntervalMs": 60_000})
    rig = Rig(drive)
    rig.take(frames([HONEST], 0))
    assert rig.close() == ({("M0", 3): 1}, 0)
    assert rig.close() == ({}, 0)
    rig.take(frames([HONEST], 50))
    assert rig.close() == ({}, 0)  # within the interval


def test_who_gets_a_place_does_not_depend_on_the_cuts_between_blocks():
    whole = flood(1)
    outcomes = []
    for cuts in ([0, 3_000], [0, 1, 150, 151, 1_000, 3_000], [*range(0, 3_000, 7), 3_000]):
        rig = Rig()
        for start, stop in pairwise(cuts):
            rig.take(whole.slice(start, stop))
        outcomes.append(rig.close())
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_messages_that_are_found_by_their_whole_identifier_need_no_place():
    many = tuple(MessagePlan(f"M{i}", i, False, 8, (plan("Value"),)) for i in range(1, 300))
    tables = SignalTables(("can0",), {"can0": BusPlan(many, Match.EXACT)})
    collector = CampaignCollector(campaign({"name": "*"}), tables, max_senders=200)
    block = frames(range(1, 300), 0)
    block.flags[:] = 0
    collector.take_blocks(tables.blocks(tables.decoder(collector.wants).decode(block).columns))
    assert len(close(collector).groups) == 299
    assert collector.take_losses() == ()
