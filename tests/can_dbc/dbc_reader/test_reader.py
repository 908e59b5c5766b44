"""What a bad entry of a DBC costs: itself, and never the file.  All texts and numbers were made for these tests."""

import random
import re

import pytest

from can_dbc.errors import DatabaseError
from tests.can_dbc.dbc_reader.small import FRAME, OIL, TURN, WHOLE, dbc, plan_of, samples

CLEAN = dbc(TURN, OIL)

LEGAL = {
    "bus speed in BS_": CLEAN.replace("BS_:", "BS_: 250000 : 3,7"),
    "no NS_, BS_ and BU_": f"BO_ 801 Engine: 8 Motor\n{TURN}\n{OIL}\n",
    "categories and filters": CLEAN + 'CAT_DEF_ 4 "chassis" 2;\nCAT_ BO_ 4 801;\nFILTER 1 CAT_ 4;\n',
    "types of signals": CLEAN + 'SGTYPE_ Half : 8@1+ (1,0) [0|1] "" 0, T;\nSIG_TYPE_REF_ 801 Oil : Half;\n',
    "more old sections": CLEAN + 'BA_DEF_SGTYPE_ "X" INT 0 1;\nBA_SGTYPE_ "X" Half 1;\nSIGTYPE_VALTYPE_ Half : 1;\n',
    "environment variables": CLEAN
    + 'EV_ Door: 0 [0|1] "" 0 7 DUMMY_NODE_VECTOR0 Gauge;\nENVVAR_DATA_ Door: 4;\nVAL_ Door 0 "shut";\n',
    "senders and groups": CLEAN + "BO_TX_BU_ 801 : Motor,Gauge;\nSIG_GROUP_ 801 G 1 : Rpm Oil;\n",
    "a value that is a double": CLEAN + 'VAL_ 801 Oil 255.0 "broken" ;\n',
    "a comment that holds entries": CLEAN
    + 'CM_ SG_ 801 Oil "old form:\nBO_ 7 Huge: 88888 Motor\n SG_ Wide : 0|70000000@1+ (1,0)\n; was wrong\n";\n',
    "a comment with quotes": CLEAN + 'CM_ SG_ 801 Oil "the \\"hot\\" side; see \\"manual\\"";\nCM_ "end";\n',
    "a comment behind //": CLEAN.replace("Gauge\n", 'Gauge // was "rpm" once\n'),
    "entries in comments": CLEAN.replace("8 Motor", "8 Motor // SG_ was here").replace(
        'degC" Gauge', 'degC" Gauge // see SG_ Old : 0|8@1+ (1,0)'
    )
    + '// SG_ Old : 0|8@1+ (1,0) [0|0] "" Gauge\n  // BO_ 5 Old: 8 Motor\n',
    "a message in one line": CLEAN.replace("8 Motor\n", "8 Motor"),
    "carriage returns": CLEAN.replace("\n", "\r"),
    "Windows line ends": CLEAN.replace("\n", "\r\n"),
    "tabs": CLEAN.replace(" : ", "\t:\t").replace(" SG_", "\t\tSG_"),
    "receivers on the next line": CLEAN.replace('"degC" Gauge', '"degC" Gauge,\n   Motor'),
    "no line end": CLEAN.rstrip(),
    "a byte order mark": "\ufeff" + CLEAN,
}
REPAIRED = {
    "no digit before the point": (CLEAN.replace("(0.25,0)", "(.25,-.0)"), r"line 12: Engine\.Rpm: .* no digit before"),
    "limits that are no numbers": (
        CLEAN.replace("[0|16383.75]", "[1.#QNAN|1.#INF]"),
        r"line 12: Engine\.Rpm: the limits",
    ),
    "no limits": (CLEAN.replace("[-40|215] ", ""), r"line 13: Engine\.Oil: the limits"),
    "no receivers": (
        CLEAN.replace(" Gauge\n", "\n"),
        r"lines 12, 13: Engine\.Rpm, Engine\.Oil: the signal has no receiver",
    ),
    "a unit with quotes": (CLEAN.replace('"degC"', '"deg "C""'), r"line 13: Engine\.Oil: the unit"),
    "texts of no signal": (CLEAN + 'VAL_ 801 Gone 1 "one" ;\n', r"line 14: 801 Gone: VAL_ of a signal"),
    "texts of no message": (CLEAN + 'VAL_ 7 Rpm 1 "one" ;\n', r"line 14: 7 Rpm: VAL_ of a signal"),
    "a type of no signal": (CLEAN + "SIG_VALTYPE_ 801 Gone : 1;\n", r"line 14: 801 Gone: SIG_VALTYPE_ of a signal"),
    "a selection of no signal": (
        CLEAN + "SG_MUL_VAL_ 801 Gone Rpm 1-1;\n",
        r"line 14: Engine: SG_MUL_VAL_ of the signal Gone",
    ),
    "a selection of no message": (CLEAN + "SG_MUL_VAL_ 9 Oil Rpm 1-1;\n", r"line 14: 9 Oil: SG_MUL_VAL_ of a message"),
    "an undefined attribute": (CLEAN + 'BA_ "Odd" SG_ 801 Oil 5;\n', r"line 14: Odd: BA_ of an attribute"),
    "no semicolon": (CLEAN + 'VAL_ 801 Oil 1 "one"\nCM_ "end";\n', r"line 14: the entry has no closing semicolon"),
    "no closing quote": (CLEAN + 'CM_ SG_ 801 Oil "hot;\nCM_ SG_ 801 Rpm "fast";\n', r"line 14: a quote"),
    "no closing quote of a text": (CLEAN + 'VAL_ 801 Oil 1 "hot 2 "cold" ;\nCM_ "end";\n', r"line 14: a quote"),
    "marks of a merge": (CLEAN + "<<<<<<< ours\n", r"line 14: '<<<<<<< ours' begins no entry"),
    "marks of a merge before a message": ("<<<<<<< ours\n" + CLEAN, r"line 1: '<<<<<<< ours' begins no entry"),
    "marks of a merge behind a message": (
        CLEAN.replace("8 Motor", "8 Motor\n======="),
        r"line 12: '=======' begins no entry",
    ),
    "a double type of 32 bits": (
        CLEAN + ' SG_ X : 24|32@1- (1,0) [0|0] "" Gauge\nSIG_VALTYPE_ 801 X : 2;\n',
        r"line 15: Engine\.X: SIG_VALTYPE_ means 64 bits",
    ),
    "a value of no raw value": (CLEAN + 'VAL_ 801 Oil 1.5 "half" 1 "one";\n', r"line 14: Oil: VAL_ has a value"),
    "an unreadable selection": (CLEAN + "SG_MUL_VAL_ 801 Oil Rpm one;\n", r"line 14: SG_MUL_VAL_ cannot be read"),
    "an unreadable type": (CLEAN + "SIG_VALTYPE_ 801 Oil : double;\n", r"line 14: SIG_VALTYPE_ cannot be read"),
    "another unreadable message": (
        CLEAN + "BO_ 0x12 Hex: 8 Motor\n" + TURN + "\n",
        r"line 14: BO_ cannot be read, so the message is left out",
    ),
    "another message beyond 11 bits": (
        CLEAN + "BO_ 4000 Wide: 8 Motor\n" + TURN + "\n",
        r"line 14: Wide: the identifier 4000",
    ),
    "another message beyond 29 bits": (CLEAN + "BO_ 2701131776 Wider: 8 Motor\n", r"line 14: Wider: the identifier"),
    "another message that is absurdly long": (
        CLEAN + f"BO_ 4 Long: 8{'0' * 9} Motor\n",
        r"line 14: Long: the message is longer",
    ),
    "another signal of no number": (
        CLEAN + ' SG_ X : 0|8@1+ (one,0) [0|0] "" Gauge\n',
        r"line 14: Engine: SG_ cannot be read",
    ),
    "a decimal comma": (CLEAN + ' SG_ X : 0|8@1+ (0,1,0) [0|0] "" Gauge\n', r"line 14: Engine: SG_ cannot be read"),
    "an infinite factor": (
        CLEAN + ' SG_ X : 0|8@1+ (1e999,0) [0|0] "" Gauge\n',
        r"line 14: Engine: SG_ cannot be read",
    ),
    "a signal of no bits": (
        CLEAN + ' SG_ X : 8|0@1+ (1,0) [0|0] "" Gauge\n',
        r"line 14: Engine\.X: the signal has 0 bits",
    ),
    "a signal of 65 bits": (
        CLEAN + ' SG_ X : 0|65@1+ (1,0) [0|0] "" Gauge\n',
        r"line 14: Engine\.X: the signal has 65 bits",
    ),
    "a signal beyond the message": (
        CLEAN + ' SG_ X : 60|8@1+ (1,0) [0|0] "" Gauge\n',
        r"line 14: Engine\.X: the signal exceeds",
    ),
    "a signal before the message": (
        CLEAN + ' SG_ X : -3|8@1+ (1,0) [0|0] "" Gauge\n',
        r"line 14: Engine\.X: the signal starts",
    ),
    "a float of 24 bits": (
        CLEAN + ' SG_ X : 8|24@1- (1,0) [0|0] "" Gauge\nSIG_VALTYPE_ 801 X : 1;\n',
        r"line 14: Engine\.X: the signal is an IEEE float of 24 bits",
    ),
    "a second signal of one name": (
        CLEAN + ' SG_ Oil : 32|16@1+ (9,9) [0|0] "bar" Gauge\n',
        r"line 14: Engine\.Oil: another signal of the message has the same name",
    ),
    "a signal before all messages": (TURN + "\n" + CLEAN, r"line 1: SG_ stands before the first BO_"),
}


@pytest.mark.parametrize("text", LEGAL.values(), ids=LEGAL)
def test_what_is_legal_is_read_without_a_note(text):
    assert samples(text, FRAME) == [WHOLE]
    assert plan_of(text).notes == ()


@pytest.mark.parametrize(("text", "note"), REPAIRED.values(), ids=REPAIRED)
def test_what_changes_no_other_signal_costs_no_other_signal_and_is_noted_with_its_line(text, note):
    assert {name: value for name, value in samples(text, FRAME)[0].items() if name != "X"} == WHOLE
    notes = plan_of(text).notes
    assert len(notes) == 1, notes
    assert notes[0].startswith("small.dbc: ")
    assert re.match(f"small.dbc: {note}", notes[0]), notes[0]


@pytest.mark.parametrize(
    "odd",
    ["BQ_ 802 Door: 2 Body", "BO 802 Door: 2 Body", "BO_802 Door: 2 Body", "802 Door: 2 Body", "BO 802 Door 2 Body"],
)
def test_signals_behind_a_message_with_a_typing_error_are_left_out_and_not_given_to_the_message_before(odd):
    door = f'{odd}\n SG_ Open : 0|8@1+ (1,0) [0|0] "" Gauge\n SG_ Lock : 8|8@1+ (1,0) [0|0] "" Gauge\n'
    after = 'BO_ 803 Light: 1 Body\n SG_ On : 0|8@1+ (1,0) [0|0] "" Gauge\n'
    plan = plan_of(CLEAN + door + after)
    assert {message.name: len(message.signals) for message in plan.messages} == {"Engine": 2, "Light": 1}
    assert [note.partition(",")[0] for note in plan.notes] == [
        f"small.dbc: line 14: {odd!r} begins no entry of a DBC",
        "small.dbc: lines 15, 16: Open".partition(",")[0],
    ]
    assert "because line 14 cannot be read" in plan.notes[1]


@pytest.mark.parametrize("before", [CLEAN.partition("BO_")[0], "BU_: Motor\n  Gauge Own-1 // more\n\n", "BS_:\n", ""])
@pytest.mark.parametrize(
    "odd",
    ["BQ_ 802 Door: 2 Body", "BO 802 Door: 2 Body", "B0_ 802 Door: 2 Body", "BO 802 Door 2 Body", "<BO_ 802"],
)
def test_a_typing_error_in_the_first_message_is_noted_with_its_own_line(before, odd):
    door = f'{odd}\n SG_ Open : 0|8@1+ (1,0) [0|0] "" Gauge\n SG_ Lock : 8|8@1+ (1,0) [0|0] "" Gauge\n'
    plan = plan_of(f"{before}{door}BO_ 801 Engine: 8 Motor\n{TURN}\n{OIL}\n")
    line = before.count("\n") + 1
    assert {message.name: len(message.signals) for message in plan.messages} == {"Engine": 2}
    assert [note.partition(",")[0] for note in plan.notes] == [
        f"small.dbc: line {line}: {odd!r} begins no entry of a DBC",
        f"small.dbc: lines {line + 1}",
    ]
    assert plan.notes[1].endswith(
        f"because line {line} cannot be read, so the signal is left out; correct that line"
    ), plan.notes[1]


@pytest.mark.parametrize("odd", ['SQ_ Wide : 0|8@1+ (1,0) [0|0] "" Gauge', 'SG Wide : 0|8@1+ (1,0) [0|0] "" Gauge'])
def test_a_signal_with_a_typing_error_costs_only_itself(odd):
    text = dbc(TURN, " " + odd, OIL)
    assert samples(text, FRAME)[0] == WHOLE
    (note,) = plan_of(text).notes
    assert re.match(r"small\.dbc: line 13: '.* begins no entry of a DBC", note)


def test_names_that_start_with_a_digit_are_used_as_they_are():
    text = dbc(TURN.replace("Rpm", "1stRpm"), message="BO_ 801 2Engine: 8 Motor")
    assert samples(text, FRAME) == [{"1stRpm": 1000.0}]
    assert plan_of(text).notes[0].startswith("small.dbc: lines 11, 12: 2Engine, 2Engine.1stRpm: the name is not")


def test_a_message_that_cannot_be_read_takes_its_signals_with_it():
    text = CLEAN + "BO_ x Broken: 8 Motor\n" + TURN.replace("Rpm", "Lost") + "\n"
    assert samples(text, FRAME) == [WHOLE]


def test_signals_that_overlap_are_all_read():
    text = dbc(TURN, OIL, ' SG_ Low : 0|8@1+ (1,0) [0|0] "" Gauge', ' SG_ Net : 7|16@0+ (1,0) [0|0] "" Gauge')
    assert samples(text, FRAME) == [{**WHOLE, "Low": 0xA0, "Net": 0xA00F}]
    assert plan_of(text).notes == ()


def test_a_message_of_no_bytes_has_no_signals_but_the_others_have_theirs():
    text = CLEAN + "BO_ 5 Empty: 0 Motor\n" + OIL + "\n"
    assert samples(text, FRAME) == [WHOLE]
    assert "line 15: Empty.Oil: the signal exceeds the message of 0 bytes" in plan_of(text).notes[0]


@pytest.mark.parametrize(
    ("listed", "texts"),
    [
        ('1 "on" 2 "off"', ["on", "off"]),
        ('1 "on"2 "off"', ["on", "off"]),
        ('1 "a \\"b\\" c" 2 "off; really"', ['a "b" c', "off; really"]),
        ('1 "C:\\temp\\" 2 "off"', ["C:\\temp\\", "off"]),
        ('1 "on" 2 "C:\\"', ["on", "C:\\"]),
        ('1 "two\nlines" 2 "off"', ["two\nlines", "off"]),
        ('1.0 "on" 2e0 "off"', ["on", "off"]),
        ('+1 "on" 2 "off"', ["on", "off"]),
    ],
)
@pytest.mark.parametrize("end", [";", ' ;\n\nCM_ SG_ 801 Rpm "later";'])
def test_texts_of_values_are_told_apart_by_what_follows_a_quote(listed, texts, end):
    text = dbc(OIL.replace("(1,-40)", "(1,0)"), f"VAL_ 801 Oil {listed}{end}", 'BA_DEF_ "Last" INT 0 1;')
    assert samples(text, "0000010000000000", "0000020000000000") == [{"Oil": texts[0]}, {"Oil": texts[1]}]


@pytest.mark.parametrize("comment", ["C:\\temp\\", 'a \\"b\\"', "x;y", "BO_ 1 A: 8 B\n SG_ C : 0|8@1+ (1,0) [0|1] x"])
@pytest.mark.parametrize(
    "entry", ['CM_ "{}";', 'CM_ BO_ 801 "{}";', 'CM_ SG_ 801 Oil "{}" ;', 'BA_DEF_DEF_ "Path" "{}";']
)
def test_no_text_hides_the_entries_that_follow_it(entry, comment):
    text = dbc(TURN, OIL, entry.format(comment), 'VAL_ 801 Rpm 4000 "cruise";')
    assert samples(text, FRAME) == [{"Rpm": "cruise", "Oil": 50.0}]
    assert plan_of(text).notes == ()


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"<html><body>404</body></html>", b"\x00\x01\x02", b"(1.0) can0 123#00\n"]
)
def test_a_file_without_any_entry_of_a_dbc_is_refused_with_line_and_remedy(content):
    with pytest.raises(DatabaseError, match=r"small\.dbc: line 1: the file has no entry of a DBC; name a DBC file"):
        plan_of(content)


@pytest.mark.parametrize(
    "text",
    [
        "VAL_ 801 Oil " + '1 "' * 20_000,
        'CM_ "' + '\\"' * 50_000,
        'CM_ "open\n' * 2_000,
        "SG_ X : 0|8@1+ (1,0) [0|0] " + '"\\' * 20_000,
        TURN + " " + "A," * 20_000 + "<",
        TURN + " " + "// " * 20_000 + "\n<",
        "BO_ 5 " + "A " * 20_000,
        "SG_MUL_VAL_ 801 Oil Rpm " + "1-1, " * 20_000 + "x;",
        "VAL_ 801 Oil " + "9" * 20_000 + ' "x";',
        "NS_ :\n" + "CM_\n" * 20_000,
        "BA_ " + '"a" ' * 20_000,
    ],
)
@pytest.mark.timeout(30)
def test_no_text_takes_long(text):
    assert samples(dbc(TURN, OIL) + text + "\n", FRAME)[0]["Oil"] == 50.0


def test_notes_of_one_kind_are_one_note_with_the_first_lines():
    text = CLEAN + "".join(f'VAL_ 801 Gone{n} 1 "one" ;\n' for n in range(20))
    (note,) = plan_of(text).notes
    assert note.startswith("small.dbc: lines 14, 15, 16, 17, 18, 19, 20, 21 and 12 more: 801 Gone0, 801 Gone1, ")


def test_any_order_of_entries_gives_the_same_values():
    lines = ['VAL_ 801 Rpm 4000 "cruise";', 'BA_ "SystemSignalLongSymbol" SG_ 801 Oil "Temperature_of_the_oil";']
    lines += ['BA_DEF_ SG_ "SystemSignalLongSymbol" STRING;', 'CM_ "x";', "SIG_VALTYPE_ 801 Oil : 0;"]
    for seed in range(5):
        random.Random(seed).shuffle(lines)
        text = "\n".join([*lines, "BO_ 801 Engine: 8 Motor", OIL, TURN, ""])
        assert samples(text, FRAME) == [{"Rpm": "cruise", "Temperature_of_the_oil": 50.0}]


@pytest.mark.parametrize(("kind", "bits"), [(1, 32), (2, 64)])
def test_floats_are_read_by_their_type(kind, bits):
    plan = plan_of(dbc(f' SG_ F : 0|{bits}@1- (1,0) [0|0] "" Gauge', f"SIG_VALTYPE_ 801 F : {kind};"))
    (signal,) = plan.messages[0].signals
    assert (signal.kind.name, plan.notes) == (f"FLOAT{bits}", ())
