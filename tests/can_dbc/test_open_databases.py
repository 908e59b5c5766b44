"""Every open database is read whole, as it is and with the damage that real files have.

`python -m tests.can_dbc.database_table` prints what is read of each.
"""

import re
from dataclasses import replace

import pytest

from can_dbc import encodings
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from tests import shared_data
from tests.can_dbc.database_table import rows

pytestmark = pytest.mark.shared
DAMAGE = [
    (re.compile(r"^BS_[^\n]*", re.MULTILINE), "BS_: 500000 : 1,2"),
    (re.compile(r"(?<=[(,])0\."), "."),
    (re.compile(r'^(\s*SG_ [^"\n]*"[^"\n]*")[^\n]*', re.MULTILINE), r"\1"),
    (re.compile(r"\[[^\]\n]*\](?= \")"), "[NaN|1.#INF]"),
]
ENTRIES = r"""
CM_ "a path C:\temp\";
CM_ "an old form:
BO_ 1 Old: 8 X
 SG_ Older : 0|8@1+ (1,0)
";
VAL_ 2047 GoneAndForgotten 1 "one" ;
VAL_ 2047 GoneAndForgotten 2 "two" 3 "three"
SIG_VALTYPE_ 2047 GoneAndForgotten : 1;
SG_MUL_VAL_ 2047 GoneAndForgotten Nobody 1-1;
BA_ "NoSuchAttribute" SG_ 2047 GoneAndForgotten 5;
CAT_DEF_ 1 "all" 0;
FILTER 0 CAT_ 1;
BO_ 5000 BeyondElevenBits: 8 X
 SG_ Lost : 0|8@1+ (1,0) [0|0] "" X
CM_ BO_ 2047 "no end;
"""


@pytest.fixture(scope="module", autouse=True)
def _data():
    shared_data.require()


@pytest.mark.parametrize("path", shared_data.databases(), ids=lambda path: path.stem)
def test_every_signal_of_a_file_is_in_the_plan_or_in_a_note(path):
    text, _ = encodings.decoded(path.read_bytes(), None, path.name)
    plan = compile_plan([load(path)])
    listed = len(re.findall(r"^\s*SG_ ", text, re.MULTILINE))
    independent = re.search(r"^BO_ \d+ VECTOR__INDEPENDENT_SIG_MSG[^\n]*((?:\n SG_ [^\n]*)*)", text, re.MULTILINE)
    listed -= 0 if independent is None else independent[1].count("SG_")
    left_out = sum("left out" in note for note in plan.notes)
    assert not any("ignored, because" in note for note in plan.notes)
    assert sum(len(message.signals) for message in plan.messages) + left_out == listed


def _without_limits(plan):
    """Return the messages without the limits of values, which the damage makes unreadable."""
    return [
        replace(message, signals=tuple(replace(signal, minimum=None, maximum=None) for signal in message.signals))
        for message in plan.messages
    ]


@pytest.mark.parametrize("path", shared_data.databases(), ids=lambda path: path.stem)
def test_damage_that_changes_no_signal_changes_no_plan(path):
    text, _ = encodings.decoded(path.read_bytes(), None, path.name)
    whole = compile_plan([parse(text.encode(), "dbc", "whole.dbc")])
    for pattern, damaged in DAMAGE:
        text = pattern.sub(damaged, text)
    plan = compile_plan([parse((text + ENTRIES).replace("\n", "\r\n").encode(), "dbc", "damaged.dbc")])
    assert _without_limits(plan) == _without_limits(whole)
    assert any("2047 GoneAndForgotten" in note for note in plan.notes)


def test_long_names_of_multiplexers_cost_nothing_in_a_real_database():
    (message,) = (m for m in compile_plan([load(shared_data.DBC / "Model3CAN.dbc")]).messages if m.can_id == 513)
    assert len(message.signals) == 48
    assert sum(signal.multiplexer is not None for signal in message.signals) == 47


def test_the_table_has_a_row_for_each_database_and_refuses_none():
    found = list(rows(shared_data.DBC))
    assert len(found) == len(shared_data.databases())
    assert not [row for row in found if row[3].startswith("REFUSED")]
