"""The small inputs beside the checkout (../shared/cases) give what their descriptions call right.

The tests of the single rooms make such inputs themselves.  This module only runs over the shared ones.
"""

import csv
import os
from pathlib import Path

import pytest

from agent.commands.decode import DecodeSummary, decode_log
from agent.commands.log_plans import DatabaseReading

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def _cases():
    if not CASES.is_dir():
        reason = f"there are no cases in {CASES}"
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def decode(tmp_path, case, dbc, log, **reading) -> tuple[DecodeSummary, list[dict[str, str]]]:
    """Return the summary, and for each signal of each frame a row of the table."""
    out = tmp_path / "out.csv"
    folder = CASES / case
    summary = decode_log(folder / log, {None: [folder / dbc]}, out, reading=DatabaseReading(**reading))
    with out.open(encoding="utf-8", newline="") as lines:
        return summary, list(csv.DictReader(lines))


def values(rows, signal):
    return [float(row["value"]) for row in rows if row["signal"] == signal]


ENTRIES = "faults/dbc-one-entry-refuses-the-file"


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("d01_bs_filled", 100.0),
        ("d12b_cm_newlines2", 100.0),
        ("d16_dots", 99.5),  # The offset of this file is -0.5.
        ("d19_nan", 100.0),
        ("d22_norecv", 100.0),
        ("d36_cat", 100.0),
        ("d43_ba_undefined", 100.0),
        ("d49_val_missing_sig", 100.0),
        ("d52_valtype_missing", 100.0),
    ],
)
def test_an_entry_that_changes_no_signal_refuses_no_file(tmp_path, name, speed):
    _, rows = decode(tmp_path, ENTRIES, f"{name}.dbc", "x.log")
    assert values(rows, "Kmh") == [speed, speed]


def test_names_with_a_digit_first_and_identifiers_beyond_11_bits(tmp_path):
    _, rows = decode(tmp_path, ENTRIES, "d27_digit_name.dbc", "x.log")
    assert values(rows, "2Kmh") == [100.0, 100.0]
    summary, rows = decode(tmp_path, ENTRIES, "d59_std_beyond.dbc", "x.log")
    assert rows == []
    assert "line 9: Speed: the identifier 5000" in summary.notes[0]


def test_one_signal_costs_only_itself(tmp_path):
    case = "faults/dbc-one-signal-refuses-its-message"
    _, rows = decode(tmp_path, case, "d35_overlap.dbc", "x.log")
    assert (values(rows, "Kmh"), values(rows, "Lo")) == ([100.0] * 2, [16.0] * 2)
    summary, rows = decode(tmp_path, case, "d34_beyond.dbc", "x.log")
    assert (values(rows, "Kmh"), values(rows, "Raw")) == ([100.0] * 2, [])
    assert "line 11: Speed.Raw: the signal exceeds the message" in summary.notes[0]


def test_of_two_signals_with_one_name_one_is_whole(tmp_path):
    _, rows = decode(tmp_path, "faults/dbc-duplicate-signal-name", "d33_dupsig.dbc", "x.log")
    assert [(row["value"], row["unit"]) for row in rows] == [("100.0", "km/h")] * 2


@pytest.mark.parametrize(
    ("name", "selected"),
    [("control_short_names", 2), ("y1_both_mulval", 2), ("y2_muxor_only", 2), ("y4_both_nomulval", 1)],
)
def test_long_names_do_not_change_what_is_selected(tmp_path, name, selected):
    _, rows = decode(tmp_path, "faults/dbc-long-multiplexor-name", f"{name}.dbc", "y.log")
    by_letter = {letter: [row["value"] for row in rows if row["signal"][0] == letter] for letter in "MA"}
    assert by_letter == {"M": ["1.0", "3.0"], "A": ["2.0"] * selected}


def test_nested_multiplexors_without_their_table(tmp_path):
    case = "faults/dbc-nested-multiplexor-without-SG_MUL_VAL"
    summary, rows = decode(tmp_path, case, "x05_m0M_no_mulval.dbc", "mux.log")
    assert (values(rows, "N"), values(rows, "A")) == ([1.0], [])
    assert "line 13: Msg.A: it is not clear whether M or N selects the signal" in summary.notes[0]


def test_an_unlisted_number_costs_what_it_selects(tmp_path):
    summary, rows = decode(tmp_path, "faults/dbc-unlisted-multiplexer-number", "x03_unlisted.dbc", "mux.log")
    assert [len(values(rows, name)) for name in ("M", "Always", "A")] == [6, 6, 1]
    assert summary.unlisted == {"can0": {"Msg.M": 5}}


PAGES = "faults/dbc-code-pages"


@pytest.mark.parametrize(
    ("name", "encoding", "texts"),
    [
        ("control_utf8", None, ["前進", "後退"]),
        ("e2_sjis", "shift_jis", ["前進", "後退"]),
        ("e3_sjis_5c", "shift_jis", ["前進", "後退"]),
        ("e4_gbk", "gbk", ["前进", "后退"]),
        ("e6_latin2", "cp1250", ["Řadit", "Zpět"]),
        ("e8_euckr", "euc_kr", ["전진", "후진"]),
        ("e10_backslash", None, ["a", "b"]),
    ],
)
def test_texts_have_the_encoding_that_is_certain_or_named(tmp_path, name, encoding, texts):
    encodings = {} if encoding is None else {None: encoding}
    summary, rows = decode(tmp_path, PAGES, f"{name}.dbc", "e.log", encodings=encodings)
    assert [row["text"] for row in rows if row["signal"] == "Pos"] == texts
    assert summary.notes == []
    if encoding is not None:
        assert (
            "only a guess" in (note := decode(tmp_path, PAGES, f"{name}.dbc", "e.log")[0].notes[0])
            or "is wrong" in note
        )


@pytest.mark.parametrize("path", sorted(CASES.glob("passing/dbc-variants/*.dbc")), ids=lambda path: path.stem)
def test_variants_that_were_right_stay_right_without_a_note(tmp_path, path):
    summary, rows = decode(tmp_path, "passing/dbc-variants", path.name, "x.log", strict=True)
    assert (summary.decoded, summary.notes) == (2, [])
    kmh = values(rows, "Kmh") or values(rows, "Kilometres_per_hour_with_a_very_long_name_xy")
    assert kmh == ([] if path.stem in ("d45_val_big", "d54_valtype_f") else [100.0, 100.0])


def test_multiplexors_that_were_right_stay_right(tmp_path):
    case = "passing/mux-obd2-and-others"
    _, rows = decode(tmp_path, case, "x01_obd.dbc", "obd.log")
    assert (values(rows, "Speed"), values(rows, "Throttle"), values(rows, "Pid")) == (
        [55.0],
        [64.0],
        [13.0, 17.0, 255.0],
    )
    for name, found in {
        "x04_samename": {"T": [0.5, 4.0]},
        "x06_named": {"A": [1.0]},
        "x07_offset": {"A": [1.0], "B": [2.0]},
        "x13_big_muxnum": {"A": [10.0]},
    }.items():
        _, rows = decode(tmp_path, case, f"{name}.dbc", "mux.log")
        assert {signal: values(rows, signal) for signal in found} == found, name
