"""VSS samples equal the expected ones of all cases, whatever the cuts of the frames; notes name what is missing."""

import json
import random
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
import zstandard

from agent.commands.mapping_files import read_mapping
from agent.formats.down.mapping.reading import parse_mapping
from agent.sources.replay import read_blocks
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.collect.vss import VssSampler
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.frames import FrameBlock
from tests import shared_data

CASES = shared_data.DATA.parent / "cases" / "vss"
DBC = b"""BO_ 1 Engine: 8 X
 SG_ Rpm : 0|16@1+ (0.25,0) [0|8000] "rpm" X
 SG_ Temp : 16|8@1- (1,-40) [0|0] "C" X
BO_ 2 Body: 8 X
 SG_ Door : 0|2@1+ (1,0) [0|1] "" X
 SG_ Temp : 8|8@1+ (0.5,0) [0|0] "C" X
VAL_ 2 Door 0 "Closed" 1 "Open" 3 "Invalid";
"""
TABLES = SignalTables(("can0",), {"can0": compile_plan([parse(DBC, "dbc", "a.dbc")])})


def cases() -> list[dict[str, Any]]:
    """Return the shared cases, or none without the data."""
    file = CASES / "cases.json"
    return json.loads(file.read_text()) if file.exists() else []


def frame(t_us: int, can_id: int, data: bytes) -> FrameBlock:
    block = np.zeros((1, 8), np.uint8)
    block[0, : len(data)] = np.frombuffer(data, np.uint8)
    one = np.array([can_id], np.uint32)
    return FrameBlock(
        np.array([t_us * 1_000]), np.zeros(1, np.uint8), one, np.zeros(1, np.bool_), np.array([8]), block, ("can0",)
    )


def test_the_shared_cases_are_there() -> None:
    shared_data.require()
    assert len(cases()) == 5


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["name"]))
def test_a_case_gives_the_expected_samples_whatever_the_cuts(case: dict[str, Any]) -> None:
    mapping = read_mapping(shared_data.DATA / case["mapping"] if "/" in case["mapping"] else CASES / case["mapping"])
    files = {bus: [shared_data.DATA / file for file in names] for bus, names in case["dbc"].items()}
    tables = SignalTables(
        tuple(files), {bus: compile_plan([load(file) for file in each]) for bus, each in files.items()}
    )
    sampler, chance = VssSampler(mapping, tables), random.Random(case["name"])
    decoder = tables.decoder(sampler.wants)
    found = []
    for block in read_blocks(shared_data.DATA / case["log"], channels=tuple(files), block_frames=5_000):
        start = 0
        while start < len(block):
            stop = start + chance.choice([1, 7, 300, 4_000])
            blocks = tables.blocks(decoder.decode(block.slice(start, min(stop, len(block)))).columns)
            found += sampler.take_blocks(blocks)
            start = stop
    lines = zstandard.ZstdDecompressor().stream_reader((CASES / case["expected"]).read_bytes()).read().decode()
    expected = [json.loads(line) for line in lines.splitlines()]
    assert len(found) == len(expected) == case["samples"]
    key = itemgetter(0, 1)
    for mine, right in zip(
        sorted(found, key=key), sorted(((e["t_us"], e["path"], e["value"]) for e in expected), key=key), strict=True
    ):
        assert mine[:2] == right[:2]
        plain = isinstance(right[2], (bool, str))
        assert (
            (mine.value is right[2] or mine.value == right[2])
            if plain
            else mine.value == pytest.approx(right[2], rel=1e-9)
        )
        assert isinstance(mine.value, type(right[2])) if plain else not isinstance(mine.value, (bool, str))


def sampled(document: dict[str, Any], frames: list[FrameBlock]) -> tuple[list[tuple[int, object]], list[str]]:
    sampler = VssSampler(parse_mapping({"V.A": document}, "a.json"), TABLES)
    decoder = TABLES.decoder(sampler.wants)
    found = [sample for block in frames for sample in sampler.take_blocks(TABLES.blocks(decoder.decode(block).columns))]
    return [(sample.t_us, sample.value) for sample in found], sampler.notes


def test_a_number_outside_its_limits_is_no_value_and_uses_up_no_interval() -> None:
    frames = [frame(0, 1, b"\xff\xff"), frame(1_000, 1, b"\x04\x00"), frame(900_000, 1, b"\x08\x00")]
    document = {"datatype": "float", "dbc2vss": {"signal": "Rpm", "interval_ms": 500}}
    assert sampled(document, frames) == ([(1_000, 1.0), (900_000, 2.0)], [])


def test_a_value_with_a_text_may_lie_outside_the_limits() -> None:
    document = {"datatype": "string", "dbc2vss": {"signal": "Door", "interval_ms": 0}}
    frames = [frame(0, 2, b"\x03"), frame(1, 2, b"\x02"), frame(2, 2, b"\x01")]
    assert sampled(document, frames) == ([(0, "Invalid"), (2, "Open")], [])


def test_a_bare_name_means_the_signals_of_all_messages_and_a_note_says_so() -> None:
    document = {"datatype": "float", "dbc2vss": {"signal": "Temp", "interval_ms": 0}}
    found, notes = sampled(document, [frame(0, 1, b"\0\0\x32"), frame(1, 2, b"\0\x32")])
    assert found == [(0, 10), (1, 25.0)]
    assert notes == ["V.A: Temp means Engine.Temp on can0, Body.Temp on can0; all of them feed this path"]
    document["dbc2vss"] = {"signal": "Body.Temp", "interval_ms": 0}
    assert sampled(document, [frame(0, 1, b"\0\0\x32"), frame(1, 2, b"\0\x32")]) == ([(1, 25.0)], [])


def test_a_signal_that_no_database_has_is_noted_with_the_nearest_name() -> None:
    document = {"datatype": "float", "dbc2vss": {"signal": "Rmp"}}
    assert sampled(document, [frame(0, 1, b"\x04")]) == (
        [],
        ["V.A: no database has the signal Rmp, so this path has no values; did you mean Rpm?"],
    )


def test_several_signals_wait_until_each_has_had_a_value() -> None:
    document = {
        "datatype": "float",
        "dbc2vss": {
            "signals": {"rpm": "Rpm", "door": "Door"},
            "interval_ms": 0,
            "transform": {"math": "if(door == 'Open', rpm, 0 - rpm)"},
        },
    }
    frames = [frame(0, 1, b"\x04"), frame(1, 2, b"\x01"), frame(2, 1, b"\x08"), frame(3, 2, b"\x00")]
    assert sampled(document, frames)[0] == [(1, 1.0), (2, 2.0), (3, -2.0)]
