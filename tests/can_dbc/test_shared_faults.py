"""The databases of ../shared/cases/faults in ARXML and KCD form give what their expected.md calls right."""

import pytest

from agent.commands.decode import decode_log
from agent.errors import Permanent
from can_dbc.compile import compile_plan
from can_dbc.database import load
from tests import shared_data

FAULTS = shared_data.DATA.parent / "cases" / "faults"
pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def _need_cases():
    shared_data.require()


def decoded(folder, log, database, tmp_path, bus=None):
    """Return (bus, signal, value, text) of each sample, and the notes."""
    out = tmp_path / "o.csv"
    summary = decode_log(FAULTS / folder / log, {bus: [FAULTS / folder / database]}, out)
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    return [(row[1], f"{row[2]}.{row[3]}", float(row[5]), row[6]) for row in rows], summary.notes


@pytest.mark.parametrize("database", ["control.arxml", "r2_ratfunc.arxml", "r3_scale_linear.arxml"])
def test_lines_of_every_category(database, tmp_path):
    samples, notes = decoded("arxml-compu-methods-ignored", "r.log", database, tmp_path)
    assert [sample[2] for sample in samples] == [10.0, 26.5, 87.5]
    assert notes == []


@pytest.mark.parametrize("database", ["r5_tabnointp.arxml", "r10_linear_two.arxml"])
def test_what_is_no_line_is_left_out_by_name(database, tmp_path):
    samples, notes = decoded("arxml-compu-methods-ignored", "r.log", database, tmp_path)
    assert samples == []
    assert "GearFrame.Gear: the signal is left out, because its computation method GearText" in notes[0]


@pytest.mark.parametrize("database", ["r6_sm.arxml", "r7_1c.arxml"])
def test_base_types_without_two_s_complement_are_left_out_by_name(database, tmp_path):
    samples, notes = decoded("arxml-base-type-encodings", "r.log", database, tmp_path)
    assert samples == []
    assert "GearFrame.Gear: the signal is left out, because the encoding" in notes[0]


def test_texts_with_limits_written_as_floats(tmp_path):
    samples, _ = decoded("arxml-float-limits-crash", "a.log", "a2_float.arxml", tmp_path)
    assert [(value, text) for _, _, value, text in samples][3] == (127.5, "SNA")


def test_texts_of_ranges():
    plan = compile_plan([load(FAULTS / "arxml-text-ranges" / "a5_range.arxml")])
    assert plan.messages[0].signals[0].texts == {0: "P", 1: "Range", 2: "Range", 3: "Range"}


def test_one_bus_of_two(tmp_path):
    folder, log, database = "database-of-several-buses", "k.log", "k1_two_buses.kcd"
    samples, _ = decoded(folder, log, f"{database}#Motor", tmp_path, "can0")
    assert [sample[:3] for sample in samples] == [("can0", "Speed.Kmh", 100.0), ("can0", "Speed.Kmh", 2.57)]
    samples, _ = decoded(folder, log, f"{database}#Body", tmp_path, "can1")
    assert [sample[:3] for sample in samples] == [("can1", "Doors.Open", 17.0)]
    with pytest.raises(Permanent, match="choose one of its buses by name"):
        decoded(folder, log, database, tmp_path)
