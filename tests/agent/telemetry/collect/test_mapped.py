"""Campaigns collect VSS paths: the samples equal those of the mapping, whatever the cuts; linear ones stay integers."""

import json
import random
from typing import Any

import pytest
import zstandard

from agent.commands.mapping_files import read_mapping
from agent.formats.down.campaign import parse_campaign
from agent.formats.down.mapping.formula import parse_formula
from agent.formats.down.mapping.reading import parse_mapping
from agent.formats.up.columns import Window, physical_values
from agent.sources.replay import read_blocks
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.records import records_in
from agent.telemetry.collect.mapped_path import Storage, linear
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.frames import FrameBlock, concatenate
from tests import shared_data
from tests.agent.telemetry.collect.test_campaign import CLOCK, campaign
from tests.agent.telemetry.collect.test_vss import CASES, DBC, cases, frame


def tables_of(document: dict[str, Any]) -> SignalTables:
    plans = {"can0": compile_plan([parse(DBC, "dbc", "a.dbc")])}
    return SignalTables(("can0",), plans, mappings=[(None, parse_mapping(document, "a.json"))])


def samples_of(window: Window) -> list[tuple[int, str, object]]:
    """Return time, path and value of each sample, with the text in place of the number where there is one."""
    found = []
    for group in window.groups:
        for info, raws, values, texts in zip(
            group.signals, group.raw.tolist(), physical_values(group).tolist(), group.tables, strict=True
        ):
            found += [
                (t_us, info.name, texts.get(raw, value))
                for t_us, raw, value in zip(group.t_us.tolist(), raws, values, strict=True)
            ]
    return found


def collected(tables: SignalTables, frames: list[FrameBlock], *signals: dict[str, Any]) -> Window:
    collector = CampaignCollector(campaign(*signals), tables)
    decoder = tables.decoder(collector.wants)
    for block in frames:
        collector.take_blocks(tables.blocks(decoder.decode(block).columns))
    return collector.close(start_us=0, end_us=1, clock=CLOCK)


def leaf(signal: str, math: str | None = None, **more: object) -> dict[str, Any]:
    transform = {} if math is None else {"transform": {"math": math}}
    return {"datatype": "float", "dbc2vss": {"signal": signal, "interval_ms": 0, **transform, **more}}


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["name"]))
def test_a_campaign_of_all_paths_gives_the_samples_of_the_case_whatever_the_cuts(case: dict[str, Any]) -> None:
    mapping = read_mapping(shared_data.DATA / case["mapping"] if "/" in case["mapping"] else CASES / case["mapping"])
    files = {bus: [shared_data.DATA / file for file in names] for bus, names in case["dbc"].items()}
    plans = {bus: compile_plan([load(file) for file in each]) for bus, each in files.items()}
    tables = SignalTables(tuple(files), plans, mappings=[(None, mapping)])
    chance, cut = random.Random(case["name"]), []
    for block in read_blocks(shared_data.DATA / case["log"], channels=tuple(files), block_frames=5_000):
        start = 0
        while start < len(block):
            stop = start + chance.choice([1, 7, 300, 4_000])
            cut.append(block.slice(start, min(stop, len(block))))
            start = stop
    paths = {path.entry.path for path in tables.mapped.values()}
    found = sorted(samples_of(collected(tables, cut, *({"name": path} for path in paths))), key=lambda each: each[:2])
    lines = zstandard.ZstdDecompressor().stream_reader((CASES / case["expected"]).read_bytes()).read().decode()
    records = [json.loads(line) for line in lines.splitlines()]
    right = sorted(((r["t_us"], r["path"], r["value"]) for r in records if r["path"] in paths), key=lambda r: r[:2])
    assert len({r["path"] for r in records} - paths) <= len(tables.mapping_notes)
    assert len(right) >= 0.8 * case["samples"]
    assert [each[:2] for each in found] == [each[:2] for each in right]
    for mine, expected in zip(found, right, strict=True):
        value = expected[2]
        assert mine[2] == (value if isinstance(value, str) else pytest.approx(float(value), rel=1e-9)), (mine, value)


def test_linear_transforms_stay_raw_integers() -> None:
    tables = tables_of({"Vehicle.Rpm": leaf("Rpm", "(x - 8) * 2 / 4"), "Vehicle.Square": leaf("Rpm", "x * x")})
    frames = [frame(1_000, 1, b"\x0a\x00"), frame(2_000, 1, b"\x0b\x00")]
    window = collected(tables, frames, {"name": "Vehicle.Rpm"})
    (group,) = window.groups
    assert group.raw.tolist() == [[10, 11]]
    assert (group.signals[0].name, group.signals[0].scale, group.signals[0].offset) == ("Vehicle.Rpm", 0.125, -4.0)
    assert [path.storage for path in tables.mapped.values()] == [Storage.AS_ON_THE_BUS, Storage.FLOAT]
    assert samples_of(collected(tables, frames, {"name": "Vehicle.Square"})) == [
        (1_000, "Vehicle.Square", 6.25),
        (2_000, "Vehicle.Square", 7.5625),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x * 2 + 1", (2.0, 1.0)),
        ("1 - x", (-1.0, 1.0)),
        ("-x / 4", (-0.25, 0.0)),
        ("3 * (x + x)", (6.0, 0.0)),
        ("x", (0.0, 0.0)),
        ("x - x", (0.0, 0.0)),
        ("7", (0.0, 0.0)),
        ("x * x", (0.0, 0.0)),
        ("2 / x", (0.0, 0.0)),
        ("x ^ 2", (0.0, 0.0)),
        ("floor(x)", (0.0, 0.0)),
        ("max(x, 2)", (0.0, 0.0)),
        ("if(x > 2, x, 0)", (0.0, 0.0)),
        ("x and 5", (0.0, 0.0)),
        ("x == x", (0.0, 0.0)),
        ("x != 2", (0.0, 0.0)),
        ("x in (1, 2)", (0.0, 0.0)),
        ("x || 'a'", (0.0, 0.0)),
        ("not x", (0.0, 0.0)),
        ("x % 3", (0.0, 0.0)),
    ],
)
def test_a_linear_formula_is_recognised(text: str, expected: tuple[float, float]) -> None:
    assert linear(parse_formula(text, ["x"])) == expected


def test_a_campaign_overrides_the_interval_of_the_mapping() -> None:
    tables = tables_of({"Vehicle.Rpm": leaf("Rpm", interval_ms=1_000)})
    frames = [frame(step * 100_000, 1, bytes([step, 0])) for step in range(25)]

    def times(**rule: object) -> list[int]:
        found = samples_of(collected(tables, frames, {"name": "Vehicle.Rpm", **rule}))
        return [t_us // 100_000 for t_us, _, _ in found]

    assert times() == [0, 10, 20]
    assert times(minimumSamplingIntervalMs=500) == [0, 5, 10, 15, 20]
    assert times(minimumSamplingIntervalMs=2_000) == [0, 20]


def test_campaigns_do_not_depend_on_each_other() -> None:
    tables = tables_of({"Vehicle.Rpm": leaf("Rpm", interval_ms=1_000)})
    frames = [frame(step * 100_000, 1, bytes([step, 0])) for step in range(25)]
    late = collected(tables, frames[5:], {"name": "Vehicle.Rpm"}, {"name": "Engine.Rpm"})
    assert [s[0] // 100_000 for s in samples_of(late) if s[1] == "Vehicle.Rpm"] == [5, 15]
    assert len([s for s in samples_of(late) if s[1] == "Engine.Rpm"]) == 20


def test_paths_that_cannot_be_collected_are_noted() -> None:
    mixed = {"datatype": "string", "dbc2vss": {"signal": "Door", "transform": {"math": "x || '!'"}}}
    tables = tables_of({"Vehicle.Mixed": mixed, "Vehicle.Gone": leaf("Rmp"), "Vehicle.Rpm": leaf("Rpm")})
    assert tables.mapping_notes == [
        "Vehicle.Mixed: its values may be texts that are not known in advance; use a value map",
        "Vehicle.Gone: no database has the signal Rmp; did you mean Rpm?",
    ]
    long = tables_of({"V." + "x" * 500: leaf("Rpm"), "V.Huge": leaf("Rpm", "x * 1e308 * 1e10")})
    assert [path.storage for path in long.mapped.values()] == [Storage.FLOAT]
    assert "use a path of 1 to 500 characters" in long.mapping_notes[0]
    assert tables.names.knows("Vehicle.Rpm")
    assert not tables.names.knows("Vehicle.Mixed")
    assert tables.names.suggest("Vehicle.Rmp") == "Vehicle.Rpm"


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_a_condition_names_vss_paths_and_sends_them(cuts: int) -> None:
    tables = tables_of({"Vehicle.Engine.Speed": leaf("Rpm", "x * 2"), "Vehicle.Door": leaf("Door", on_change=True)})
    document = {
        "name": "fast",
        "collectionScheme": {
            "conditionBasedCollectionScheme": {
                "expression": "$variable.`Vehicle.Engine.Speed` > 10 && $variable.`Vehicle.Door` == 1",
                "triggerMode": "RISING_EDGE",
            }
        },
        "signalsToCollect": [{"name": "Vehicle.Engine.Speed", "maxSampleCount": 2}],
    }
    speeds = [(1, 4), (2, 1), (1, 16), (1, 24), (1, 28), (2, 0), (2, 1), (1, 40)]  # message, and its first byte
    frames = [frame(n * 1_000, can_id, bytes([byte])) for n, (can_id, byte) in enumerate(speeds)]
    collector = ConditionCollector(parse_campaign(document, "fast"), tables)
    decoder = tables.decoder(collector.wants)
    records = []
    for start in range(0, len(frames), cuts):
        block = concatenate(frames[start : start + cuts])
        collector.take_blocks(tables.blocks(decoder.decode(block).columns))
        records += records_in(collector.take_closed())
    sent = [(r["n"], r["t_us"], r["signal"], r["value"]) for r in records if r["k"] == "sample"]
    assert [r["t_us"] for r in records if r["k"] == "trigger"] == [3_000, 6_000]
    assert [(n, t_us, value) for n, t_us, _, value in sent] == [(1, 2_000, 8.0), (1, 3_000, 12.0), (2, 4_000, 14.0)]
