"""Which multiplexer selects a signal: by SG_MUL_VAL_, by markers, under long names, and left out if it is not clear."""

import pytest

from tests.can_dbc.dbc_reader.small import FRAME, OIL, dbc, plan_of, samples

PAGE = ' SG_ Page M : 0|8@1+ (1,0) [0|0] "" Gauge'
SUB = ' SG_ Sub m2M : 8|8@1+ (1,0) [0|0] "" Gauge'
DATA = ' SG_ Data m5 : 16|8@1+ (1,0) [0|0] "" Gauge'
LONG = {"Page": "Page_of_the_list_of_all_the_things", "Sub": "Sub_page_of_the_list_of_all_things_", "Data": "D" * 40}


def long_names(*shorts):
    return [f'BA_ "SystemSignalLongSymbol" SG_ 801 {short} "{LONG[short]}";' for short in shorts] + [
        'BA_DEF_ SG_ "SystemSignalLongSymbol" STRING ;'
    ]


@pytest.mark.parametrize("named", [(), ("Page",), ("Data",), ("Page", "Data")])
@pytest.mark.parametrize("table", [["SG_MUL_VAL_ 801 Data Page 5-5, 7-9;"], []])
def test_names_do_not_change_what_is_selected(named, table):
    found = samples(dbc(PAGE, DATA, *long_names(*named), *table), "050011", "080011", "060011")
    name = {short: LONG[short] if short in named else short for short in LONG}
    assert [sample[name["Page"]] for sample in found] == [5, 8, 6]
    assert [sample.get(name["Data"]) for sample in found] == [0x11, 0x11 if table else None, None]


@pytest.mark.parametrize("named", [("Sub",), ("Page", "Sub"), ("Page", "Sub", "Data")])
def test_nested_multiplexers_may_have_long_names(named):
    table = ["SG_MUL_VAL_ 801 Sub Page 2-2;", "SG_MUL_VAL_ 801 Data Sub 5-6;"]
    found = samples(dbc(PAGE, SUB, DATA, *long_names(*named), *table), "020611", "020711", "030611")
    name = {short: LONG[short] if short in named else short for short in LONG}
    assert found == [
        {name["Page"]: 2, name["Sub"]: 6, name["Data"]: 0x11},
        {name["Page"]: 2, name["Sub"]: 7},
        {name["Page"]: 3},
    ]


def test_two_signals_of_one_long_name_keep_their_short_names():
    one, other = (f'BA_ "SystemSignalLongSymbol" SG_ 801 {name} "The_one";' for name in ("Page", "Data"))
    text = dbc(PAGE, DATA, one, other, 'BA_DEF_ SG_ "SystemSignalLongSymbol" STRING ;')
    assert samples(text, "050011") == [{"Page": 5, "Data": 0x11}]
    assert (
        "lines 12, 13: Engine.Page, Engine.Data: another signal of the message has the same long name"
        in plan_of(text).notes[0]
    )


def test_a_short_name_with_two_long_names_stays_short():
    """Two signals had one short name, because a tool had cut their long names."""
    names = [f'BA_ "SystemSignalLongSymbol" SG_ 801 Page "Page_of_side_{side}";' for side in ("left", "right")]
    text = dbc(PAGE, *names, 'BA_DEF_ SG_ "SystemSignalLongSymbol" STRING ;')
    assert samples(text, "05") == [{"Page": 5}]
    assert "line 12: Engine.Page: it is not clear which signal the long name is for" in plan_of(text).notes[0]


def test_a_long_name_for_two_signals_of_one_short_name_is_given_to_neither():
    text = dbc(OIL, OIL.replace("16|8", "24|8"), 'BA_ "SystemSignalLongSymbol" SG_ 801 Oil "Oil_of_the_rear_axle";')
    assert samples(text, FRAME) == [{"Oil": 50.0}]
    assert "Engine.Oil: it is not clear which signal the long name is for" in plan_of(text).notes[0]


def test_nested_multiplexers_without_their_table_lose_what_may_be_selected_by_either():
    text = dbc(PAGE, SUB, DATA)
    assert samples(text, "020511", "050511") == [{"Page": 2, "Sub": 5}, {"Page": 5}]
    assert plan_of(text).notes == (
        "small.dbc: line 14: Engine.Data: it is not clear whether Page or Sub selects the signal; the signal is left "
        "out: add an SG_MUL_VAL_ entry that names the multiplexer",
    )


def test_a_table_for_some_signals_does_not_say_what_selects_the_others():
    other = DATA.replace("Data m5 : 16", "Other m5 : 24")
    text = dbc(PAGE, SUB, DATA, other, "SG_MUL_VAL_ 801 Data Sub 5-5;")
    assert samples(text, "02051122") == [{"Page": 2, "Sub": 5, "Data": 0x11}]
    assert "line 15: Engine.Other: it is not clear" in plan_of(text).notes[0]


def test_two_multiplexers_beside_each_other_need_the_table():
    second = ' SG_ Second M : 8|8@1+ (1,0) [0|0] "" Gauge'
    assert samples(dbc(PAGE, second, DATA), "050511") == [{"Page": 5, "Second": 5}]
    text = dbc(PAGE, second, DATA, "SG_MUL_VAL_ 801 Data Second 5-5;")
    assert samples(text, "050511", "770511", "050411") == [
        {"Page": 5, "Second": 5, "Data": 0x11},
        {"Page": 0x77, "Second": 5, "Data": 0x11},
        {"Page": 5, "Second": 4},
    ]


CONTRADICTIONS = {
    "no multiplexer": (dbc(DATA), {}, "no signal of the message is a multiplexer"),
    "only nested multiplexers": (dbc(SUB, DATA), {}, "no signal of the message is a multiplexer"),
    "itself": (dbc(PAGE, DATA, "SG_MUL_VAL_ 801 Data Data 5-5;"), {"Page": 5}, "lets the signal select itself"),
    "a range that is too large": (
        dbc(PAGE, DATA, "SG_MUL_VAL_ 801 Data Page 0-4000000000;"),
        {"Page": 5},
        "a range of more than 65536 numbers",
    ),
    "several multiplexers": (
        dbc(PAGE, SUB, DATA, "SG_MUL_VAL_ 801 Data Page 5-5;", "SG_MUL_VAL_ 801 Data Sub 5-5;"),
        {"Page": 5},
        "names several multiplexers",
    ),
    "each other": (
        dbc(
            SUB,
            SUB.replace("Sub", "Bus").replace(": 8", ": 24"),
            "SG_MUL_VAL_ 801 Sub Bus 2-2;",
            "SG_MUL_VAL_ 801 Bus Sub 2-2;",
        ),
        {},
        "no multiplexer value selects the signal",
    ),
    "a number that the table has not": (
        dbc(PAGE, DATA, "SG_MUL_VAL_ 801 Data Page 6-7;"),
        {"Page": 5},
        "the number after m is not in SG_MUL_VAL_, which takes precedence",
    ),
    "a signal without m": (
        dbc(PAGE, DATA.replace(" m5", ""), "SG_MUL_VAL_ 801 Data Page 5-5;"),
        {"Page": 5, "Data": 0x11},
        "the signal has no m in SG_",
    ),
    "a multiplexer without M": (
        dbc(PAGE.replace(" M ", " "), DATA, "SG_MUL_VAL_ 801 Data Page 5-5;"),
        {"Page": 5, "Data": 0x11},
        None,
    ),
}


@pytest.mark.parametrize(("text", "found", "note"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_left_out_or_noted_by_name(text, found, note):
    assert samples(text, "050511") == [found]
    assert note is None or note in plan_of(text).notes[0]


def test_one_name_in_two_groups_is_two_signals():
    other = DATA.replace("m5 : 16|8@1+ (1,0)", "m6 : 24|8@1+ (2,0)")
    assert samples(dbc(PAGE, DATA, other), "05001122", "06001122") == [
        {"Page": 5, "Data": 0x11},
        {"Page": 6, "Data": 2 * 0x22},
    ]


def test_an_entry_cannot_say_which_of_two_signals_with_one_name_it_is_about():
    """The markers say it."""
    other = DATA.replace("m5 : 16", "m6 : 24")
    text = dbc(PAGE, DATA, other, "SG_MUL_VAL_ 801 Data Page 5-6;")
    assert samples(text, "05001122", "06001122") == [{"Page": 5, "Data": 0x11}, {"Page": 6, "Data": 0x22}]


def test_a_multiplexer_number_of_32_bits_is_exact():
    text = dbc(' SG_ Page M : 0|32@1+ (1,0) [0|0] "" Gauge', ' SG_ Data m4294967294 : 32|8@1+ (1,0) [0|0] "" Gauge')
    assert samples(text, "FEFFFFFF11", "FFFFFFFF11") == [{"Page": 2**32 - 2, "Data": 0x11}, {"Page": 2**32 - 1}]
