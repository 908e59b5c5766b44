import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.formats import delta

_64_BITS = np.zeros(1, np.uint8)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_STEPPED = st.builds(
    lambda start, step, noise: np.cumsum(np.array([start, *(step + n for n in noise)]).astype(np.int64)),
    st.integers(-(2**40), 2**40),
    st.integers(-(2**40), 2**40),
    st.lists(st.integers(-300, 300), max_size=20),
)


def _encode(columns, wraps):
    return delta.encode([columns], [wraps])[0]


def _encode_times(times):
    return delta.encode_times([times])


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=_INT64))
def test_any_int64_column_comes_back_exactly(columns):
    encoded = _encode(columns, np.zeros(len(columns), np.uint8))
    np.testing.assert_array_equal(delta.decode(encoded, columns.shape[1]), columns)


@given(st.data(), st.integers(1, 64), st.booleans())
def test_columns_that_fit_their_signal_or_not_come_back_exactly(data, bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    fits = st.integers(low, min(high, 2**63 - 1))
    rows = data.draw(st.lists(st.lists(fits | _INT64, min_size=4, max_size=4), min_size=1, max_size=4))
    columns = np.array(rows, np.int64)
    wraps = np.full(len(rows), bits | (delta.SIGNED if signed else 0), np.uint8)
    np.testing.assert_array_equal(delta.decode(_encode(columns, wraps), 4), columns)


@given(hnp.arrays(np.int64, st.integers(1, 12), elements=_INT64 | st.integers(-9, 9).map(lambda n: n * 1_000)))
def test_any_times_come_back_exactly(times):
    np.testing.assert_array_equal(delta.decode(_encode_times(times), len(times))[0], times)


def test_an_alive_counter_is_a_straight_line_and_a_checksum_takes_one_byte():
    counter, checksum = np.arange(100) % 16, np.arange(100) * 89 % 256
    encoded = _encode(np.array([counter, checksum, counter - 8]), np.array([4, 8, 4 | delta.SIGNED], np.uint8))
    assert encoded.widths.tolist() == [0, 0, 0]
    noise = np.random.default_rng(1).integers(0, 256, (1, 500))
    assert _encode(noise, np.array([8], np.uint8)).widths.tolist() == [1]


def test_times_of_a_coarse_recording_are_counted_in_its_unit():
    encoded = _encode_times(np.array([1_000_500, 1_010_500, 1_021_500, 1_030_500]))
    assert encoded.units.tolist() == [1_000]
    assert encoded.widths.tolist() == [1]


@given(_STEPPED)
def test_a_regular_column_with_jitter_takes_at_most_two_bytes_a_value(column):
    encoded = _encode(column[None, :], _64_BITS)
    assert encoded.widths[0] <= 2
    np.testing.assert_array_equal(delta.decode(encoded, len(column))[0], column)


@pytest.mark.parametrize(
    ("column", "width"),
    [
        ([7, 7, 7], 0),
        ([1, 2, 3], 0),
        ([2**63 - 1, -(2**63), -(2**63) + 1], 0),  # a straight line modulo 2^64
        ([0, 127, 0, -128], 1),
        ([0, 10_000, 19_900, 29_990], 1),
        ([0, 300, 0], 2),
        ([0, 2**31 - 1, 2**31 - 2, 0], 4),
        ([0, 2**62, 0, -(2**62)], 8),
        ([5], 0),
    ],
)
def test_a_column_takes_the_narrowest_width_that_holds_it(column, width):
    encoded = _encode(np.array([column], np.int64), _64_BITS)
    assert encoded.widths.tolist() == [width]
    assert len(encoded.residuals) == width * (len(column) - 1)
    assert delta.decode(encoded, len(column)).tolist() == [column]


def test_residuals_stand_little_endian_with_byte_planes_apart_by_width_then_column():
    columns = np.array([[0, 0x0201, 0x0201 * 2 + 1], [9, 9, 9], [0, 1, 3], [0, 0x0403, 0]], np.int64)
    encoded = _encode(columns, np.zeros(4, np.uint8))
    assert encoded.widths.tolist() == [1, 0, 1, 2]
    assert encoded.steps.tolist() == [0x0202, 0, 0, 0]
    assert encoded.residuals == bytes([0xFF, 0x00, 1, 2, 0x03, 0xFD, 0x04, 0xFB])


@pytest.mark.parametrize(
    ("widths", "residuals", "count", "reason"),
    [
        ([3], b"abc", 2, "width"),
        ([1], b"", 2, "length"),
        ([1], b"ab", 2, "length"),
        ([0], b"", 0, "no values"),
        ([8], b"1234567", 2, "length"),
    ],
)
def test_contradicting_columns_are_malformed(widths, residuals, count, reason):
    zeros = np.zeros(1, np.int64)
    columns = delta.Deltas(zeros, zeros, np.array(widths, np.uint8), residuals, _64_BITS, zeros + 1)
    with pytest.raises(delta.MalformedError, match=reason):
        delta.decode(columns, count)


@given(st.lists(st.floats(width=64, allow_nan=False)))
def test_float64_numbers_come_back_bit_for_bit(numbers):
    bits = [first for first, _ in delta.patterns([(number, 0.0) for number in numbers])]
    assert list(map(float.hex, delta.join_bytes(delta.split_bytes(bits)))) == list(map(float.hex, numbers))


@pytest.mark.parametrize(("wrap", "unit"), [(65, 1), (127, 1), (delta.SIGNED | 65, 1), (0, 0), (0, -1)])
def test_impossible_wraps_and_units_are_malformed(wrap, unit):
    zeros = np.zeros(1, np.int64)
    columns = delta.Deltas(zeros, zeros, _64_BITS, b"", np.array([wrap], np.uint8), zeros + unit)
    with pytest.raises(delta.MalformedError, match="wraps beyond"):
        delta.decode(columns, 1)


@given(
    st.lists(
        hnp.arrays(
            np.int64,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=st.integers(0, 15) | st.integers(-300, 300) | st.integers(-(2**40), 2**40) | _INT64,
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 64), min_size=6, max_size=6),
    st.booleans(),
)
def test_tables_encoded_together_are_those_encoded_one_by_one(tables, bits, signed):
    wraps = [
        np.full(len(table), bit | (delta.SIGNED if signed and bit else 0), np.uint8)
        for table, bit in zip(tables, bits, strict=False)
    ]
    together = delta.encode(tables, wraps)
    for table, wrap, deltas in zip(tables, wraps, together, strict=True):
        alone = _encode(table, wrap)
        assert deltas.residuals == alone.residuals
        assert all(
            np.array_equal(getattr(deltas, name), getattr(alone, name))
            for name in ("bases", "steps", "widths", "wraps", "units")
        )
        np.testing.assert_array_equal(delta.decode(deltas, table.shape[1]), table)
