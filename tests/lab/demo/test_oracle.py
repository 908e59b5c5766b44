"""Compare the oracle, on which the demonstration's verdict rests, with samples that were calculated by hand."""

from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent
from lab.demo.oracle import Frame, expected_samples, read_log

DATABASE = """\
VERSION ""
BO_ 256 Engine: 4 ECU
 SG_ Speed : 0|16@1+ (0.5,-10) [0|0] "km/h" X
 SG_ Torque : 16|8@1- (1,0) [0|0] "Nm" X
 SG_ Gear : 24|8@1+ (1,0) [0|0] "" X
BO_ 2566844158 Pgn: 1 ECU
 SG_ Level : 0|8@1+ (1,0) [0|0] "" X
BO_ 512 Wide: 8 ECU
 SG_ Bits : 0|64@1+ (1,0) [0|0] "" X
BO_ 513 Float: 4 ECU
 SG_ Ratio : 0|32@1- (1,0) [0|0] "" X
VAL_ 256 Gear 0 "neutral" 1 "first" ;
SIG_VALTYPE_ 513 Ratio : 1;
"""
MS = 1_000_000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "engine.dbc"
    file.write_text(DATABASE)
    return file


def engine(ms: int, speed: int = 0, torque: int = 0, gear: int = 0, bus: str = "can0") -> Frame:
    data = speed.to_bytes(2, "little") + bytes([torque & 0xFF, gear])
    return Frame(ms * MS, bus, 256, False, data)


def campaign(*signals: dict[str, Any], name: str = "drive") -> dict[str, Any]:
    return {"name": name, "signalsToCollect": list(signals)}


def rows(
    database: Path, frames: list[Frame], *stages: tuple[dict[str, int], list[dict[str, Any]]], match: str = "exact"
) -> list[tuple[str, str, int, int, float, str | None]]:
    buses = {"can0": (database,), "can1": (database,)}
    found = expected_samples(frames, buses, match, stages)
    return list(zip(found.campaign, found.signal, found.time_us, found.raw, found.value, found.text, strict=True))


def test_every_sample_has_its_raw_and_physical_value_and_text(database: Path) -> None:
    frames = [engine(1, 100, -5, 1), engine(2, 0, 0, 9)]
    assert rows(database, frames, ({}, [campaign({"name": "*"})])) == [
        ("drive", "Engine.Speed", 1_000, 100, 40.0, None),
        ("drive", "Engine.Torque", 1_000, -5, -5.0, None),
        ("drive", "Engine.Gear", 1_000, 1, 1.0, "first"),
        ("drive", "Engine.Speed", 2_000, 0, -10.0, None),
        ("drive", "Engine.Torque", 2_000, 0, 0.0, None),
        ("drive", "Engine.Gear", 2_000, 9, 9.0, None),
    ]


def test_an_interval_keeps_the_first_and_then_each_that_is_late_enough(database: Path) -> None:
    rule = {"name": "Engine.Speed", "minimumSamplingIntervalMs": 10}
    frames = [engine(ms) for ms in (0, 5, 10, 15, 19, 20, 40, 35, 50)]
    assert [row[2] for row in rows(database, frames, ({}, [campaign(rule)]))] == [0, 10_000, 20_000, 40_000, 50_000]


def test_a_clock_that_was_set_back_silences_nothing(database: Path) -> None:
    rule = {"name": "Engine.Speed", "minimumSamplingIntervalMs": 10}
    frames = [engine(ms) for ms in (100_000, 39_999, 40_000, 40_009, 40_010)]
    assert [row[2] // 1_000 for row in rows(database, frames, ({}, [campaign(rule)]))] == [100_000, 39_999, 40_009]


def test_on_change_looks_at_every_sample_and_the_interval_at_candidates(database: Path) -> None:
    rule = {"name": "Engine.Speed", "onChange": True, "minimumSamplingIntervalMs": 10}
    frames = [engine(ms, speed) for ms, speed in ((0, 1), (2, 2), (11, 2), (12, 3), (13, 3), (23, 3), (24, 1))]
    assert [row[2:4] for row in rows(database, frames, ({}, [campaign(rule)]))] == [(0, 1), (12_000, 3), (24_000, 1)]


def test_an_exact_name_goes_before_globs_and_the_first_glob_wins(database: Path) -> None:
    rules = campaign(
        {"name": "*", "minimumSamplingIntervalMs": 1_000},
        {"name": "*Torque*"},
        {"name": "Engine.Speed", "minimumSamplingIntervalMs": 2},
    )
    kept = [row[1] for row in rows(database, [engine(0), engine(2)], ({}, [rules]))]
    assert kept == ["Engine.Speed", "Engine.Torque", "Engine.Gear", "Engine.Speed"]


def test_each_bus_has_a_memory_and_a_change_of_campaigns_of_its_own(database: Path) -> None:
    once = {"name": "Engine.Gear", "minimumSamplingIntervalMs": 1_000}
    first, second = campaign(once), campaign({"name": "Engine.Torque"}, name="torque")
    frames = [engine(0), engine(1, bus="can1"), engine(2), engine(3, bus="can1"), engine(4), engine(5, bus="can1")]
    stages = [({}, [first]), ({"can0": 1, "can1": 2}, [first, second])]
    assert [(row[0], row[2]) for row in rows(database, frames, *stages)] == [
        ("drive", 0),
        ("drive", 1_000),
        ("torque", 2_000),
        ("torque", 4_000),
        ("torque", 5_000),
    ]


def test_a_campaign_that_changed_starts_anew(database: Path) -> None:
    one = campaign({"name": "Engine.Gear", "minimumSamplingIntervalMs": 1_000})
    other = campaign({"name": "Engine.Gear", "minimumSamplingIntervalMs": 2_000})
    stages = [({}, [one]), ({"can0": 1}, [other])]
    assert len(rows(database, [engine(0), engine(1)], *stages)) == 2


def test_frames_that_fit_nothing_give_nothing(database: Path) -> None:
    frames = [
        Frame(0, "can0", 257, False, bytes(8)),
        Frame(0, "can0", 256, True, bytes(8)),
        Frame(0, "can0", 256, False, b"\0"),
        Frame(0, "can0", 256, False, b""),
        Frame(0, "can9", 256, False, bytes(8)),
    ]
    found = expected_samples(frames, {"can0": (database,)}, "exact", [({}, [campaign({"name": "*"})])])
    assert (found.frames, found.decoded, len(found)) == (5, 0, 0)


@pytest.mark.parametrize(("match", "count"), [("exact", 0), ("pgn", 1)])
def test_a_parameter_group_is_found_whatever_priority_and_source(database: Path, match: str, count: int) -> None:
    frame = Frame(0, "can0", 0x08FEEE42, True, b"\7")
    assert 2566844158 == 0x98FEEEFE
    assert len(rows(database, [frame], ({}, [campaign({"name": "*"})]), match=match)) == count


def test_senders_of_a_parameter_group_are_taken_for_themselves(database: Path) -> None:
    frames = [Frame(ms * MS, "can0", 0x18FEEE00 + sender, True, b"\7") for ms in (0, 1) for sender in (0, 0x42)]
    buses = {"can0": (database,)}
    found = expected_samples(frames, buses, "pgn", [({}, [campaign({"name": "*", "onChange": True})])])
    assert list(zip(found.source_address, found.time_us, strict=True)) == [(0, 0), (0x42, 0)]


def test_wide_and_floating_values_are_bit_patterns(database: Path) -> None:
    frames = [
        Frame(0, "can0", 512, False, b"\xff" * 8),
        Frame(0, "can0", 513, False, b"\x00\x00\xc0\x3f"),
    ]
    assert [row[3:5] for row in rows(database, frames, ({}, [campaign({"name": "*"})]))] == [
        (-1, float(2**64 - 1)),
        (0x3FC00000, 1.5),
    ]


def test_logs_are_read_in_their_own_order(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    log.write_text("(2.000001) can1 100#0102\n(1.000000) can0 00000100#\n(3.000000) can0 100#R\n")
    assert list(read_log(log)) == [
        Frame(2_000_001_000, "can1", 0x100, False, b"\1\2"),
        Frame(1_000_000_000, "can0", 0x100, True, b""),
        Frame(3_000_000_000, "can0", 0x100, False, b""),
    ]
    with pytest.raises(Permanent, match="unpacked"):
        list(read_log(tmp_path / "drive.log.zst"))


def test_what_cantools_refuses_as_a_whole_is_decoded_signal_by_signal(tmp_path: Path) -> None:
    """Two signals overlap, one exceeds the message, and the multiplexer of the second frame has an unlisted number."""
    file = tmp_path / "pages.dbc"
    long = 'BA_ "SystemSignalLongSymbol" SG_ 256 Page "Page_of_a_very_long_list_of_pages";'
    file.write_text(
        'BO_ 256 Pages: 3 ECU\n SG_ Page M : 0|8@1+ (1,0) [0|0] "" X\n SG_ Data m1 : 8|8@1+ (2,0) [0|0] "" X\n'
        ' SG_ All : 8|16@1+ (1,0) [0|0] "" X\n SG_ Far : 20|8@1+ (1,0) [0|0] "" X\n'
        f'BA_DEF_ SG_ "SystemSignalLongSymbol" STRING ;\n{long}\n'
    )
    frames = [Frame(ms * MS, "can0", 256, False, bytes([page, 5, 0])) for ms, page in ((1, 1), (2, 9))]
    found = [
        (signal.partition(".")[2], ms, value)
        for _, signal, ms, _, value, _ in rows(file, frames, ({}, [campaign({"name": "*"})]))
    ]
    page = "Page_of_a_very_long_list_of_pages"
    assert sorted(found) == sorted(
        [(page, 1_000, 1.0), ("Data", 1_000, 10.0), ("All", 1_000, 5.0), (page, 2_000, 9.0), ("All", 2_000, 5.0)]
    )


def test_a_long_name_of_two_signals_with_one_short_name_is_given_to_neither(tmp_path: Path) -> None:
    file = tmp_path / "twice.dbc"
    file.write_text(
        'BO_ 256 Twice: 3 ECU\n SG_ Speed : 0|8@1+ (1,0) [0|0] "" X\n SG_ Speed : 8|16@1+ (1,0) [0|0] "" X\n'
        'BO_ 257 Other: 1 ECU\n SG_ Level : 0|8@1+ (1,0) [0|0] "" X\n'
        'BA_DEF_ SG_ "SystemSignalLongSymbol" STRING ;\n'
        'BA_ "SystemSignalLongSymbol" SG_ 256 Speed "Speed of what?";\n'
        'BA_ "SystemSignalLongSymbol" SG_ 257 Level "Level_of_the_tank";\n'
    )
    frames = [Frame(0, "can0", 256, False, b"\1\2\0"), Frame(MS, "can0", 257, False, b"\3")]
    found = [(row[1], row[4]) for row in rows(file, frames, ({}, [campaign({"name": "*"})]))]
    assert found == [("Twice.Speed", 1.0), ("Other.Level_of_the_tank", 3.0)]  # The first of two equal names is decoded.


def test_a_database_that_cantools_refuses_is_named(tmp_path: Path) -> None:
    file = tmp_path / "odd.dbc"
    file.write_text("BO_ 256 1Odd: 3 ECU\n")
    with pytest.raises(Permanent, match=r"odd\.dbc: cantools, which decodes independently .* refuses this database"):
        rows(file, [], ({}, []))
