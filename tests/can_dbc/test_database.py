"""Test loading: encodings, formats, refusals with file and line, and no error but DatabaseError for any text."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.errors import DatabaseError
from tests import shared_data

SMALL = b"""VERSION ""

BS_:

BU_: ECU

BO_ 291 Motor: 8 ECU
 SG_ Mode M : 0|4@1+ (1,0) [0|15] "" ECU
 SG_ Speed m0 : 8|16@1- (0.5,-40) [0|100] "km/h" ECU
 SG_ Torque m1M : 15|8@0+ (1,0) [0|255] "Nm" ECU
 SG_ Deep m2 : 24|32@1- (1,0) [0|0] "" ECU

BO_ 2566844926 Engine: 8 ECU
 SG_ Temp : 0|8@1+ (1,-40) [0|0] "\xb0C" ECU

CM_ BO_ 291 "a comment";
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 291 10;
VAL_ 291 Mode 0 "off" 1 "on" 2 "deep" ;
SIG_VALTYPE_ 291 Deep : 1;
SG_MUL_VAL_ 291 Deep Torque 1-3;
"""


def test_a_dbc_is_read_as_utf8_and_a_legacy_one_as_cp1252():
    assert parse(SMALL, "dbc", "x").get_message_by_name("Engine").signals[0].unit == "°C"
    utf8 = SMALL.replace(b"\xb0C", "°C".encode())
    assert parse(utf8, "dbc", "x").get_message_by_name("Engine").signals[0].unit == "°C"
    assert parse(b"\xef\xbb\xbf" + utf8, "dbc", "x").get_message_by_name("Engine").signals[0].unit == "°C"


def test_sym_and_kcd_are_loaded_by_their_suffix(tmp_path):
    database = parse(SMALL, "dbc", "x")
    sym, kcd = tmp_path / "a.sym", tmp_path / "a.KCD"
    sym.write_bytes(database.as_sym_string().encode("cp1252"))
    kcd.write_text(database.as_kcd_string(), encoding="utf-8")
    assert {message.name for message in load(kcd).messages} == {"Motor", "Engine"}
    assert load(sym).get_message_by_name("Engine").frame_id == 2566844926 & 0x1FFFFFFF


def test_an_unknown_suffix_names_the_formats(tmp_path):
    with pytest.raises(DatabaseError, match=r"a\.txt: the database format is unknown; name the file \*\.dbc"):
        load(tmp_path / "a.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatabaseError, match=r"gone\.dbc: the file cannot be read \(No such file"):
        load(tmp_path / "gone.dbc")


def test_a_kcd_that_is_not_utf8_names_the_line():
    with pytest.raises(DatabaseError, match=r"a\.kcd: line 2: the text is not UTF-8"):
        parse(b"<a>\n\xff</a>", "kcd", "a.kcd")


def test_a_syntax_error_names_file_line_and_remedy():
    broken = SMALL.replace(b"BO_ 291 Motor: 8", b"BO_ 291 7Motor: 8")
    with pytest.raises(DatabaseError, match=r"a.dbc: line 7: cantools refuses .* Repair the file"):
        parse(broken, "dbc", "a.dbc")


def test_a_value_table_of_an_unknown_signal_names_its_line():
    broken = SMALL.replace(b"VAL_ 291 Mode", b"VAL_ 291 Nothing")
    with pytest.raises(DatabaseError, match=r"a.dbc: line 20: .*VAL_ 291 Nothing"):
        parse(broken, "dbc", "a.dbc")


@pytest.mark.parametrize(
    ("sane", "absurd"),
    [
        (b"Motor: 8 ECU", b"Motor: 8888888888 ECU"),
        (b": 8|16@1-", b": 8888888888|16@1-"),
        (b": 8|16@1-", b": 8|1666666666@1-"),
        (b"Torque 1-3;", b"Torque 1-3, 7-99999999;"),
        (b"Motor: 8 ECU", b"Motor: 8" + b"0" * 5000 + b" ECU"),
    ],
)
def test_absurd_sizes_are_refused_before_they_take_memory(sane, absurd):
    with pytest.raises(DatabaseError, match=r"a.dbc: line \d+: .* exceeds the limit .* correct this line"):
        parse(SMALL.replace(sane, absurd), "dbc", "a.dbc")


@pytest.mark.parametrize("ranges", [(60_000, 60_000, 60_000), (256, 256, 256), (2, 65_536)])
def test_nested_multiplexers_of_more_numbers_than_cantools_can_lay_out_are_refused(ranges):
    """The multiplexers lie beside each other, or each lies within the one before."""
    nested = ranges != (60_000, 60_000, 60_000)
    signals = "".join(f' SG_ S{n} m0M : {16 * n}|16@1+ (1,0) [0|0] "" ECU\n' for n in range(1, len(ranges) + 1))
    chosen = "".join(
        f"SG_MUL_VAL_ 1 S{n} {f'S{n - 1}' if nested else 'S0'} 0-{count - 1};\n" for n, count in enumerate(ranges, 1)
    )
    text = f'BO_ 1 Mux: 64 ECU\n SG_ S0 M : 0|16@1+ (1,0) [0|0] "" ECU\n{signals}{chosen}'
    with pytest.raises(DatabaseError, match=r"a\.dbc: the SG_MUL_VAL_ entries .* narrow their ranges"):
        parse(text.encode(), "dbc", "a.dbc")


def test_multiplexers_that_select_each_other_are_no_endless_search():
    text = 'BO_ 1 Mux: 8 ECU\n SG_ A m0M : 0|8@1+ (1,0) [0|0] "" ECU\n SG_ B m0M : 8|8@1+ (1,0) [0|0] "" ECU\n'
    text += "SG_MUL_VAL_ 1 A B 0-9;\nSG_MUL_VAL_ 1 B A 0-9;\nSG_MUL_VAL_ 1 A A 0-9;\n"
    assert parse(text.encode(), "dbc", "a.dbc").messages[0].name == "Mux"


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_no_mutation_of_a_dbc_raises_anything_but_database_error(data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 6))
        other = data.draw(st.integers(0, len(SMALL) - 1))
        insert = data.draw(st.one_of(st.binary(max_size=4), st.just(SMALL[other : other + length * 4])))
        content[at : at + length] = insert
    try:
        compile_plan([parse(bytes(content), "dbc", "mutant.dbc")])
    except DatabaseError as error:
        assert str(error).startswith("mutant.dbc: ") or error.__cause__ is None


@pytest.mark.shared
def test_every_open_dbc_loads_or_is_refused_with_file_and_line():
    shared_data.require()
    refused = set()
    for path in shared_data.databases():
        try:
            load(path)
        except DatabaseError as error:
            assert re.match(rf"{re.escape(str(path))}: line \d+: ", str(error)), str(error)
            refused.add(path.name)
    messy = {path.name for path in Path(shared_data.DBC / "messy").iterdir()}
    assert refused == messy | {"kona_pcan.orig.dbc", "hyundai_can_generated.orig.dbc"}
