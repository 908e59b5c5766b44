"""The physical values of a whole message equal those of its single signals, bit for bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.conversions import Conversions
from can_dbc.decoder import SignalColumns
from can_dbc.plan import MessagePlan, SignalPlan
from can_dbc.values import Kind, physical

KINDS = [(Kind.UINT, 8), (Kind.UINT, 64), (Kind.INT, 13), (Kind.INT, 64), (Kind.FLOAT32, 32), (Kind.FLOAT64, 64)]
NUMBERS = st.sampled_from([1.0, 0.0, -0.0, -1.0, 0.1, -273.15, 1e300, 2.0**60])


def _signal(number, kind, bits, scale, offset):
    return SignalPlan(f"S{number}", None, kind, bits, 0, False, scale, offset, {})


@given(st.lists(st.tuples(st.sampled_from(KINDS), NUMBERS, NUMBERS), max_size=6), st.randoms(use_true_random=False))
def test_every_value_is_that_of_its_signal(drafts, random):
    signals = tuple(_signal(i, *kind, scale, offset) for i, (kind, scale, offset) in enumerate(drafts))
    raw = np.array([[random.getrandbits(s.bits) for _ in range(4)] for s in signals], np.uint64).reshape(-1, 4)
    shift = np.array([[64 - s.bits if s.kind is Kind.INT else 0] for s in signals], np.int64).reshape(-1, 1)
    raw = raw.view(np.int64) << shift >> shift
    rows = np.arange(4)
    message = MessagePlan("M", 1, False, 8, signals)
    columns = SignalColumns(0, message, rows, rows, tuple(range(len(signals))), raw, None)
    conversions = Conversions()
    for _ in range(2):
        found = conversions.physical(columns)
        expected = np.array([physical(s, row) for s, row in zip(signals, raw, strict=True)]).reshape(-1, 4)
        nan = np.isnan(expected)
        assert np.array_equal(nan, np.isnan(found))
        assert np.array_equal(expected[~nan].view(np.int64), found[~nan].view(np.int64))
