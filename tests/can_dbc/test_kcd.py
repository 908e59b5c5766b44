"""KCD: what cantools passes over in silence is carried out, or named in a note and left out by itself."""

import pytest

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError
from can_dbc.values import physical
from tests.can_dbc.oracle import block_of


def kcd(signals, message='id="0x2A1" name="Oil" length="8"'):
    return (
        '<?xml version="1.0"?>\n<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0">\n<Document/>\n'
        f'<Bus name="Drive"><Message {message}>\n{signals}\n</Message></Bus></NetworkDefinition>'
    ).encode()


def plan_of(content):
    return compile_plan([parse(content, "kcd", "car.kcd")])


def texts(labels):
    plan = plan_of(kcd(f'<Signal name="Mode" offset="0" length="8"><LabelSet>{labels}</LabelSet></Signal>'))
    (signal,) = plan.messages[0].signals
    return signal.texts, plan.notes


def test_a_label_group_is_the_text_of_each_of_its_values():
    found, notes = texts('<Label name="Off" value="0"/><LabelGroup name="Busy" from="3" to="5"/>')
    assert found == {0: "Off", 3: "Busy", 4: "Busy", 5: "Busy"}
    assert notes == ()


def test_a_label_may_be_written_as_a_whole_float():
    assert texts('<Label name="On" value="1.0"/>') == ({1: "On"}, ())


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ('<Label name="Half" value="0.5"/>', "'Half' is left out, because its value is not a whole number"),
        ('<Label name="Lost"/>', "'Lost' is left out, because its value is not a whole number"),
        ('<Label value="4"/>', "None is left out, because its value is not a whole number"),
        ('<LabelGroup name="Vast" from="0" to="4000000000"/>', "'Vast' is left out, because the texts would list more"),
        ('<Label name="Other" value="1"/>', "the value 1 has the texts 'On' and 'Other'"),
    ],
)
def test_a_label_that_cannot_be_read_costs_only_itself(label, why):
    found, notes = texts(f'<Label name="On" value="1"/>{label}')
    assert found == {1: "On"}
    assert notes[0].startswith("Oil.Mode: ")
    assert why in notes[0]


@pytest.mark.parametrize(("kind", "bits"), [("single", 64), ("single", 16), ("double", 32), ("double", 24)])
def test_a_float_type_that_contradicts_the_length_leaves_the_signal_out(kind, bits):
    wrong = f'<Signal name="Bar" offset="0" length="{bits}"><Value type="{kind}"/></Signal>'
    plan = plan_of(kcd(wrong + '<Signal name="Temp" offset="56" length="8"/>'))
    assert [signal.name for signal in plan.messages[0].signals] == ["Temp"]
    assert f"Oil.Bar: the signal is left out, because it is of type {kind} but has {bits} bits" in plan.notes[0]


@pytest.mark.parametrize(
    "wrong",
    [
        '<Signal name="Bar" length="8"/>',
        '<Signal offset="0" length="8"/>',
        '<Signal name="Bar" offset="zero"/>',
        '<Signal name="Bar" offset="0" length="-1"/>',
        '<Signal name="Bar" offset="0" length="8"><Value slope="fast"/></Signal>',
        '<Multiplex name="Bar" length="8"><MuxGroup count="0"><Signal name="In" offset="8"/></MuxGroup></Multiplex>',
    ],
)
def test_a_signal_that_cannot_be_read_costs_only_itself(wrong):
    plan = plan_of(kcd(wrong + '<Signal name="Temp" offset="56" length="8"/>'))
    assert [signal.name for signal in plan.messages[0].signals] == ["Temp"]
    assert "the signal is left out" in plan.notes[0]


def test_a_group_of_a_multiplexer_that_cannot_be_read_costs_only_itself():
    groups = '<MuxGroup count="one"><Signal name="A" offset="8"/></MuxGroup>'
    groups += '<MuxGroup count="2"><Signal name="B" offset="8"/></MuxGroup>'
    plan = plan_of(kcd(f'<Multiplex name="Which" offset="0" length="8">{groups}</Multiplex>'))
    assert {signal.name for signal in plan.messages[0].signals} == {"Which", "B"}
    assert "a MuxGroup is left out, because its count is 'one'" in plan.notes[0]


def test_a_limit_that_is_no_number_changes_no_value():
    plan = plan_of(kcd('<Signal name="Bar" offset="0" length="8"><Value slope="2" min="-" max="high"/></Signal>'))
    assert plan.messages[0].signals[0].scale == 2


def test_a_slope_of_zero_is_named():
    plan = plan_of(kcd('<Signal name="Bar" offset="0" length="8"><Value slope="0" intercept="7"/></Signal>'))
    assert plan.notes == ("Oil.Bar: the scale is 0, so all values are 7.0; correct it in the database",)


def test_an_identifier_of_more_than_11_bits_is_an_extended_one():
    plan = plan_of(kcd('<Signal name="Bar" offset="0" length="8"/>', 'id="0x18FEEF31" name="Oil" length="8"'))
    assert plan.messages[0].extended
    assert "Oil: the identifier 0x18feef31 has more than 11 bits" in plan.notes[0]


@pytest.mark.parametrize("message", ['name="Oil"', 'id="7"', 'id="x" name="Oil"', 'id="7" name="Oil" length="long"'])
def test_a_message_that_cannot_be_read_costs_only_itself(message):
    content = kcd("", message).replace(b"</Bus>", b'<Message id="9" name="Gas" length="1"/></Bus>')
    plan = plan_of(content)
    assert [m.name for m in plan.messages] == ["Gas"]
    assert "the message is left out" in plan.notes[0]


def test_a_big_endian_signal_keeps_its_place():
    plan = plan_of(kcd('<Signal name="Bar" offset="8" length="16" endianess="big"><Value slope="0.5"/></Signal>'))
    frame = (0x2A1, False, bytes([0, 0x12, 0x34, 0, 0, 0, 0, 0]))
    (columns,) = Decoder({0: plan}).decode(block_of([frame])).columns
    assert physical(plan.messages[0].signals[0], columns.raw[0]).tolist() == [0x1234 / 2]


def test_text_that_is_no_xml_names_file_and_line():
    with pytest.raises(DatabaseError, match=r"car\.kcd: line 1: cantools refuses this KCD file: .* Repair the file"):
        parse(b"<Network", "kcd", "car.kcd")
