"""Test loading: formats, unreadable files, and no error but DatabaseError for any text."""

import cantools.database
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.errors import DatabaseError

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


def test_sym_and_kcd_are_loaded_by_their_suffix(tmp_path):
    database = cantools.database.load_string(SMALL.decode("cp1252"), "dbc", strict=False)
    sym, kcd = tmp_path / "a.sym", tmp_path / "a.KCD"
    sym.write_bytes(database.as_sym_string().encode("cp1252"))
    kcd.write_text(database.as_kcd_string(), encoding="utf-8")
    assert {message.name for message in load(kcd).messages} == {"Motor", "Engine"}
    assert {message.name: message.frame_id for message in load(sym).messages}["Engine"] == 2566844926 & 0x1FFFFFFF


def test_an_encoding_for_a_format_that_names_its_own_is_an_error():
    with pytest.raises(DatabaseError, match=r"a\.kcd: a KCD file names its encoding itself"):
        parse(b"<a/>", "kcd", "a.kcd", "gbk")


def test_an_unknown_suffix_names_the_formats(tmp_path):
    with pytest.raises(DatabaseError, match=r"a\.txt: the database format is unknown; name the file \*\.dbc"):
        load(tmp_path / "a.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatabaseError, match=r"gone\.dbc: the file cannot be read \(No such file"):
        load(tmp_path / "gone.dbc")


def test_a_kcd_that_is_not_utf8_names_the_line():
    with pytest.raises(DatabaseError, match=r"a\.kcd: line 2: the text is not UTF-8"):
        parse(b"<a>\n\xff</a>", "kcd", "a.kcd")


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
