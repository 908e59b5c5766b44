"""Values at the edges of their types go from a log to the lake unchanged, and queries on them lose no row."""

import math
import struct
from pathlib import Path

import pytest

from fleet.lake.query import query
from tests import shared_data
from tests.agent.car import Car, command
from tests.integration.lake import receiving

pytestmark = pytest.mark.integration

DATABASE = """VERSION ""

BS_:

BU_: Node

BO_ 801 Probe: 8 Node
 SG_ Reading : 0|32@1- (1,0) [0|0] "" Vector__XXX
 SG_ Count : 32|32@1+ (1,0) [0|0] "" Vector__XXX

BO_ 802 Meter: 8 Node
 SG_ Precise : 0|64@1- (1,0) [0|0] "" Vector__XXX

BO_ 803 Total: 8 Node
 SG_ Sum : 0|64@1+ (1,0) [0|0] "" Vector__XXX

SIG_VALTYPE_ 801 Reading : 1;
SIG_VALTYPE_ 802 Precise : 2;
VAL_ 803 Sum 18446744073709551615 "invalid" ;
"""
READINGS = [2.5, math.nan, math.inf, -math.inf, -0.0, 1.401298464324817e-45, 3.4028234663852886e38]
PRECISE = [-math.inf, 5e-324, 1.7976931348623157e308, math.nan]
SUMS = [2**64 - 1, 2**63, 2**53 + 1, 0]
T0_US = 1_795_000_000_999_999


def write_drive(folder: Path) -> tuple[Path, Path]:
    """Write a database and a log with one frame for each value; return their files."""
    frames = [(801, struct.pack("<fI", value, 11)) for value in READINGS]
    frames += [(802, struct.pack("<d", value)) for value in PRECISE]
    frames += [(803, struct.pack("<Q", value)) for value in SUMS]
    stamps = [T0_US + 100_000 * number for number in range(len(frames) - 2)] + [0, 4_102_444_800_000_000]
    lines = [
        f"({t_us // 10**6}.{t_us % 10**6:06d}) can0 {id_:03X}#{data.hex().upper()}\n"
        for t_us, (id_, data) in zip(stamps, frames, strict=True)
    ]
    database, log = folder / "edges.dbc", folder / "edges.log"
    database.write_text(DATABASE)
    log.write_text("".join(lines))
    return database, log


def replayed(folder: Path, database: Path, log: Path) -> str:
    """Replay a log of bus can0 into a lake of its own, and return the lake."""
    car = Car.make(folder)
    car.buses = f'[bus.can0]\ndbc = ["{database}"]\n'
    car.write()
    with receiving(car):
        agent = car.start("replay", "--log", str(log), "--speed", "0")
        assert agent.wait() == 0, agent.output()
    return str(car.fleet.lake)


def rows(lake: str, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in query(lake, sql).to_pylist()]


def same(found: object, right: float) -> bool:
    """Return whether two numbers are equal, with their sign; NaN equals NaN."""
    return isinstance(found, float) and struct.pack("<d", found) == struct.pack("<d", right)


@pytest.mark.parametrize("compacted", [False, True])
def test_values_at_the_edges_arrive_once_and_every_query_finds_them(tmp_path: Path, compacted: bool) -> None:
    lake = replayed(tmp_path, *write_drive(tmp_path))
    if compacted:
        assert command("fleet", "compact", "--fleet", tmp_path / "fleet").returncode == 0
    right = {"Probe.Reading": READINGS, "Meter.Precise": PRECISE}
    for signal, values in right.items():
        found = rows(lake, f"SELECT value FROM samples WHERE signal = '{signal}' ORDER BY time")
        assert len(found) == len(values)
        assert all(same(value, each) for (value,), each in zip(found, values, strict=True)), found
    sums = rows(lake, "SELECT value, text, epoch_us(time) FROM samples WHERE signal = 'Total.Sum' ORDER BY value DESC")
    assert [value for value, _, _ in sums] == [float(each) for each in SUMS]
    assert [text for _, text, _ in sums] == ["invalid", None, None, None]
    assert {t_us for _, _, t_us in sums} >= {0, 4_102_444_800_000_000}
    (counted,) = rows(lake, "SELECT count(*) FROM samples WHERE signal = 'Probe.Count' AND value = 11")
    (below,) = rows(lake, "SELECT count(*) FROM samples WHERE value < 2")
    (infinite,) = rows(lake, "SELECT count(*) FROM samples WHERE value = 'inf'::DOUBLE")
    assert (counted, below, infinite) == ((7,), (6,), (1,))


@pytest.mark.shared
@pytest.mark.parametrize("case", ["faults/lake-infinity-hides-rows", "passing/lake-special-values"])
def test_the_strangers_drive_with_an_infinity_hides_no_row(tmp_path: Path, case: str) -> None:
    folder = shared_data.require().parent / "cases" / case
    lake = replayed(tmp_path, folder / "nan.dbc", folder / "nan.log")
    assert rows(lake, "SELECT count(*) FROM samples WHERE signal = 'F.U' AND value = 7") == [(9,)]
    assert rows(lake, "SELECT count(*) FROM samples WHERE value < 2") == [(5,)]
    assert rows(lake, "SELECT count(*) FROM samples") == [(25,)]
