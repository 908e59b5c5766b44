import numpy as np
import pytest

from agent.formats.up.columns import Kind, physical
from can_dbc.plan import Kind as PlanKind
from can_dbc.plan import SignalPlan
from can_dbc.plan import physical as physical_of_plan
from tests.agent.formats.up.windows import signal

RAW = np.array([[0, 1, -1, 2**63 - 1, -(2**63)], [0x3C00, 0x7C00, 0x7E00, 0x8000, 1]], np.int64)


@pytest.mark.parametrize("kind", Kind)
def test_physical_values_in_the_lake_are_those_of_the_decoder_bit_for_bit(kind):
    info = signal("A.x", kind=kind, scale=0.1, offset=-40.0)
    plan = SignalPlan("x", None, PlanKind(kind), 64, 0, False, 0.1, -40.0, {})
    ours, decoders = physical(info, RAW), physical_of_plan(plan, RAW)
    assert ours.dtype == np.float64
    assert ours.tobytes() == decoders.tobytes()


def test_an_unsigned_64_bit_value_is_read_as_unsigned():
    assert physical(signal("A.x", bits=64), np.array([-1])).tolist() == [2.0**64]
