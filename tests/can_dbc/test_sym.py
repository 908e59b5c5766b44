"""SYM: what cantools passes over in silence is named in a note or refused."""

import pytest

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.errors import DatabaseError

HEAD = 'FormatVersion=6.0 // Do not edit this line!\nTitle="car"\n\n'


def plan_of(body):
    return compile_plan([parse((HEAD + body).encode(), "sym", "car.sym")])


def symbol(*entries, name="Oil"):
    return "\n".join(f"[{name}]\n{entry}" for entry in entries) + "\n"


MUX = "Mux={0} {1} {2}\nVar={0}V unsigned 16,8"
OTHER = "[Gas]\nID=301h\nLen=8\nVar=Level unsigned 0,8 /f:0.5\n"


def test_mux_entries_of_the_same_bits_are_read():
    plan = plan_of("{SEND}\n" + symbol("ID=300h\nLen=8\n" + MUX.format("A", "0,8", "0"), MUX.format("B", "0,8", "1")))
    assert {signal.name for signal in plan.messages[0].signals} == {"A", "AV", "BV"}
    assert plan.notes == ()


@pytest.mark.parametrize("bits", ["8,8 1", "0,4 1", "0,8 1 -m"])
def test_mux_entries_of_different_bits_leave_the_message_out_by_name(bits):
    second = f"Mux=B {bits}\nVar=BV unsigned 16,8"
    plan = plan_of("{SEND}\n" + symbol("ID=300h\nLen=8\n" + MUX.format("A", "0,8", "0"), second) + OTHER)
    assert [message.name for message in plan.messages] == ["Gas"]
    (note,) = plan.notes
    assert note.startswith("Oil: the message is left out, because the Mux entry at line 11 selects by the bits ")


def test_the_same_symbol_in_another_section_has_its_own_mux_entries():
    first = symbol("ID=300h\nLen=8\n" + MUX.format("A", "0,8", "0"))
    second = symbol("ID=302h\nLen=8\n" + MUX.format("B", "8,8", "0"))
    plan = plan_of("{SEND}\n" + first + "{RECEIVE}\n" + second)
    assert {message.can_id for message in plan.messages} == {0x300, 0x302}


@pytest.mark.parametrize("kind", ["string", "raw", "char"])
def test_a_type_of_text_is_named(kind):
    plan = plan_of("{SEND}\n" + symbol(f"ID=300h\nLen=8\nVar=Label {kind} 0,8"))
    assert plan.notes == (f"Label: the signal is of type {kind}, but it is decoded as an unsigned integer",)


def test_whole_floats_are_values_of_texts():
    enums = '{ENUMS}\nEnum=State(0.0="Off", 1.0="On", 1.5="Half")\n'
    plan = plan_of(enums + "{SEND}\n" + symbol("ID=300h\nLen=8\nVar=Mode unsigned 0,8 /e:State"))
    assert plan.messages[0].signals[0].texts == {0: "Off", 1: "On"}


def test_a_factor_of_zero_is_named():
    plan = plan_of("{SEND}\n" + symbol("ID=300h\nLen=8\nVar=Bar unsigned 0,8 /f:0 /o:3"))
    assert plan.notes == ("Oil.Bar: the scale is 0, so all values are 3.0; correct it in the database",)


def test_a_range_of_identifiers_is_read_up_to_a_limit():
    assert len(plan_of("{SEND}\n" + symbol("ID=300h-30Fh\nLen=8\nVar=Bar unsigned 0,8")).messages) == 16
    with pytest.raises(DatabaseError, match=r"car\.sym: line 6: 'ID=000h-1FFFFFFFh' has more than 4096 identifiers"):
        plan_of("{SEND}\n" + symbol("ID=000h-1FFFFFFFh\nLen=8"))


def test_a_syntax_error_names_file_and_line():
    with pytest.raises(DatabaseError, match=r"car\.sym: line 6: cantools refuses this SYM file"):
        plan_of("{SEND}\n[Oil]\nID==300h\n")
