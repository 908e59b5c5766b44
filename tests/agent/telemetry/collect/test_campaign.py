from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.formats.down.campaign import parse_campaign
from agent.formats.up.columns import Clock, ClockQuality
from agent.telemetry.collect.campaign import CampaignCollector, rules_of
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from agent.telemetry.collect.thinning import CLOCK_SET_BACK_NS
from can_dbc.decoder import SignalColumns
from can_dbc.plan import BusPlan, Match, MessagePlan, SignalPlan
from can_dbc.values import Kind

CLOCK = Clock(ClockQuality.RECORDED, "", 0, 0)
MS = 1_000_000


def plan(name, *, kind=Kind.UINT, bits=8, texts=None):
    return SignalPlan(name, None, kind, bits, 0, False, 1.0, 0.0, texts or {})


MESSAGE = MessagePlan("Engine", 0x100, False, 8, tuple(plan(name) for name in ("Speed", "Torque", "Gear", "Mode")))


def tables_of(*messages, buses=("can0", "can1")):
    return SignalTables(buses, {bus: BusPlan(messages, Match.EXACT) for bus in buses})


TABLES = tables_of(MESSAGE)


def campaign(*signals, **others):
    return parse_campaign(
        {
            "name": "drive",
            "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 30_000}},
            "signalsToCollect": list(signals),
            **others,
        },
        "test",
    )


def block(t_ns, raw, valid=None, message=MESSAGE, signals=None, bus=0, source=None, tables=TABLES):
    t_ns, raw = np.array(t_ns, np.int64), np.array(raw, np.int64)
    decoded = SignalColumns(
        bus, message, np.arange(len(t_ns)), t_ns, signals or tuple(range(len(raw))), raw,
        None if valid is None else np.array(valid, np.bool_), source,
    )  # fmt: skip
    return tables.blocks([decoded])[0]


def close(collector):
    return collector.close(start_us=0, end_us=1, clock=CLOCK)


def held(window):
    """Return {(bus, signal): [(t_us, raw), ...]}, in the order of the window."""
    return {
        (info.bus, info.name): list(zip(group.t_us.tolist(), row, strict=True))
        for group in window.groups
        for info, row in zip(group.signals, group.raw.tolist(), strict=True)
    }


def collect(campaign_, *increments):
    collector = CampaignCollector(campaign_, TABLES)
    for increment in increments:
        collector.take_blocks([increment])
    return held(close(collector))


# ---------------------------------------------------------------- compared with a reference, sample by sample


class Reference:
    """Applies the sampling rules of config/campaigns/README.md to one sample at a time."""

    def __init__(self, campaign_):
        self._campaign, self._last_kept, self._last_raw, self._kept = campaign_, {}, {}, {}
        places = rules_of(campaign_, TABLES.names).items()
        self._rules = {TABLES.tables[place.table].signals[place.signal][0].name: rule for place, rule in places}

    def sample(self, name, t_ns, raw):
        rule = self._rules.get(name)
        if rule is None or not self._campaign.start_ns <= t_ns < self._campaign.expiry_ns:
            return
        candidate = not rule.on_change or self._last_raw.get(name) != raw
        self._last_raw[name] = raw
        first = name not in self._last_kept
        due = first or rule.interval_ns == 0 or t_ns >= self._last_kept[name] + rule.interval_ns
        if candidate and (due or t_ns < self._last_kept[name] - CLOCK_SET_BACK_NS):
            self._last_kept[name] = t_ns
            self._kept.setdefault(("can0", name), []).append((t_ns // 1_000, raw))
        if rule.max_samples is not None and ("can0", name) in self._kept:
            del self._kept[("can0", name)][: -rule.max_samples]

    def close(self):
        kept, self._kept = self._kept, {}
        return kept


RULES = st.fixed_dictionaries(
    {},
    optional={
        "minimumSamplingIntervalMs": st.integers(0, 40),
        "onChange": st.booleans(),
        "maxSampleCount": st.integers(1, 5),
    },
)


def _step(ms):
    """Return a step of time: mostly `ms` itself, sometimes a larger step back, and seldom a clock set back by 70 s."""
    return ms if ms > -20 else ms * 10 if ms > -28 else -70_000


@st.composite
def cases(draw):
    names = draw(st.permutations(["Engine.Speed", "Engine.Torque", "Engine.Gear", "Engine.Mode", "*", "Engine.?o*"]))
    rules = [{"name": name, **draw(RULES)} for name in names[: draw(st.integers(1, 4))]]
    times = {}
    if draw(st.booleans()):
        times = {"startTime": draw(st.integers(0, 100)) / 1_000, "expiryTime": draw(st.integers(101, 400)) / 1_000}
    count = draw(st.integers(1, 40))
    steps = draw(st.lists(st.integers(-30, 30).map(_step), min_size=count, max_size=count))
    t_ns = np.cumsum([draw(st.sampled_from([100, 200_000])), *steps])[1:] * MS
    raw = draw(st.lists(st.lists(st.integers(0, 2), min_size=count, max_size=count), min_size=4, max_size=4))
    masked = st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=4, max_size=4)
    valid = draw(st.none() | masked)
    cuts = sorted(draw(st.sets(st.integers(1, count - 1), max_size=4))) if count > 1 else []
    return campaign(*rules, **times), t_ns, np.array(raw), valid and np.array(valid), [0, *cuts, count]


@settings(max_examples=400, deadline=None)
@given(cases(), st.data())
def test_what_is_kept_equals_the_reference_for_any_cutting_into_increments(case, data):
    drive, t_ns, raw, valid, cuts = case
    collector, reference = CampaignCollector(drive, TABLES), Reference(drive)
    for start, stop in pairwise(cuts):
        collector.take_blocks(
            [block(t_ns[start:stop], raw[:, start:stop], None if valid is None else valid[:, start:stop])]
        )
        for i in range(start, stop):
            for row, signal in enumerate(MESSAGE.signals):
                if valid is None or valid[row, i]:
                    reference.sample(f"Engine.{signal.name}", int(t_ns[i]), int(raw[row, i]))
        if data.draw(st.booleans()):
            assert held(close(collector)) == reference.close()
    assert held(close(collector)) == reference.close()


# ---------------------------------------------------------------- cases that the property does not name


def test_signals_of_one_message_at_its_native_rate_share_one_group():
    collector = CampaignCollector(campaign({"name": "*"}), TABLES)
    for start in (0, 3):
        collector.take_blocks([block([start, start + 1, start + 2], np.zeros((4, 3)))])
    assert [len(group.signals) for group in close(collector).groups] == [4]


def test_different_rules_that_keep_the_same_frames_share_one_group():
    drive = campaign({"name": "Engine.Speed"}, {"name": "Engine.Torque", "minimumSamplingIntervalMs": 5})
    collector = CampaignCollector(drive, TABLES)
    collector.take_blocks([block([0, 5 * MS, 10 * MS], np.zeros((4, 3)))])
    assert [len(group.signals) for group in close(collector).groups] == [2]


def test_the_same_signal_on_two_buses_is_collected_apart():
    drive = campaign({"name": "Engine.Speed", "onChange": True})
    kept = collect(drive, block([0], [[7]] * 4), block([1_000], [[7]] * 4, bus=1), block([2_000], [[7]] * 4))
    assert kept == {("can0", "Engine.Speed"): [(0, 7)], ("can1", "Engine.Speed"): [(1, 7)]}


def test_one_sender_of_a_message_does_not_hide_another():
    rules = {"name": "Engine.Speed", "minimumSamplingIntervalMs": 10}, {"name": "Engine.Gear", "onChange": True}
    collector = CampaignCollector(campaign(*rules), TABLES)
    for start_ms in (0, 5, 10):
        collector.take_blocks([block([start_ms * MS + source], [[source]] * 4, source=source) for source in (7, 0)])
    groups = [
        (group.source_address, [info.name for info in group.signals], group.t_us.tolist())
        for group in close(collector).groups
    ]
    assert groups == [
        (0, ["Engine.Speed"], [0, 10_000]),
        (0, ["Engine.Gear"], [0]),
        (7, ["Engine.Speed"], [0, 10_000]),
        (7, ["Engine.Gear"], [0]),
    ]


def test_the_messages_of_one_container_are_collected_apart_in_the_order_of_their_description():
    doors, body = (
        MessagePlan(name, 0x100, False, 8, (plan("Open"),), header_id=header_id)
        for name, header_id in [("D", 7), ("B", 2)]
    )
    container = MessagePlan("Container", 0x100, False, 64, (), contained=(doors, body))
    tables = tables_of(container, MESSAGE, buses=("can0",))
    collector = CampaignCollector(campaign({"name": "*"}), tables)
    collector.take_blocks(
        [block([0, 0], [[1, 2]], message=doors, tables=tables), block([0], [[3]], message=body, tables=tables)]
    )
    groups = [(group.signals[0].name, group.t_us.tolist(), group.raw.tolist()) for group in close(collector).groups]
    assert groups == [("B.Open", [0], [[3]]), ("D.Open", [0, 0], [[1, 2]])]
    assert [info.name for info, _ in collector.described][-2:] == ["B.Open", "D.Open"]


def test_a_time_that_stepped_back_is_not_kept_until_the_interval_has_passed():
    drive = campaign({"name": "Engine.Speed", "minimumSamplingIntervalMs": 10})
    kept = collect(drive, block([50 * MS, 10 * MS, 59 * MS, 60 * MS], [[1, 2, 3, 4]] * 4))
    assert kept == {("can0", "Engine.Speed"): [(50_000, 1), (60_000, 4)]}


def test_a_clock_that_was_set_back_does_not_silence_a_signal():
    drive = campaign({"name": "Engine.Speed", "minimumSamplingIntervalMs": 10})
    year = 365 * 86_400 * 10**9
    times = [year, year + 10 * MS, 0, 5 * MS, 10 * MS]
    kept = collect(drive, block(times, [[1, 2, 3, 4, 5]] * 4))
    assert [raw for _, raw in kept["can0", "Engine.Speed"]] == [1, 2, 3, 5]
    kept = collect(drive, block(times[:2], [[1, 2]] * 4), block(times[2:], [[3, 4, 5]] * 4))
    assert [raw for _, raw in kept["can0", "Engine.Speed"]] == [1, 2, 3, 5]


def test_memory_outlasts_a_decoder_that_lays_the_columns_out_otherwise():
    drive = campaign({"name": "Engine.Gear", "onChange": True})
    kept = collect(
        drive,
        block([0], [[1], [2]], signals=(0, 2)),
        block([10 * MS, 20 * MS], [[2, 7]], signals=(2,)),
        block([30 * MS], [[9], [7]], signals=(1, 2)),
    )
    assert kept == {("can0", "Engine.Gear"): [(0, 2), (20_000, 7)]}


def test_only_decoded_signals_that_the_campaign_names_are_kept():
    kept = collect(campaign({"name": "Engine.Gear"}), block([0], [[1], [2]], signals=(0, 2)))
    assert kept == {("can0", "Engine.Gear"): [(0, 2)]}


def test_a_window_without_samples_has_no_groups():
    collector = CampaignCollector(campaign({"name": "Brake.*"}), TABLES)
    collector.take_blocks([block([0], [[1]] * 4)])
    assert close(collector).groups == ()


def test_the_window_names_campaign_and_revision():
    drive = campaign({"name": "*"})
    window = CampaignCollector(drive, TABLES).close(start_us=3, end_us=9, clock=CLOCK)
    assert (window.campaign, window.revision, window.start_us, window.end_us) == ("drive", drive.revision, 3, 9)


def test_a_sample_bound_lets_go_of_what_is_superfluous_while_the_window_is_open():
    collector = CampaignCollector(campaign({"name": "Engine.Speed", "maxSampleCount": 2}), TABLES)
    for t_us in range(1_000):
        collector.take_blocks([block([t_us * 1_000], [[t_us % 9]] * 4)])
    assert collector.blocks == 2
    assert collector.samples == 2
    assert held(close(collector)) == {("can0", "Engine.Speed"): [(998, 998 % 9), (999, 0)]}


def test_groups_number_their_signals_by_the_campaigns_list():
    drive = campaign({"name": "Engine.Gear"}, {"name": "Engine.Torque", "onChange": True})
    collector = CampaignCollector(drive, TABLES)
    collector.take_blocks([block([0, 1], [[5, 5]] * 4, bus=1), block([0, 1], [[5, 5]] * 4)])
    groups = close(collector).groups
    assert len(groups) == 4
    for group in groups:
        assert [collector.described[number][0] for number in group.numbers] == list(group.signals)
    assert [(info.bus, info.name) for info, _ in collector.described] == [
        (bus, name) for bus in ("can0", "can1") for name in ("Engine.Torque", "Engine.Gear")
    ]


def test_value_tables_travel_whole_to_the_encoder():
    table = {0: "off", 1: "on", 2: "never"}
    message = MessagePlan("M", 1, False, 8, (plan("A", texts=table), plan("N")))
    tables = tables_of(message)
    collector = CampaignCollector(campaign({"name": "*"}), tables)
    collector.take_blocks([block([0, 1, 2], [[0, 1, 0], [1, 1, 1]], message=message, tables=tables)])
    (group,) = close(collector).groups
    assert group.tables == (table, {})
    assert group.texts == ({0: "off", 1: "on"}, {})


def test_the_decoder_is_asked_for_what_some_campaign_collects():
    brake = MessagePlan("Brake", 1, False, 8, (plan("Speed"),))
    tables = tables_of(MESSAGE, brake)
    wants = all_wants(CampaignCollector(campaign({"name": name}), tables).wants for name in ("Engine.Gear", "Eng*.Sp*"))
    assert {(tables.tables[number].name, signals) for number, signals in wants.items()} == {("Engine", (0, 2))}
    assert len(wants) == 2  # one for each bus


def test_the_rule_of_the_exact_name_wins_then_the_first_glob():
    drive = campaign({"name": "*"}, {"name": "Engine.Speed"}, {"name": "Engine.*"})
    rules = {TABLES.tables[p.table].signals[p.signal][0].name: r.name for p, r in rules_of(drive, TABLES.names).items()}
    assert rules == {"Engine.Speed": "Engine.Speed", "Engine.Torque": "*", "Engine.Gear": "*", "Engine.Mode": "*"}
