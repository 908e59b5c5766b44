"""The table that `decode` writes equals cantools on every open capture, and the summary accounts for every frame."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from cantools.j1939 import pgn_from_frame_id

from agent.__main__ import main
from agent.commands.decode import decode_log
from agent.commands.log_plans import DatabaseReading
from agent.commands.sample_tables import COLUMNS
from agent.errors import Permanent
from can_dbc.plan import Match
from tests import shared_data
from tests.can_dbc.oracle import Sample, bits, expected, messages_of
from tests.can_dbc.test_containers import ARXML as CONTAINER

DBC = """VERSION ""

BS_:

BU_: ECU

BO_ 291 Motor: 3 ECU
 SG_ Mode M : 0|8@1+ (1,0) [0|0] "" ECU
 SG_ Speed m0 : 8|16@1- (0.5,-40) [0|0] "km/h" ECU
 SG_ Gear m1 : 8|8@1+ (1,0) [0|0] "" ECU

BO_ 292 Wide: 16 ECU
 SG_ Whole : 0|64@1+ (1,0) [0|0] "" ECU
 SG_ Real : 64|32@1- (1,0) [0|0] "V" ECU

VAL_ 291 Gear 0 "neutral" 1 "first" ;
SIG_VALTYPE_ 292 Real : 1;
"""
LOG = """\
(1700000000.000001) can0 123#00F6FF
(1700000000.000000) can1 123#0101
(1700000000.500000) can0 123#010100
(1700000000.600000) can0 124##0FFFFFFFFFFFFFFFF0000C03F00000000
(1700000000.700000) can0 123#05
(1700000000.800000) can0 123#050000
(1700000000.900000) can0 18FEF100#00
(1700000001.000000) can0 123#R3
(1700000001.100000) can0 20000088#0000000000000000
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "drive.log"
    path.write_text(LOG)
    return path


@pytest.fixture
def dbc(tmp_path):
    path = tmp_path / "car.dbc"
    path.write_text(DBC)
    return path


def rows_of(path):
    return [tuple(row[column] for column in COLUMNS) for row in pq.read_table(path).to_pylist()]


def test_parquet_holds_the_samples_in_bus_order_with_exact_microseconds(log, dbc, tmp_path):
    out = tmp_path / "drive.parquet"
    decode_log(log, {"can0": [dbc]}, out)
    table = pq.read_table(out)
    assert table.schema.names == list(COLUMNS)
    assert table.schema.field("t").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("raw").type == pa.decimal128(20, 0)  # Wide.Whole is an unsigned signal of 64 bits
    assert table.column("t").cast(pa.int64()).to_pylist() == [
        *[1_700_000_000_000_001] * 2,
        *[1_700_000_000_500_000] * 2,
        *[1_700_000_000_600_000] * 2,
        1_700_000_000_800_000,
    ]
    assert [row[1:] for row in rows_of(out)] == [
        ("can0", "Motor", "Mode", 0, 0.0, None, None, None),
        ("can0", "Motor", "Speed", -10, -45.0, None, "km/h", None),
        ("can0", "Motor", "Mode", 1, 1.0, None, None, None),
        ("can0", "Motor", "Gear", 1, 1.0, "first", None, None),
        ("can0", "Wide", "Whole", 2**64 - 1, 2.0**64, None, None, None),
        ("can0", "Wide", "Real", None, 1.5, None, "V", None),
        ("can0", "Motor", "Mode", 5, 5.0, None, None, None),  # No signal has the multiplexer number 5.
    ]


def test_raw_is_a_plain_integer_column_where_int64_holds_every_value(log, tmp_path):
    narrow, out = tmp_path / "narrow.dbc", tmp_path / "drive.parquet"
    narrow.write_text('BO_ 256 Motor: 8 ECU\n SG_ Mode M : 0|8@1+ (1,0) [0|0] "" ECU\n')
    decode_log(log, {None: [narrow]}, out)
    assert pq.read_table(out).schema.field("raw").type == pa.int64()


def test_csv_holds_the_same_with_unsigned_64_bit_values_exact(log, dbc, tmp_path):
    out = tmp_path / "drive.csv"
    decode_log(log, {"can0": [dbc]}, out)
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS
    assert rows[2] == ["1700000000.000001", "can0", "Motor", "Speed", "-10", "-45.0", "", "km/h", ""]
    assert rows[4] == ["1700000000.500000", "can0", "Motor", "Gear", "1", "1.0", "first", "", ""]
    assert rows[5][4:6] == ["18446744073709551615", "1.8446744073709552e+19"]
    assert rows[6][4:6] == ["", "1.5"]


@pytest.mark.parametrize(("match", "addresses"), [(Match.PGN, [0, 33]), (Match.EXACT, [None])])
def test_samples_of_a_parameter_group_name_their_sender(tmp_path, match, addresses):
    dbc, log = tmp_path / "truck.dbc", tmp_path / "truck.log"
    dbc.write_text('BO_ 2566844158 Motor: 1 ECU\n SG_ Load : 0|8@1+ (1,0) [0|0] "" ECU\n')
    log.write_text(
        "(1.0) can0 18FEEEFE#01\n" if match is Match.EXACT else "(1.0) can0 18FEEE00#01\n(2.0) can0 0CFEEE21#02\n"
    )
    decode_log(log, {None: [dbc]}, tmp_path / "o.parquet", match=match)
    decode_log(log, {None: [dbc]}, tmp_path / "o.csv", match=match)
    assert pq.read_table(tmp_path / "o.parquet").column("source_address").to_pylist() == addresses
    with (tmp_path / "o.csv").open(newline="") as file:
        written = [row["source_address"] for row in csv.DictReader(file)]
    assert written == ["" if address is None else str(address) for address in addresses]


def test_messages_of_a_container_are_named_by_themselves_and_their_pdus_count_as_frames(tmp_path):
    log = tmp_path / "body.log"
    log.write_text(
        "(1.0) can0 123##00002020105"
        + "0001010310AA01"
        + "0001010320AA00"
        + "00000000\n"  # Doors, Speed, Speed, padding
        "(2.0) can0 123##00001010301\n"  # the frame ends within Speed
        "(3.0) can0 123##00001010201AA00020201FD00070100\n"  # a short Speed, Doors, an unknown header id
        "(4.0) can0 124##000\n"
    )
    summary = decode_log(log, {None: [CONTAINER]}, tmp_path / "body.parquet")
    assert [row[1:6] for row in rows_of(tmp_path / "body.parquet")] == [
        ("can0", "Speed", "Kmh", 0xAA10, 435.36),
        ("can0", "Speed", "Valid", 1, 1.0),
        ("can0", "Speed", "Kmh", 0xAA20, 435.52),
        ("can0", "Speed", "Valid", 0, 0.0),
        ("can0", "Doors", "Open", 5, 5.0),
        ("can0", "Doors", "Open", -3, -3.0),
    ]
    assert (summary.frames, summary.containers, summary.pdus, summary.decoded) == (4, 2, 6, 4)
    assert summary.errors == {
        "truncated": {"can0": {"BodyFrame": 1}},
        "header": {"can0": {"BodyFrame": 1}},
        "short": {"can0": {"Speed": 1}},
    }
    assert summary.unknown == {"can0": {"124": 1}}


def test_the_summary_accounts_for_every_frame_by_name(log, dbc):
    summary = decode_log(log, {"can0": [dbc], "can5": [dbc]})
    assert (summary.frames, summary.decoded, summary.samples) == (9, 4, 7)
    assert summary.unlisted == {"can0": {"Motor.Mode": 1}}
    assert summary.unknown == {"can0": {"18FEF100": 1}, "can1": {"123": 1}}
    assert {kind: sum(sum(names.values()) for names in buses.values()) for kind, buses in summary.errors.items()} == {
        "short": 1,
        "remote": 1,
        "error": 1,
    }
    assert summary.errors["short"] == {"can0": {"Motor": 1}}
    assert summary.errors["remote"] == {"can0": {"123": 1}}
    assert "can5: this bus has a database, but the log has no frame of it; check the name" in summary.notes
    assert json.loads(json.dumps(summary.as_dict()))["decoded"] == 4


def test_a_database_without_a_bus_serves_every_bus_behind_those_of_the_bus(log, dbc, tmp_path):
    other = tmp_path / "other.dbc"
    other.write_text(DBC.replace("Motor", "Engine").replace("Motor: 3", "Engine: 2"))
    summary = decode_log(log, {"can0": [dbc], None: [other]}, tmp_path / "o.csv")
    assert summary.errors["short"] == {"can0": {"Motor": 1}, "can1": {"Engine": 1}}
    line = other.read_text().partition("BO_ ")[0].count("\n") + 1
    assert (
        f"can0: {other}: line {line}: Engine: the message is ignored, because Motor of an earlier database matches "
        "the same frames; to use this message, list its database first"
    ) in summary.notes


def test_a_bus_can_be_singled_out(log, dbc):
    assert decode_log(log, {None: [dbc]}, buses=["can1"]).frames == 1


def test_a_log_of_which_nothing_decodes_gives_an_empty_table(log, tmp_path):
    out = tmp_path / "none.parquet"
    summary = decode_log(log, {}, out)
    assert (summary.decoded, summary.frames) == (0, 9)
    assert pq.read_table(out).num_rows == 0


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_a_damaged_log_leaves_no_output_and_no_temporary_file(log, dbc, tmp_path, name):
    log.write_text(LOG + "(1.0) can0 no frame\n")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("of an earlier run")
    with pytest.raises(Permanent, match=r"drive\.log: line 10: "):
        decode_log(log, {None: [dbc]}, folder / name)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "of an earlier run"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("out.json", r"out\.json: the format of the output is unknown; name the file \*\.parquet or \*\.csv"),
        ("gone/out.csv", r"gone/out\.csv: the table cannot be written: No such file or directory"),
        ("drive.log/out.csv", r"drive\.log/out\.csv: the table cannot be written: Not a directory"),
        ("gone/out.parquet", r"gone/out\.parquet: the table cannot be written: "),
    ],
)
def test_an_output_that_cannot_be_written_is_named(log, dbc, tmp_path, name, complaint):
    with pytest.raises(Permanent, match=complaint):
        decode_log(log, {None: [dbc]}, tmp_path / name)


def test_a_full_disk_is_named(log, dbc, tmp_path):
    out = tmp_path / "full.csv"
    code = (
        "import resource, sys, signal; from pathlib import Path; from agent.commands.decode import decode_log\n"
        "from agent.errors import Permanent\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: decode_log(Path(sys.argv[1]), {None: [Path(sys.argv[2])]}, Path(sys.argv[3]))\n"
        "except Permanent as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(log), str(dbc), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "full.csv: the table cannot be written: File too large; make room" in done.stdout
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "remedy"),
    [
        ("nodir/o.csv", "No such file or directory; make the folder {folder}/nodir, or choose another place"),
        ("file/o.csv", "Not a directory; name a file in a folder that exists"),
        ("folder.csv", "Is a directory; name a file in a folder that exists"),
        ("a" * 250 + ".csv", "File name too long; choose a shorter name"),
    ],
)
def test_a_table_that_cannot_be_written_says_what_helps(log, dbc, tmp_path, out, remedy):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(Permanent) as raised:
        decode_log(log, {None: [dbc]}, tmp_path / out)
    assert str(raised.value) == f"{tmp_path / out}: the table cannot be written: {remedy.format(folder=tmp_path)}"


def test_without_pyarrow_parquet_is_refused_with_the_remedy_and_csv_is_written(log, dbc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Permanent, match=r"Write \.csv, or install pyarrow in a checkout with: pip install"):
        decode_log(log, {None: [dbc]}, tmp_path / "out.parquet")
    assert decode_log(log, {None: [dbc]}, tmp_path / "out.csv").samples == 7


def test_a_refused_database_is_one_permanent_error(log, dbc):
    dbc.write_text("<html>not found</html>")
    with pytest.raises(Permanent, match=r"car\.dbc: line 1: the file has no entry of a DBC"):
        decode_log(log, {None: [dbc]})


def test_a_repaired_database_is_noted_and_strict_refuses_it(log, dbc, tmp_path):
    dbc.write_text(DBC + 'VAL_ 291 Gone 1 "one" ;\n')
    (note,) = decode_log(log, {"can0": [dbc]}).notes
    assert re.search(r"^can0: .*car\.dbc: line 18: 291 Gone: VAL_ of a signal that the file does not have", note)
    out = tmp_path / "out.csv"
    with pytest.raises(Permanent, match=r"--strict: the databases of can0 have 1 mistakes(.|\n)*line 18: 291 Gone"):
        decode_log(log, {"can0": [dbc]}, out, reading=DatabaseReading(strict=True))
    assert not out.exists()
    dbc.write_text(DBC)
    assert decode_log(log, {"can0": [dbc]}, out, reading=DatabaseReading(strict=True)).notes == []


@pytest.mark.parametrize("option", ["cp1251", "{dbc}=cp1251"])
def test_the_encoding_of_a_database_is_an_option(log, dbc, tmp_path, option, capsys):
    dbc.write_bytes(DBC.replace("first", "первая").encode("cp1251"))
    out = tmp_path / "out.csv"
    main(["decode", "--log", str(log), "--dbc", str(dbc), "--out", str(out), "--encoding", option.format(dbc=dbc)])
    assert "первая" not in capsys.readouterr().err
    log.write_text("(1700000000.000001) can0 123#010100\n")
    summary = decode_log(log, {None: [dbc]}, out, reading=DatabaseReading(encodings={dbc: "cp1251"}))
    with out.open(encoding="utf-8") as lines:
        assert [row["text"] for row in csv.DictReader(lines)] == ["", "первая"]
    assert summary.notes == []


def test_an_encoding_for_a_file_that_is_not_given_is_an_error(log, dbc, tmp_path):
    with pytest.raises(Permanent, match=r"--encoding other\.dbc: this file is not a database of --dbc"):
        decode_log(log, {None: [dbc]}, reading=DatabaseReading(encodings={Path("other.dbc"): "gbk"}))


# --- the open captures, value for value -------------------------------------------------------------------------------

# Frames that are decoded, too short, or refused by their multiplexer.  The collection of captures counted them with
# cantools, without transport protocols.
COUNTED = {
    "ford_mustang_s550": (84058, 0, 0),
    "hyundai_kona_2019_pcan_ccan": (38753, 295, 0),
    "hyundai_kona_2021_pcan_bcan": (8248, 0, 0),
    "css_truck_11111111": (41840 + 12278, 0, 0),  # the published 41865 include 25 reassembled messages
    "css_obd2_3BA199E2": (65385, 0, 0),
    "css_boat_94C49784_60s": (9507 + 59, 34, 59),
    "SYNTHETIC_hyundai_canfd": (4000, 0, 0),
}


class Reference:
    """Decodes a candump log with cantools alone.  Messages are found by identifier or parameter group."""

    def __init__(self, databases, match):
        self._by_key = {}
        for bus, paths in databases.items():
            for message in messages_of(paths[0].read_text(encoding="utf-8")):
                self._by_key[bus, self._key(message.frame_id, message.is_extended_frame, match)] = message
        self._match = match

    @staticmethod
    def _key(can_id, extended, match):
        return (pgn_from_frame_id(can_id) if match is Match.PGN and extended else can_id, extended)

    def frames(self, path):
        """Yield (microseconds, bus, sender, message, samples or reason) for each line of a candump log."""
        with zstandard.open(path, "rt") as lines:
            for line in lines:
                stamp, bus, frame = line.split()[:3]
                can_id, _, data = frame.partition("#")
                data = data[2:] if data.startswith("#") else data
                key = self._key(int(can_id, 16), len(can_id) > 3, self._match)
                message = self._by_key.get((bus, key))
                sender = int(can_id[-2:], 16) if self._match is Match.PGN and len(can_id) > 3 else None
                samples = self._samples(message, bytes.fromhex(data))
                yield int(stamp[1:-1].replace(".", "")), bus, sender, message, samples

    @staticmethod
    def _samples(message, data):
        if message is None:
            return "unknown"
        return "short" if len(data) < message.length else expected(message, data)


@pytest.mark.shared
@pytest.mark.timeout(300)
@pytest.mark.parametrize("capture", [c for c in shared_data.captures() if c.databases], ids=str)
def test_every_open_capture_decodes_to_what_cantools_says_value_for_value(capture, tmp_path):
    out = tmp_path / "out.parquet"
    match = Match(capture.match)
    summary = decode_log(capture.path, capture.databases, out, match=match)
    table = pq.read_table(out)
    columns = [table.column("t").cast(pa.int64()).to_pylist()]
    columns += [table.column(name).to_pylist() for name in COLUMNS[1:]]
    ours = zip(*columns, strict=True)
    # cantools gives a long name to every signal that has its short name, so there the reference cannot tell the name.
    unclear = [note for note in summary.notes if "it is not clear which signal the long name is for" in note]
    counts, samples = Counter(), 0
    for t_us, bus, sender, message, result in Reference(capture.databases, match).frames(capture.path):
        counts[result if isinstance(result, str) else "decoded"] += 1
        if isinstance(result, str):
            continue
        units = {signal.name: signal.unit for signal in message.signals}
        for sample in result:
            samples += 1
            *place, name, raw, value, text, unit, source = next(ours)
            assert (*place, unit, source) == (t_us, bus, message.name, units[sample.name], sender)
            if not any(f"{message.name}.{name}" in note for note in unclear):
                assert name == sample.name
            assert Sample(sample.name, raw, bits(value), text) == sample
    assert next(ours, None) is None
    assert (summary.decoded, summary.samples) == (counts["decoded"], samples)
    errors = {kind: sum(sum(names.values()) for names in buses.values()) for kind, buses in summary.errors.items()}
    unknown = sum(sum(ids.values()) for ids in summary.unknown.values())
    assert errors | {"unknown": unknown} == {"unknown": 0} | {k: n for k, n in counts.items() if k != "decoded"}
    assert summary.frames == capture.frames
    unlisted = sum(sum(names.values()) for names in summary.unlisted.values())
    assert (summary.decoded, errors.get("short", 0), unlisted) == COUNTED[str(capture)]


def test_a_missing_pyarrow_is_told_of_the_output_that_was_asked_for(log, dbc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Permanent) as caught:
        decode_log(log, {"can0": [dbc]}, tmp_path / "drive.parquet")
    assert str(caught.value).startswith(f"{tmp_path / 'drive.parquet'}: Parquet needs pyarrow")


def test_databases_of_buses_that_the_log_does_not_have_are_an_error_that_names_its_buses(log, dbc, tmp_path):
    with pytest.raises(Permanent, match="no frame on bus can9; its buses are can0, can1: name one of these"):
        decode_log(log, {"can9": [dbc]}, tmp_path / "drive.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["car.dbc", "drive.log"]


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("+02:00", -2)])
def test_the_time_zone_of_a_log_may_be_given(tmp_path, zone, hours):
    log, dbc, out = tmp_path / "drive.asc", tmp_path / "a.dbc", tmp_path / "o.csv"
    log.write_text("date Wed Jul 1 12:00:00.000 2026\nbase hex  timestamps absolute\n0.5 1 10 Rx d 1 2A\n")
    dbc.write_text('VERSION ""\nBS_:\nBU_: A\nBO_ 16 M: 1 A\n SG_ S : 0|8@1+ (1,0) [0|255] "" A\n')
    decode_log(log, {None: [dbc]}, out, zone=zone)
    assert float(out.read_text().splitlines()[1].split(",")[0]) == 1_782_907_200.5 + hours * 3600


MAPPING = """\
Vehicle.Speed:
  datatype: float
  dbc2vss: {signal: Speed, interval_ms: 0}
Vehicle.Gear:
  datatype: string
  dbc2vss: {signal: Motor.Gear, on_change: yes}
Vehicle.Width:
  datatype: float
  dbc2vss: {signal: Wide.Wole}
"""


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_mapping_gives_vss_samples_in_place_of_signals(log, dbc, tmp_path, capsys, suffix):
    mapping, out = tmp_path / "car.vspec", tmp_path / f"vss{suffix}"
    mapping.write_text(MAPPING)
    arguments = ["decode", "--log", log, "--dbc", f"can0={dbc}", "--mapping", f"can0={mapping}", "--out", out]
    assert main([*map(str, arguments), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == {"Vehicle.Speed": 1, "Vehicle.Gear": 1}
    assert any("Wide.Wole" in note and "did you mean Wide.Whole?" in note for note in told["notes"])
    lines = out.read_text().splitlines()
    if suffix == ".jsonl":
        first = {"t_us": 1_700_000_000_000_001, "path": "Vehicle.Speed", "value": -45.0}
        second = {"t_us": 1_700_000_000_500_000, "path": "Vehicle.Gear", "value": "first"}
        assert [json.loads(line) for line in lines] == [first, second]
    else:
        header, first, second = lines
        assert header == "t,path,value"
        assert first == "1700000000.000001,Vehicle.Speed,-45.0"
        assert second == "1700000000.500000,Vehicle.Gear,first"
    assert main(list(map(str, arguments[:-2]))) == 0
    assert "2 samples of 2 VSS paths" in capsys.readouterr().out


def test_a_mapping_loses_no_frame_of_a_log_in_silence(log, dbc, tmp_path, capsys):
    mapping = tmp_path / "car.vspec"
    mapping.write_text(MAPPING)
    arguments = ["decode", "--log", str(log), "--dbc", f"can0={dbc}", "--mapping", str(mapping)]
    log.write_text(LOG + "DROPCOUNT: dropped 3 CAN frames on 'can0' socket (total drops 3)\n")
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["refused"]["short: can0: Motor"] == 1
    assert any("DROPCOUNT" in note for note in told["notes"])
    packed = tmp_path / "cut.log.zst"
    packed.write_bytes(zstandard.compress((LOG * 4_000).encode())[:-20])
    assert main([*arguments[:2], str(packed), *arguments[3:], "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["truncated"]
    assert told["samples"]["Vehicle.Speed"] > 1
    assert main([*arguments[:4], f"can7={dbc}", *arguments[5:]]) == 1
    assert "the log has no frame on bus can7" in capsys.readouterr().err


def test_a_faulty_mapping_and_a_wrong_bus_are_refused(log, dbc, tmp_path, capsys):
    mapping = tmp_path / "car.json"
    mapping.write_text('{"Vehicle.Speed": {"datatype": "float", "dbc2vss": {"signal": "Speed", "interval": 5}}}')
    arguments = ["decode", "--log", str(log), "--dbc", f"can0={dbc}", "--mapping"]
    assert main([*arguments, str(mapping)]) == 1
    assert "car.json: Vehicle.Speed: dbc2vss has no field 'interval'" in capsys.readouterr().err
    mapping.write_text("{}")
    assert main([*arguments, f"can7={mapping}"]) == 1
    assert "the log has no frame on bus can7; its buses are can0, can1" in capsys.readouterr().err


def vss_tree(**leaves: dict[str, object]) -> str:
    return json.dumps({"Vehicle": {"type": "branch", "children": leaves}})


def test_a_mapping_is_checked_against_a_catalog_and_another_version(log, dbc, tmp_path, capsys):
    mapping, present, newer = tmp_path / "car.vspec", tmp_path / "vss5.json", tmp_path / "vss6.json"
    mapping.write_text(MAPPING)
    present.write_text(vss_tree(Speed={"datatype": "double"}, Gear={"datatype": "string"}))
    newer.write_text(vss_tree(Speed={"datatype": "float"}, Tailgate={"datatype": "string"}))
    arguments = ["decode", "--log", str(log), "--dbc", f"can0={dbc}"]
    named = ["--mapping", f"can0={mapping}", "--catalog", str(present), "--upgrade-catalog", str(newer), "--json"]
    assert main([*arguments, *named]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert f"Vehicle.Speed: the mapping says datatype float, and {present} says double" in notes
    assert any(note.startswith(f"Vehicle.Width: {present} has no such path") for note in notes)
    assert "upgrade: Vehicle.Speed: the datatype changes from double to float" in notes
    assert f"upgrade: Vehicle.Gear: the path is gone in {newer}" in notes
    assert main([*arguments, "--catalog", str(present)]) == 1
    assert "add --mapping FILE" in capsys.readouterr().err
    assert main([*arguments, "--mapping", str(mapping), "--upgrade-catalog", str(newer)]) == 1
    assert "add --catalog FILE" in capsys.readouterr().err
    assert main([*arguments, "--mapping", str(mapping), "--catalog", str(tmp_path / "none.json")]) == 1
    assert "none.json: the catalog cannot be read" in capsys.readouterr().err
