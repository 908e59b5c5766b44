"""The decoder decodes or refuses each frame of a block, and no block makes it fail."""

import numpy as np
import pytest
from cantools.database.can import Database, Message, Signal
from cantools.database.conversion import BaseConversion
from hypothesis import given
from hypothesis import strategies as st

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder, Refused, Unlisted
from can_dbc.errors import DecodeError
from can_dbc.frames import ERROR, EXTENDED, REMOTE, FrameBlock
from can_dbc.plan import Match
from can_dbc.values import physical
from tests.can_dbc.oracle import block_of

SPEED = Message(0x100, "Speed", 2, [Signal("Value", 0, 16, unit="km/h")])
MOTOR = Message(
    0x18F00400,
    "Motor",
    8,
    [
        Signal("Mode", 0, 4, is_multiplexer=True),
        Signal("Torque", 8, 8, is_signed=True, multiplexer_ids=[0], multiplexer_signal="Mode"),
        Signal("Sub", 8, 8, is_multiplexer=True, multiplexer_ids=[1, 2, 3], multiplexer_signal="Mode"),
        Signal("Deep", 16, 8, multiplexer_ids=[7], multiplexer_signal="Sub"),
        Signal("Counter", 56, 8),
    ],
    is_extended_frame=True,
)
DATABASE = Database([SPEED, MOTOR])
PLAN = compile_plan([DATABASE])
PGN_PLAN = compile_plan([DATABASE], Match.PGN)


def refusals(decoded):
    return {(r.kind, r.can_id, r.message): r.frames for r in decoded.refusals}


def motor(*data):
    return (0x18F00400, True, bytes(data).ljust(8, b"\0"))


def test_rows_and_times_keep_the_order_of_the_block():
    block = block_of([(0x100, False, b"\x02\0"), motor(0, 5), (0x100, False, b"\x01\0")])
    speed, _ = sorted(Decoder({0: PLAN}).decode(block).columns, key=lambda c: c.message.name, reverse=True)
    assert speed.rows.tolist() == [0, 2]
    assert speed.t_ns.tolist() == [0, 2_000_000]
    assert speed.raw.tolist() == [[2, 1]]
    assert speed.valid is None


def test_the_order_of_frames_is_kept_in_large_blocks():
    frames = [(0x100, False, n.to_bytes(2, "little")) if n % 3 else motor(0) for n in range(5000)]
    decoded = Decoder({0: PLAN}).decode(block_of(frames))
    for columns in decoded.columns:
        assert columns.rows.tolist() == [n for n in range(5000) if (n % 3 == 0) == (columns.message.name == "Motor")]
        if columns.message.name == "Speed":
            assert columns.raw[0].tolist() == columns.rows.tolist()


def test_validity_follows_nested_multiplexers():
    block = block_of([motor(0, 0xFF, 9), motor(1, 7, 9)])
    (columns,) = Decoder({0: PLAN}).decode(block).columns
    names = [columns.message.signals[i].name for i in columns.signals]
    selected = [{n for n, ok in zip(names, columns.valid[:, f], strict=True) if ok} for f in range(2)]
    assert selected == [{"Mode", "Torque", "Counter"}, {"Mode", "Sub", "Deep", "Counter"}]
    assert columns.raw[names.index("Torque"), 0] == -1
    assert columns.raw[names.index("Deep"), 1] == 9


def test_an_unlisted_multiplexer_number_costs_what_it_selects_and_is_counted_by_the_name_of_the_multiplexer():
    block = block_of([motor(9, 0), motor(1, 8), motor(1, 7)])
    decoded = Decoder({0: PLAN}).decode(block)
    (columns,) = decoded.columns
    names = [columns.message.signals[index].name for index in columns.signals]
    found = [{name for name, ok in zip(names, columns.valid[:, row], strict=True) if ok} for row in range(3)]
    assert found == [{"Mode", "Counter"}, {"Mode", "Sub", "Counter"}, {"Mode", "Sub", "Deep", "Counter"}]
    assert decoded.refusals == ()
    assert decoded.unlisted == (Unlisted(0, "Motor", "Mode", 1), Unlisted(0, "Motor", "Sub", 1))


def test_one_of_two_independent_multiplexers_may_have_an_unlisted_number():
    signals = [Signal(f"M{n}", 8 * n, 8, is_multiplexer=True) for n in range(2)]
    signals += [Signal(f"S{n}", 16 + 8 * n, 8, multiplexer_ids=[1], multiplexer_signal=f"M{n}") for n in range(2)]
    plan = compile_plan([Database([Message(1, "Two", 4, signals)], strict=False)])
    decoded = Decoder({0: plan}).decode(block_of([(1, False, b"\1\7\5\6"), (1, False, b"\7\1\5\6")]))
    assert decoded.columns[0].valid.tolist() == [[True, True], [True, True], [True, False], [False, True]]
    assert decoded.unlisted == (Unlisted(0, "Two", "M0", 1), Unlisted(0, "Two", "M1", 1))


def test_an_unlisted_number_is_counted_even_where_only_a_plain_signal_is_wanted():
    counter = [s.name for s in PLAN.messages[1].signals].index("Counter")
    decoder = Decoder({0: PLAN}, lambda bus, message: [counter] if message.name == "Motor" else [])
    decoded = decoder.decode(block_of([motor(9), motor(0, 0, 0, 0, 0, 0, 0, 3), (0x100, False, b"")]))
    (columns,) = decoded.columns
    assert (columns.signals, columns.raw.tolist(), columns.valid) == ((counter,), [[0, 3]], None)
    assert refusals(decoded) == {}  # unwanted frames are not refused
    assert decoded.unlisted == (Unlisted(0, "Motor", "Mode", 1),)


def test_short_data_is_refused_and_longer_data_trimmed():
    decoded = Decoder({0: PLAN}).decode(block_of([(0x100, False, b"\x01"), (0x100, False, b"\x01\0\xff\xff")]))
    assert refusals(decoded) == {(Refused.SHORT, 0x100, "Speed"): 1}
    assert decoded.columns[0].raw.tolist() == [[1]]


def test_a_classic_message_decodes_from_an_fd_frame_and_a_long_one_never_from_a_classic():
    long = compile_plan([Database([Message(0x200, "Long", 12, [Signal("A", 64, 32)])])])
    decoded = Decoder({0: PLAN}).decode(block_of([(0x100, False, b"\x05" + bytes(63))]))
    assert decoded.columns[0].raw.tolist() == [[5]]
    assert refusals(Decoder({0: long}).decode(block_of([(0x200, False, bytes(8))]))) == {
        (Refused.SHORT, 0x200, "Long"): 1
    }


def test_a_message_beyond_any_frame_is_always_short():
    long = compile_plan([Database([Message(0x200, "Long", 1785, [Signal("A", 8000, 64)])])])
    decoded = Decoder({0: long}).decode(block_of([(0x200, False, bytes(64))]))
    assert refusals(decoded) == {(Refused.SHORT, 0x200, "Long"): 1}


def test_identifier_type_and_bus_are_part_of_the_match():
    other = block_of([(0x100, True, b"\0\0"), (0x7FF, False, b"")])
    assert refusals(Decoder({0: PLAN}).decode(other)) == {
        (Refused.UNKNOWN, 0x100, None): 1,
        (Refused.UNKNOWN, 0x7FF, None): 1,
    }
    bus1 = block_of([(0x100, False, b"\0\0")], bus=1, buses=("can0", "can1"))
    (unknown,) = Decoder({0: PLAN}).decode(bus1).refusals
    assert (unknown.kind, unknown.bus, unknown.frames) == (Refused.UNKNOWN, 1, 1)
    (columns,) = Decoder({0: PLAN, 1: PLAN}).decode(bus1).columns
    assert columns.bus == 1


def test_a_pgn_match_ignores_priority_and_source_of_extended_frames_only():
    frames = [(0x0CF00455, True, bytes(8)), (0x18F10400, True, bytes(8)), (0x100, False, bytes(2)), (0x101, False, b"")]
    decoded = Decoder({0: PGN_PLAN}).decode(block_of(frames))
    assert {c.message.name: c.rows.tolist() for c in decoded.columns} == {"Speed": [2], "Motor": [0]}
    assert refusals(decoded) == {(Refused.UNKNOWN, 0x18F10400, None): 1, (Refused.UNKNOWN, 0x101, None): 1}


def test_senders_of_one_parameter_group_come_apart():
    frames = [
        (0x18F00421, True, b"\0\1" + bytes(6)),
        (0x18F00400, True, b"\1\7\2" + bytes(5)),
        (0x0CF00421, True, b"\0\3" + bytes(6)),
        (0x100, False, bytes(2)),
    ]
    columns = Decoder({0: PGN_PLAN}).decode(block_of(frames)).columns
    found = [(c.message.name, c.source_address, c.rows.tolist(), c.t_ns.tolist(), c.raw[1:3].tolist()) for c in columns]
    assert found == [
        ("Speed", None, [3], [3_000_000], []),
        ("Motor", 0x00, [1], [1_000_000], [[7], [7]]),
        ("Motor", 0x21, [0, 2], [0, 2_000_000], [[1, 3], [1, 3]]),
    ]
    assert [c.valid[1].tolist() for c in columns[1:]] == [[False], [True, True]]


def test_an_identifier_that_is_matched_whole_has_no_source_address():
    (columns,) = Decoder({0: PLAN}).decode(block_of([motor(0)])).columns
    assert columns.source_address is None


def test_error_and_remote_frames_are_counted_apart():
    block = block_of([(0x100, False, b"\0\0")] * 3)
    block.flags[:] = [REMOTE, ERROR, 0]
    decoded = Decoder({0: PLAN}).decode(block)
    assert refusals(decoded) == {(Refused.REMOTE, 0x100, None): 1, (Refused.ERROR, 0x100, None): 1}
    assert decoded.columns[0].rows.tolist() == [2]


def test_a_message_without_signals_decodes_to_no_rows_of_values():
    plan = compile_plan([Database([Message(0x10, "Empty", 0, [])])])
    (columns,) = Decoder({0: plan}).decode(block_of([(0x10, False, b"\x01")])).columns
    assert columns.raw.shape == (0, 1)
    assert columns.rows.tolist() == [0]


def test_an_empty_block_decodes_to_nothing():
    decoded = Decoder({0: PLAN}).decode(block_of([motor()]).slice(0, 0))
    assert decoded.columns == decoded.refusals == ()


def test_a_wanted_signal_that_does_not_exist_is_a_decode_error():
    with pytest.raises(DecodeError, match=r"Speed has the signals 0 to 0, but \(1,\) are wanted"):
        Decoder({0: PLAN}, lambda bus, message: [1])


def test_wanted_signals_come_in_the_order_asked_for_with_their_validity():
    deep = [s.name for s in PLAN.messages[1].signals].index("Deep")
    decoder = Decoder({0: PLAN}, lambda bus, message: [deep, 0] if message.name == "Motor" else [])
    (columns,) = decoder.decode(block_of([motor(1, 7, 42), motor(0)])).columns
    assert columns.signals == (deep, 0)
    assert columns.raw[0, 0] == 42
    assert columns.valid.tolist() == [[True, False], [True, True]]


def test_a_scaled_multiplexer_selects_by_its_scaled_value():
    scaled = BaseConversion.factory(0.5, 1)
    signals = [
        Signal("Mux", 0, 8, is_multiplexer=True, conversion=scaled),
        Signal("A", 8, 8, multiplexer_ids=[3], multiplexer_signal="Mux"),
    ]
    plan = compile_plan([Database([Message(1, "M", 2, signals)])])
    decoded = Decoder({0: plan}).decode(block_of([(1, False, bytes([raw, 9])) for raw in (3, 4, 5, 6)]))
    names = [decoded.columns[0].message.signals[index].name for index in decoded.columns[0].signals]
    # 0.5 * 4 + 1 and int(0.5 * 5 + 1) are 3.
    assert decoded.columns[0].valid[names.index("A")].tolist() == [False, True, True, False]


def test_a_multiplexer_whose_texts_repeat_selects_the_last_number_of_the_text():
    texts = BaseConversion.factory(choices={1: "same", 2: "same"})
    signals = [
        Signal("Mux", 0, 8, is_multiplexer=True, conversion=texts),
        Signal("A", 8, 8, multiplexer_ids=[2], multiplexer_signal="Mux"),
    ]
    plan = compile_plan([Database([Message(1, "M", 2, signals)])])
    (columns,) = Decoder({0: plan}).decode(block_of([(1, False, b"\x01\x09"), (1, False, b"\x02\x09")])).columns
    assert columns.valid.tolist() == [[True, True], [True, True]]


def test_minus_zero_of_an_unscaled_float_stays_minus_zero():
    plan = compile_plan(
        [Database([Message(1, "M", 4, [Signal("F", 0, 32, conversion=BaseConversion.factory(is_float=True))])])]
    )
    (columns,) = Decoder({0: plan}).decode(block_of([(1, False, b"\0\0\0\x80")])).columns
    assert np.signbit(physical(columns.message.signals[0], columns.raw[0])).all()


@st.composite
def blocks(draw):
    count = draw(st.integers(0, 40))
    width = draw(st.sampled_from([8, 64]))
    ids = st.sampled_from([0x100, 0x18F00400, 0x0CF00499, 0]) | st.integers(0, 2**32 - 1)
    column = lambda values, dtype: np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype)  # noqa: E731
    return FrameBlock(
        column(st.integers(-(2**63), 2**63 - 1), np.int64),
        column(st.integers(0, 255), np.uint8),
        column(ids, np.uint32),
        column(st.integers(0, 255) | st.sampled_from([0, EXTENDED]), np.uint8),
        column(st.integers(0, width), np.uint8),
        np.frombuffer(draw(st.binary(min_size=count * width, max_size=count * width)), np.uint8).reshape(-1, width),
        tuple(f"can{n}" for n in range(256)),
    )


@given(blocks(), st.sampled_from([PLAN, PGN_PLAN]))
def test_every_frame_of_any_block_is_decoded_or_refused(block, plan):
    decoded = Decoder({0: plan, 255: plan}).decode(block)
    rows = [row for columns in decoded.columns for row in columns.rows.tolist()]
    assert len(rows) == len(set(rows))
    assert len(rows) + sum(refusal.frames for refusal in decoded.refusals) == len(block)


def test_signals_beyond_the_message_are_left_out_and_the_others_decode():
    signals = (
        ' SG_ Mux M : 0|8@1+ (1,0) [0|0] "" A\n SG_ Good m0 : 8|8@1+ (1,0) [0|0] "" A\n'
        ' SG_ Across m1 : 60|16@1+ (1,0) [0|0] "" A\n SG_ Beyond m2 : 70|9@1+ (1,0) [0|0] "" A\n'
        ' SG_ Network m0 : 71|9@0+ (1,0) [0|0] "" A\n'
    )
    database = parse(f'VERSION ""\nBU_: A\nBO_ 1 M: 8 A\n{signals}'.encode(), "dbc", "test")
    frames = [(1, False, bytes([number, 5, 0, 0, 0, 0, 0, 0])) for number in range(3)]
    plan = compile_plan([database])
    decoded = Decoder({0: plan}).decode(block_of(frames))
    assert [signal.name for signal in plan.messages[0].signals] == ["Mux", "Good"]
    assert decoded.columns[0].raw.tolist() == [[0, 1, 2], [5, 5, 5]]
    assert decoded.columns[0].valid.tolist() == [[True, True, True], [True, False, False]]
    assert decoded.refusals == ()
