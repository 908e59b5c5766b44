"""Test how cantools' objects are compiled to a plan, and the notes on databases that contradict themselves."""

import numpy as np
import pytest
from cantools.database.can import Database, Message, Signal
from cantools.database.conversion import BaseConversion

from can_dbc.cache import from_bytes, to_bytes
from can_dbc.compile import compile_plan
from can_dbc.plan import Match, match_key
from can_dbc.values import Kind, physical, text_keys


def message(name, signals, *, frame_id=1, length=8, extended=False, **more):
    return Message(frame_id, name, length, signals, is_extended_frame=extended, strict=False, **more)


def plan_of(*messages, match=Match.EXACT):
    return compile_plan([Database(list(messages), strict=False)], match)


def number(scale=1, offset=0, choices=None, is_float=False):
    return BaseConversion.factory(scale, offset, choices, is_float)


def test_a_signal_keeps_name_unit_kind_position_scale_and_texts():
    signal = Signal(
        "Speed", 15, 12, "big_endian", is_signed=True, unit="km/h", conversion=number(0.5, -3, {-1: "low", 5000: "no"})
    )
    (plan,) = plan_of(message("M", [signal])).messages[0].signals
    assert (plan.name, plan.unit, plan.kind, plan.bits, plan.start) == ("Speed", "km/h", Kind.INT, 12, 15)
    assert plan.big_endian
    assert plan.first_bit == 8
    assert (plan.scale, plan.offset) == (0.5, -3.0)
    assert plan.texts == {-1: "low"}  # 5000 is beyond 12 signed bits


def test_the_last_message_of_a_file_wins_and_the_first_file_of_a_bus():
    one = Database([message("Old", []), message("New", [])])
    two = Database([message("Late", []), message("Other", [], frame_id=2)])
    plan = compile_plan([one, two])
    assert [m.name for m in plan.messages] == ["New", "Other"]
    assert plan.notes == (
        "Old: the message is ignored, because New, a later one, matches the same frames; remove one of them",
        "Late: the message is ignored, because New of an earlier database matches the same frames; "
        "to use this message, list its database first",
    )


def test_messages_of_one_name_are_noted():
    plan = plan_of(message("A", []), message("A", [], frame_id=2), message("B", [], frame_id=3))
    assert [m.name for m in plan.messages] == ["A", "A", "B"]
    assert plan.notes == (
        "A: 2 messages share this name, so their samples cannot be told apart by it; give each its own name",
    )


def test_standard_and_extended_identifiers_are_different_messages():
    plan = plan_of(message("A", []), message("B", [], extended=True))
    assert [m.name for m in plan.messages] == ["A", "B"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0x0CF00400, 0x18F00421, True),  # EEC1: priority and source address do not count
        (0x18EA2301, 0x0CEAFF99, True),  # request, PDU1: nor does the destination address
        (0x18F00400, 0x18F00500, False),  # PDU2: the group extension does
        (0x18F00400, 0x19F00400, False),  # the data page does
        (0x18F00400, 0x1AF00400, False),  # so does the extended data page
    ],
)
def test_a_parameter_group_is_compared_without_priority_source_and_destination(one, other, same):
    assert (match_key(one, True, Match.PGN) == match_key(other, True, Match.PGN)) is same
    assert match_key(one, True, Match.EXACT) != match_key(other, True, Match.EXACT)


def test_signals_that_overlap_are_all_decoded_and_one_that_exceeds_the_message_is_left_out():
    overlapping = message("O", [Signal("A", 0, 8), Signal("B", 4, 8)])
    protruding = message("P", [Signal("A", 0, 8), Signal("B", 8, 8), Signal("C", 9, 2, "big_endian")], length=1)
    plan = compile_plan([Database([overlapping], strict=False), Database([message("Q", [], frame_id=2)])])
    assert [s.name for s in plan.messages[0].signals] == ["A", "B"]
    assert plan.notes == ()
    plan = plan_of(protruding)
    assert [s.name for s in plan.messages[0].signals] == ["A"]
    assert plan.notes == tuple(
        f"P.{name}: the signal exceeds the message of 1 bytes, so the signal is left out; correct it in the database"
        for name in "BC"
    )


def test_a_multiplexer_that_exceeds_the_message_costs_what_it_selects():
    signals = [
        Signal("Mux", 60, 8, is_multiplexer=True),
        Signal("A", 8, 8, multiplexer_ids=[1], multiplexer_signal="Mux"),
        Signal("B", 16, 8),
    ]
    plan = plan_of(message("M", signals))
    assert [s.name for s in plan.messages[0].signals] == ["B"]
    assert len(plan.notes) == 2


def test_a_signal_that_nothing_selects_is_left_out():
    signals = [Signal("A", 0, 8), Signal("B", 8, 8, multiplexer_ids=[1], multiplexer_signal="A")]
    plan = plan_of(message("M", signals))
    assert [s.name for s in plan.messages[0].signals] == ["A"]
    assert plan.notes == (
        "M.B: no multiplexer value selects the signal, so it is left out; correct its multiplexing in the database",
    )


def test_a_signal_of_more_than_64_bits_is_left_out():
    plan = plan_of(message("M", [Signal("Long", 0, 65), Signal("A", 72, 8)], length=16))
    assert [s.name for s in plan.messages[0].signals] == ["A"]
    assert plan.notes == (
        "M.Long: the signal has 65 bits, and only 1 to 64 can be decoded, so the signal is left out; "
        "correct it in the database",
    )


def test_of_signals_with_one_name_the_first_is_decoded_whole():
    signals = [Signal("A", 0, 8, unit="m"), Signal("B", 8, 8), Signal("A", 16, 8, unit="km", conversion=number(2))]
    plan = plan_of(message("M", signals))
    kept = plan.messages[0].signals
    assert [(s.name, s.start, s.scale, s.unit) for s in kept] == [("A", 0, 1.0, "m"), ("B", 8, 1.0, None)]
    assert plan.notes == (
        "M.A: another signal of the message has the same name, so the signal at bit 16 is left out; "
        "give each signal its own name",
    )


@pytest.mark.parametrize(("one", "other", "kept"), [([1], [2], 2), ([1, 2], [2, 3], 1), ([1], [1], 1)])
def test_signals_of_one_name_are_both_decoded_if_no_frame_holds_both(one, other, kept):
    signals = [
        Signal("Mux", 0, 8, is_multiplexer=True),
        Signal("A", 8, 8, multiplexer_ids=one, multiplexer_signal="Mux"),
        Signal("A", 16, 8, multiplexer_ids=other, multiplexer_signal="Mux"),
    ]
    assert sum(s.name == "A" for s in plan_of(message("M", signals)).messages[0].signals) == kept


def test_a_container_has_its_messages_under_its_own_identifier():
    inner = Message(1, "Inner", 1, [Signal("A", 0, 8)], header_id=0x10203)
    container = plan_of(message("C", [], contained_messages=[inner])).messages[0]
    (held,) = container.contained
    assert (container.signals, container.defect) == ((), None)
    assert (held.name, held.can_id, held.header_id, held.length) == ("Inner", container.can_id, 0x10203, 1)
    assert [signal.name for signal in held.signals] == ["A"]


@pytest.mark.parametrize(
    ("header_ids", "found", "note"),
    [
        (
            [1, None],
            ["I0"],
            "C.I1: the message is left out, because its header id is None; give it a header id from 0 to 0xFFFFFF",
        ),
        (
            [1 << 24, 1],
            ["I1"],
            "C.I0: the message is left out, because its header id is 16777216; give it a header id from 0 to 0xFFFFFF",
        ),
        ([7, 7], [], "C: contained messages share a header id, so its frames are refused; correct the header ids"),
        (
            [-1],
            [],
            "C: no contained message has a valid header id, so its frames are refused; correct the header ids",
        ),
    ],
)
def test_contained_messages_that_no_header_names_are_noted(header_ids, found, note):
    inner = [Message(1, f"I{n}", 1, [Signal("A", 0, 8)], header_id=one) for n, one in enumerate(header_ids)]
    plan = plan_of(message("C", [], contained_messages=inner))
    assert [held.name for held in plan.messages[0].contained] == found
    assert plan.messages[0].defect == (None if found else "container")
    assert note in plan.notes


def test_a_container_in_a_container_is_a_defect():
    deepest = Message(1, "Deepest", 1, [Signal("A", 0, 8)], header_id=1)
    inner = Message(1, "Inner", 8, [], contained_messages=[deepest], header_id=2)
    plan = plan_of(message("C", [], contained_messages=[inner]))
    assert [(held.name, held.defect, held.contained) for held in plan.messages[0].contained] == [
        ("Inner", "container", ())
    ]
    assert plan.notes == (
        "C.Inner: the container lies in another container, so its data is refused; "
        "move its messages to the outer container",
    )


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (Signal("A", -1, 8), "the signal starts at bit -1"),
        (Signal("A", 0, 24, conversion=number(is_float=True)), "the signal is an IEEE float of 24 bits"),
        (Signal("A", 0, 8, conversion=number(10**400)), "the scale or offset exceeds float64"),
        (Signal("A", 0, 8, conversion=number(float("nan"))), "the scale or offset exceeds float64"),
    ],
)
def test_a_signal_that_has_no_values_is_left_out_alone(signal, reason):
    plan = plan_of(message("M", [signal, Signal("B", 8, 8)]))
    assert [s.name for s in plan.messages[0].signals] == ["B"]
    assert plan.notes[0].startswith(f"M.A: {reason}")


def test_a_message_of_less_than_no_bytes_is_left_out():
    plan = plan_of(message("M", [], length=-1), message("N", [], frame_id=2))
    assert [m.name for m in plan.messages] == ["N"]
    assert plan.notes[0].startswith("M: the message has a length of -1 bytes")


def test_numbers_of_a_multiplexer_that_is_not_named_select_nothing():
    plan = plan_of(message("M", [Signal("A", 0, 8, multiplexer_ids=[3])]))
    assert (plan.messages[0].signals[0].multiplexer, plan.messages[0].signals[0].multiplexer_ids) == (None, ())
    assert from_bytes(to_bytes(plan), Match.EXACT) == plan


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_has_a_value_and_no_text_without_a_warning():
    real = Signal("A", 0, 32, conversion=BaseConversion.factory(is_float=True, choices={0: "zero"}))
    (signal,) = plan_of(message("M", [real])).messages[0].signals
    raw = np.array([0x7F800001, 0], np.int64)
    assert np.isnan(physical(signal, raw)).tolist() == [True, False]
    assert [signal.texts.get(key) for key in text_keys(signal, raw).tolist()] == [None, "zero"]
