"""ARXML conversions and base types are carried out, or named in a note; nothing comes as a plain raw value in silence.

The right values are worked out by hand from AUTOSAR's rules: a numerator (a, b) over (c) is (a + b * raw) / c.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError
from can_dbc.values import physical
from tests.can_dbc.arxml_text import Field, Frame, arxml, constant, limits, line, method, text
from tests.can_dbc.oracle import block_of


def plan_of(content):
    return compile_plan([parse(content, "arxml", "car.arxml")])


def one(**of_field):
    """Return the plan of a database with the single signal Oil.Bar."""
    return plan_of(arxml(Frame("Oil", 0x2A1, [Field("Bar", **of_field)])))


def signal_of(plan):
    (message,) = plan.messages
    (signal,) = message.signals
    return signal


def values(plan, *payloads):
    """Return the physical values of the only signal."""
    (message,) = plan.messages
    frames = [(message.can_id, message.extended, bytes(p).ljust(8, b"\0")) for p in payloads]
    (columns,) = Decoder({0: plan}).decode(block_of(frames)).columns
    return physical(message.signals[0], columns.raw[0]).tolist()


@pytest.mark.parametrize(
    "category", ["LINEAR", "SCALE_LINEAR", "RAT_FUNC", "SCALE_RAT_FUNC", "SCALE_LINEAR_AND_TEXTTABLE"]
)
def test_a_straight_line_is_carried_out_in_every_category(category):
    plan = one(method=method(line(-50, 3, bottom=(4,)), category))
    assert values(plan, [0], [10], [255]) == [-12.5, -5.0, 178.75]
    assert plan.notes == ()


def test_a_line_without_a_category_is_carried_out():
    assert values(one(method=method(line(1, 0.25)).replace("<CATEGORY>LINEAR</CATEGORY>", "")), [8]) == [3.0]


def test_zeros_of_higher_powers_keep_a_quotient_a_line():
    plan = one(method=method(line(7, 2, 0, 0, bottom=(10, 0, 0)), "RAT_FUNC"))
    assert values(plan, [4]) == [1.5]


def test_a_falling_line_is_carried_out():
    plan = one(method=method(line(100, -0.5, within=limits(0, 200))))
    assert values(plan, [0], [200]) == [100.0, 0.0]
    assert plan.notes == ()


def test_a_constant_is_carried_out_and_named():
    plan = one(method=method(line(42)))
    assert values(plan, [0], [9]) == [42.0, 42.0]
    assert "Oil.Bar: the scale is 0, so all values are 42.0" in plan.notes[0]


def test_a_line_that_is_only_written_towards_the_internal_value_is_turned_around():
    plan = one(method=method(line(80, 2), direction="PHYS-TO-INTERNAL"))
    assert values(plan, [80], [90]) == [0.0, 5.0]


def test_a_conversion_at_the_i_signal_is_used():
    assert values(one(network_method=method(line(-40, 0.5))), [100]) == [10.0]


def test_two_equal_conversions_are_one_and_two_different_ones_leave_the_signal_out():
    same = method(line(-40, 0.5))
    assert values(one(method=same, network_method=same), [100]) == [10.0]
    plan = one(method=same, network_method=method(line(-40, 1)))
    assert plan.messages[0].signals == ()
    assert "Oil.Bar: the signal is left out, because its system signal and its network representation" in plan.notes[0]


@pytest.mark.parametrize(
    ("scales", "why"),
    [
        (line(0, 0.5, within=limits(0, 100)) + line(-1, 2, within=limits(101, 254)), "2 different lines"),
        (line(1, 2, 3), r"quotient of the polynomials \[1, 2, 3\] and \[1\], which is not a line"),
        (line(1, bottom=(0, 1)), r"quotient of the polynomials \[1\] and \[0, 1\], which is not a line"),
        (line(1, 2, bottom=(0,)), "which is not a line"),
        (constant(12.5, limits(0, 0)) + constant(99, limits(1, 1)), "gives a number of its own"),
        (line("one", 2), "a number that cannot be read"),
    ],
)
@pytest.mark.parametrize("category", ["LINEAR", "RAT_FUNC", "SCALE_LINEAR_AND_TEXTTABLE", "TAB_NOINTP"])
def test_what_is_no_line_leaves_the_signal_out_by_name(scales, why, category):
    other = Field("Temp", start=8, method=method(line(-40, 1)))
    plan = plan_of(arxml(Frame("Oil", 0x2A1, [Field("Bar", method=method(scales, category)), other])))
    assert [signal.name for signal in plan.messages[0].signals] == ["Temp"]
    (note,) = plan.notes
    assert re.search(rf"^Oil\.Bar: the signal is left out, because its computation method BarConv .*{why}", note), note


def test_equal_lines_of_several_intervals_are_one_line():
    scales = line(0, 0.5, within=limits(0, 100)) + line(0, "0.50", within=limits(101, 254))
    assert values(one(method=method(scales, "SCALE_LINEAR")), [10], [200]) == [5.0, 100.0]


@pytest.mark.parametrize(
    "written", [("0", "1", "14"), ("0.0", "1.0", "14.0"), ("0x0", "0x1", "0xE"), ("0", "01", "016")]
)
def test_limits_of_texts_may_be_written_as_whole_floats_hexadecimal_and_octal(written):
    low, mid, high = written
    scales = text("Off", limits(low, low)) + text("On", limits(mid, mid)) + text("Bad", limits(high, high))
    assert signal_of(one(method=method(scales, "TEXTTABLE"))).texts == {0: "Off", 1: "On", 14: "Bad"}


@pytest.mark.parametrize(
    ("within", "listed"),
    [
        (limits(4, 6), [4, 5, 6]),
        (limits(4, 6, ("OPEN", "CLOSED")), [5, 6]),
        (limits(4, 6, ("CLOSED", "OPEN")), [4, 5]),
        (limits(3.5, 6.5), [4, 5, 6]),
        (limits(13, "INF", ("CLOSED", "INFINITE")), [13, 14, 15]),
        (limits("", 1, ("INFINITE", "CLOSED")), [0, 1]),
        (limits(7), [7]),
        (limits(None, 7), [7]),
    ],
)
@pytest.mark.parametrize("category", ["TEXTTABLE", "SCALE_LINEAR_AND_TEXTTABLE"])
def test_the_text_of_an_interval_is_that_of_each_value_in_it(within, listed, category):
    plan = one(bits=4, method=method(text("Busy", within), category))
    assert signal_of(plan).texts == dict.fromkeys(listed, "Busy")
    assert plan.notes == ()


def test_the_text_of_a_negative_interval_is_found():
    plan = one(encoding="2C", method=method(text("Low", limits("-3", "-2")), "TEXTTABLE"))
    assert signal_of(plan).texts == {-3: "Low", -2: "Low"}


@pytest.mark.parametrize(
    ("scales", "why"),
    [
        (text("Half", limits(0.5, 0.5)), "the text 'Half' is left out, because no whole number lies within its limits"),
        (text("Lost", ""), "the text 'Lost' is left out, because it has no limits"),
        (text("Back", limits(9, 3)), "the text 'Back' is left out"),
        (text("Bit", limits(1, 1), "<MASK>1</MASK>"), "the text 'Bit' is left out, because it is for some bits"),
        (text("Vast", limits(0, 60000)), "the text 'Vast' is left out, because the texts would list more than 4096"),
        (text("A", limits(5, 5)) + text("B", limits(5, 5)), "the value 5 has the texts 'A' and 'B'; the first is used"),
    ],
)
def test_a_text_that_cannot_be_listed_is_named_and_costs_only_itself(scales, why):
    good = text("Good", limits(1, 1))
    plan = one(bits=16, method=method(good + scales, "TEXTTABLE"))
    assert signal_of(plan).texts[1] == "Good"
    assert any(note.startswith(f"Oil.Bar: {why}") for note in plan.notes), plan.notes


def test_a_default_value_is_named():
    default = "<COMPU-DEFAULT-VALUE><VT>Other</VT></COMPU-DEFAULT-VALUE>"
    plan = one(method=method(text("Good", limits(1, 1)), "TEXTTABLE", default=default))
    assert "Oil.Bar: its COMPU-DEFAULT-VALUE is not used" in plan.notes[0]


def test_an_empty_text_takes_the_label_of_its_scale():
    scales = text("", limits(2, 2), "<SHORT-LABEL>Two</SHORT-LABEL>")
    assert signal_of(one(method=method(scales, "TEXTTABLE"))).texts == {2: "Two"}


@pytest.mark.parametrize(("encoding", "value"), [("NONE", 0x85), ("BOOLEAN", 0x85), ("2C", -123)])
def test_integers_are_read_by_their_encoding(encoding, value):
    assert values(one(encoding=encoding), [0x85]) == [value]


def test_an_ieee_float_is_read():
    assert values(one(encoding="IEEE754", bits=32), np.float32(-2.5).tobytes()) == [-2.5]


@pytest.mark.parametrize("encoding", ["BCD-P", "BCD-UP", "DSP-FRACTIONAL", "UTF-8", "ISO-8859-1", "3C"])
def test_an_encoding_that_cannot_be_decoded_leaves_the_signal_out_by_name(encoding):
    plan = one(encoding=encoding)
    assert plan.messages[0].signals == ()
    assert f"Oil.Bar: the signal is left out, because the encoding {encoding} of its base type" in plan.notes[0]


def test_a_base_type_without_an_encoding_leaves_the_signal_out_by_name():
    plan = one(encoding=None)
    assert plan.messages[0].signals == ()
    assert "its base type has no BASE-TYPE-ENCODING" in plan.notes[0]


@pytest.mark.parametrize(("big", "start", "payload"), [(False, 0, [0, 0, 0x34, 0x12]), (True, 7, [0, 0, 0x12, 0x34])])
def test_the_place_of_a_pdu_in_its_frame_moves_its_signals(big, start, payload):
    fields = [Field("Bar", start=start, bits=16, big=big)]
    assert values(plan_of(arxml(Frame("Oil", 0x2A1, fields, pdu_start=16))), payload) == [0x1234]


def test_a_frame_that_contradicts_the_schema_costs_only_itself():
    content = arxml(Frame("Oil", 0x2A1, [Field("Bar")]), Frame("Gas", 0x2A2, [Field("Level")]))
    plan = plan_of(content.replace(b"<IDENTIFIER>673<", b"<IDENTIFIER>many<"))
    assert [message.name for message in plan.messages] == ["Gas"]
    assert "Oil: the frame of bus Drive is left out, because" in plan.notes[0]


def test_a_signal_that_contradicts_the_schema_costs_only_itself():
    content = arxml(Frame("Oil", 0x2A1, [Field("Bar", start=5), Field("Temp", start=16)]))
    plan = plan_of(content.replace(b"<START-POSITION>5<", b"<START-POSITION>five<"))
    assert [signal.name for signal in plan.messages[0].signals] == ["Temp"]
    assert "Oil.Bar: the signal is left out, because" in plan.notes[0]


def test_text_that_is_no_xml_names_file_and_line():
    with pytest.raises(
        DatabaseError, match=r"car\.arxml: line 2: cantools refuses this ARXML file: .* Repair the file"
    ):
        parse(b'<?xml version="1.0"?>\n<AUTOSAR', "arxml", "car.arxml")


def test_a_warning_of_cantools_becomes_a_note():
    content = (Path(__file__).with_name("container.arxml")).read_bytes()
    plan = plan_of(content.replace(b"SHORT-HEADER</HEADER-TYPE>", b"LONG-HEADER</HEADER-TYPE>"))
    assert any("cantools warns: Only short headers" in note for note in plan.notes), plan.notes


@pytest.mark.parametrize("tag", ["FRAME-LENGTH", "LENGTH", "START-POSITION"])
def test_an_absurd_size_costs_only_itself_and_takes_no_memory(tag):
    content = arxml(Frame("Oil", 0x2A1, [Field("Bar", start=5)])).decode()
    plan = plan_of(re.sub(f"<{tag}>[0-9]+<", f"<{tag}>99999999999<", content).encode())
    assert "because" in plan.notes[0]
    assert all(message.signals == () for message in plan.messages)
