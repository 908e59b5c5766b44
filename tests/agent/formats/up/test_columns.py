import numpy as np
import pytest

from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import ColumnGroup, physical_values
from can_dbc.values import Kind, physical
from tests.agent.formats.up.windows import signal

RAW = np.array([[0, 1, -1, 2**63 - 1, -(2**63)], [0x3C00, 0x7C00, 0x7E00, 0x8000, 1]], np.int64)


@pytest.mark.parametrize("kinds", [*((kind, kind) for kind in Kind), (Kind.INT, Kind.FLOAT16)])
def test_physical_values_of_a_group_are_those_of_each_signal_bit_for_bit(kinds):
    infos = tuple(signal("A.x", kind=kind, scale=0.1, offset=-40.0) for kind in kinds)
    found = physical_values(ColumnGroup(np.arange(5), infos, RAW, ({}, {})))
    expected = np.stack([physical(info, row) for info, row in zip(infos, RAW, strict=True)])
    assert found.dtype == np.float64
    assert found.tobytes() == expected.tobytes()


def test_an_unsigned_64_bit_value_is_read_as_unsigned():
    assert physical(signal("A.x", bits=64), np.array([-1])).tolist() == [2.0**64]


@pytest.mark.parametrize("kind", Kind)
def test_kinds_travel_under_the_numbers_that_the_protobuf_names(kind):
    assert pb.Kind.Value(f"KIND_{kind.name}") == kind


def test_only_texts_that_occur_are_shown_and_floats_are_looked_up_by_their_whole_part():
    table = {0: "off", 1: "on", 2: "never"}
    infos = signal("M.A"), signal("M.F", kind=Kind.FLOAT32, bits=32), signal("M.N")
    bits = np.array([1.5, 1.0, 7.0], np.float32).view(np.uint32).astype(np.int64)
    group = ColumnGroup(np.arange(3), infos, np.array([[0, 1, 0], bits, [1, 1, 1]]), (table, table, {}))
    assert group.texts == ({0: "off", 1: "on"}, {int(bits[0]): "on", int(bits[1]): "on"}, {})
