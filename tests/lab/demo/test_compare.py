"""The comparison behind the demonstration's verdict finds every kind of difference."""

import pyarrow as pa
import pytest

from lab.demo.compare import Comparison, compare
from lab.demo.oracle import Expected

ROWS = [
    ("c", "can0", "M.A", 10, 1, 0.5, None, "V", None),
    ("c", "can0", "M.A", 20, 2, 1.0, "two", "V", None),
    ("c", "can0", "M.A", 20, 2, 1.0, "two", "V", None),  # two samples at one time
    ("c", "can1", "M.A", 20, 3, float("nan"), None, None, 33),
]
COLUMNS = ("campaign", "bus", "signal", "time_us", "raw", "value", "text", "unit", "source_address")


def _compare(lake: list[tuple[object, ...]]) -> Comparison:
    expected = Expected()
    for row in ROWS:
        for name, value in zip(COLUMNS, row, strict=True):
            getattr(expected, name).append(value)
    columns = list(zip(*lake, strict=True)) if lake else [()] * len(COLUMNS)
    table = dict(zip(COLUMNS, columns, strict=True))
    times = pa.array(table.pop("time_us"), pa.int64()).cast(pa.timestamp("us", "UTC"))
    return compare(expected, pa.table({**{k: pa.array(v) for k, v in table.items()}, "time": times}))


def test_equal_content_in_any_order_is_equal() -> None:
    result = _compare(list(reversed(ROWS)))
    assert result == Comparison(4, 4, 0, 0, 0, ())
    assert result.equal


@pytest.mark.parametrize("gone", range(len(ROWS)))
def test_a_missing_sample_is_counted(gone: int) -> None:
    result = _compare([row for number, row in enumerate(ROWS) if number != gone])
    assert (result.missing, result.duplicates, result.differing) == (1, 0, 0)
    assert not result.equal
    assert "M.A" in result.examples[0]


def test_an_empty_lake_misses_everything() -> None:
    assert _compare([]).missing == 4


@pytest.mark.parametrize("twice", range(len(ROWS)))
def test_a_surplus_sample_is_counted(twice: int) -> None:
    result = _compare([*ROWS, ROWS[twice]])
    assert (result.missing, result.duplicates, result.differing) == (0, 1, 0)


@pytest.mark.parametrize(
    "changed",
    [
        ("c", "can0", "M.A", 10, 2, 0.5, None, "V", None),
        ("c", "can0", "M.A", 10, 1, 0.5000000000000001, None, "V", None),
        ("c", "can0", "M.A", 10, 1, 0.5, "text", "V", None),
        ("c", "can0", "M.A", 10, 1, 0.5, None, "mV", None),
    ],
)
def test_a_differing_sample_is_counted_to_the_last_bit(changed: tuple[object, ...]) -> None:
    result = _compare([changed, *ROWS[1:]])
    assert (result.missing, result.duplicates, result.differing) == (0, 0, 1)
    assert len(result.examples) == 1


@pytest.mark.parametrize(("bus", "sender"), [("can1", None), ("can0", 0)])
def test_another_bus_or_sender_is_missing_and_surplus(bus: str, sender: int | None) -> None:
    result = _compare([("c", bus, "M.A", 10, 1, 0.5, None, "V", sender), *ROWS[1:]])
    assert (result.missing, result.duplicates) == (1, 1)
