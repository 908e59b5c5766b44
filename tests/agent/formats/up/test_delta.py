import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.formats.up import delta

_64_BITS = np.zeros(1, np.uint8)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_VALUES = st.integers(0, 15) | st.integers(-300, 300) | st.integers(-(2**40), 2**40) | _INT64
_TABLES = st.lists(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=_VALUES),
    min_size=1,
    max_size=5,
)


def _encode(columns, wraps):
    return delta.encode([columns], wraps)


def _decode(deltas, *counts):
    return delta.decode(deltas, np.array(counts, np.int64))


@given(_TABLES, st.data())
def test_tables_of_any_values_come_back_exactly_whether_they_fit_their_signals_or_not(tables, data):
    rows = sum(map(len, tables))
    wrap = st.integers(0, 64) | st.integers(1, 64).map(lambda bits: bits | delta.SIGNED)
    wraps = np.array(data.draw(st.lists(wrap, min_size=rows, max_size=rows)), np.uint8)
    encoded = delta.encode(tables, wraps)
    counts = [table.shape[1] for table in tables for _ in table]
    np.testing.assert_array_equal(_decode(encoded, *counts), np.concatenate([table.ravel() for table in tables]))


@given(st.data(), st.integers(1, 64), st.booleans())
def test_values_that_fit_their_signal_wrap_with_it(data, bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    fits = st.integers(low, min(high, 2**63 - 1))
    column = np.array([data.draw(st.lists(fits, min_size=4, max_size=4))], np.int64)
    wraps = np.array([bits | (delta.SIGNED if signed else 0)], np.uint8)
    encoded = _encode(column, wraps)
    assert encoded.wraps.tolist() == wraps.tolist() or bits == 64
    np.testing.assert_array_equal(_decode(encoded, 4), column[0])


@given(
    st.lists(
        hnp.arrays(np.int64, st.integers(1, 9), elements=_INT64 | st.integers(-9, 9).map(lambda n: n * 1_000)),
        min_size=1,
        max_size=4,
    )
)
def test_any_times_come_back_exactly(times):
    encoded = delta.encode_times(times, 0)
    np.testing.assert_array_equal(_decode(encoded, *map(len, times)), np.concatenate(times))


def test_an_alive_counter_is_a_straight_line_and_a_checksum_takes_one_byte():
    counter, checksum = np.arange(100) % 16, np.arange(100) * 89 % 256
    encoded = _encode(np.array([counter, checksum, counter - 8]), np.array([4, 8, 4 | delta.SIGNED], np.uint8))
    assert encoded.widths.tolist() == [0, 0, 0]
    noise = np.random.default_rng(1).integers(0, 256, (1, 500))
    assert _encode(noise, np.array([8], np.uint8)).widths.tolist() == [1]


def test_times_of_a_coarse_recording_are_counted_in_its_unit_around_their_period():
    first, second = np.array([0, 10_000, 21_000, 30_000]), np.array([2_000, 5_000])
    encoded = delta.encode_times([first, second], 0)
    assert encoded.unit == 1_000
    assert encoded.bases.tolist() == [0, 2]
    assert encoded.steps.tolist() == [10, 3]
    assert encoded.residuals == bytes([0, 1, 0xFF])


def test_one_time_that_is_off_the_unit_is_not_rounded():
    encoded = delta.encode_times([np.array([0, 10_000, 20_001])], 0)
    assert encoded.unit == 1
    assert _decode(encoded, 3).tolist() == [0, 10_000, 20_001]


def test_a_unit_holds_for_the_last_time_as_for_the_first_ones():
    regular = np.arange(1_000) * 10_000
    assert delta.encode_times([regular], 0).unit == 10_000
    regular[-1] += 4_000
    encoded = delta.encode_times([regular], 0)
    assert encoded.unit == 2_000
    np.testing.assert_array_equal(_decode(encoded, 1_000), regular)


@given(st.integers(-(2**40), 2**40), st.lists(st.integers(-300, 300), max_size=20))
def test_a_regular_column_with_jitter_takes_at_most_two_bytes_a_value(step, noise):
    column = np.cumsum(np.array([7, *(step + n for n in noise)]))
    encoded = _encode(column[None, :], _64_BITS)
    assert encoded.widths[0] <= 2
    np.testing.assert_array_equal(_decode(encoded, len(column)), column)


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
    assert _decode(encoded, len(column)).tolist() == column


def test_residuals_stand_by_width_with_their_byte_planes_apart():
    first = np.array([[0, 0x0201, 0x0201 * 2 + 1], [9, 9, 9], [0, 1, 3]], np.int64)
    second = np.array([[0, 0x0403, 0], [0, 0x0605, 0]], np.int64)
    encoded = delta.encode([first, second], np.zeros(5, np.uint8))
    assert encoded.widths.tolist() == [1, 0, 1, 2, 2]
    assert encoded.steps.tolist() == [0x0202, 0, 0, 0, 0]
    assert encoded.residuals == bytes([0xFF, 0x00, 1, 2, 0x03, 0xFD, 0x05, 0xFB, 0x04, 0xFB, 0x06, 0xF9])


@pytest.mark.parametrize(
    ("widths", "residuals", "count", "reason"),
    [
        ([3], b"abc", 2, "width"),
        ([1], b"", 2, "length"),
        ([1], b"ab", 2, "length"),
        ([0], b"", 0, "no values"),
        ([8], b"1234567", 2, "length"),
        ([0, 0], b"", 2, "differ"),
    ],
)
def test_contradicting_columns_are_malformed(widths, residuals, count, reason):
    zeros = np.zeros(1, np.int64)
    columns = delta.Deltas(zeros, zeros, np.array(widths, np.uint8), residuals, _64_BITS)
    with pytest.raises(delta.MalformedError, match=reason):
        _decode(columns, count)


@pytest.mark.parametrize(("wrap", "unit"), [(65, 1), (127, 1), (delta.SIGNED | 65, 1), (0, 0), (0, 1 << 63)])
def test_impossible_wraps_and_units_are_malformed(wrap, unit):
    zeros = np.zeros(1, np.int64)
    columns = delta.Deltas(zeros, zeros, _64_BITS, b"", np.array([wrap], np.uint8), unit)
    with pytest.raises(delta.MalformedError, match="wrap is above 64"):
        _decode(columns, 1)


def test_no_columns_are_no_values():
    none = np.zeros(0, np.int64)
    assert _decode(delta.Deltas(none, none, none.astype(np.uint8), b"", none.astype(np.uint8))).tolist() == []
    with pytest.raises(delta.MalformedError, match="no columns"):
        _decode(delta.Deltas(none, none, none.astype(np.uint8), b"x", none.astype(np.uint8)))
