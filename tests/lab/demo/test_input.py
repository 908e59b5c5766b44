"""The agent and the oracle of the demonstration get exactly the same frames."""

import bz2
import gzip
import lzma
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent.errors import Permanent
from agent.settings.settings import parse
from lab.demo.input import recorded, virtual_vehicle
from tests.agent.car import DATABASES, drive, write_log

DBC = [("can0", DATABASES / "demo_powertrain.dbc"), ("can1", DATABASES / "demo_body.dbc")]
UPLINK = '\n[uplink]\nbroker = "localhost:8883"\n'


def test_the_virtual_vehicle_drives_the_same_drive_again() -> None:
    source = virtual_vehicle(3, 1.0)
    assert list(source.frames()) == list(source.frames())
    settings = parse(source.agent_sources(2.5) + UPLINK, "agent.toml")
    (table,) = settings.sources
    assert (table.seed, table.speed, table.duration_s) == (3, 2.5, 1.0)  # type: ignore[union-attr]
    assert set(settings.bus) == {"can0", "can1"}


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zstandard.compress)],
)
def test_a_log_is_the_same_however_it_is_packed(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    plain, folder = tmp_path / "plain.log", tmp_path / "unpacked"
    count = write_log(plain, 1.0)
    folder.mkdir()
    log = tmp_path / f"drive.log{suffix}"
    log.write_bytes(pack(plain.read_bytes()))
    source = recorded(log, DBC, "exact", folder)
    frames = list(source.frames())
    assert len(frames) == count
    assert [frame.t_ns for frame in frames] == [int(t) // 1000 * 1000 for b in drive(1.0) for t in b.t_ns]
    assert 0.9 < source.seconds <= 1.0
    document: dict[str, Any] = tomllib.loads(source.agent_sources(1.0))
    assert document["sources"] == [{"kind": "replay", "log": str(log), "speed": 1.0}]


def test_a_database_for_every_bus_comes_after_those_of_the_bus(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    write_log(log, 0.2)
    source = recorded(log, [(None, DBC[1][1]), DBC[0]], "exact", tmp_path)
    assert {bus: len(files) for bus, files in source.databases.items()} == {"can0": 2, "can1": 1}


def test_what_cannot_be_driven_is_one_message(tmp_path: Path) -> None:
    log, empty = tmp_path / "drive.log", tmp_path / "empty.log"
    write_log(log, 0.1)
    empty.write_text("")
    with pytest.raises(Permanent, match="There is no such file"):
        recorded(tmp_path / "nowhere.log", [], "exact", tmp_path)
    with pytest.raises(Permanent, match=r"nowhere\.dbc: There is no such file"):
        recorded(log, [(None, tmp_path / "nowhere.dbc")], "exact", tmp_path)
    with pytest.raises(Permanent, match="contains no frames"):
        recorded(empty, [], "exact", tmp_path)
    with pytest.raises(Permanent, match=r"no frames on can7\. It has the buses can0"):
        recorded(log, [("can7", DBC[0][1])], "exact", tmp_path)


def test_a_database_that_cantools_refuses_is_named_before_the_drive(tmp_path: Path) -> None:
    log, database = tmp_path / "drive.log", tmp_path / "odd.dbc"
    write_log(log, 0.1)
    database.write_text("BO_ nonsense")
    with pytest.raises(Permanent, match=r"odd\.dbc: cantools, which decodes independently of the agent, refuses"):
        recorded(log, [("can0", database)], "exact", tmp_path)


def test_a_file_that_is_no_database_is_named_before_the_drive(tmp_path: Path) -> None:
    log, text = tmp_path / "drive.log", tmp_path / "README.md"
    write_log(log, 0.1)
    text.write_text("# A text")
    with pytest.raises(Permanent) as caught:
        recorded(log, [("can0", text)], "exact", tmp_path)
    assert str(caught.value) == f"{text}: This file is not a CAN database (DBC, ARXML, KCD, SYM). Check --dbc."


def test_a_log_that_ends_within_a_line_is_named_with_the_line(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    write_log(log, 0.2)
    content = log.read_bytes()
    log.write_bytes(content[: content.rindex(b"#") - 2])
    lines = content.count(b"\n")
    with pytest.raises(Permanent) as caught:
        recorded(log, DBC, "exact", tmp_path)
    assert f"{log}: line {lines}: " in str(caught.value)
    assert str(caught.value).endswith("A log that is not whole cannot be compared.")


def test_databases_that_decode_no_frame_are_refused_before_the_drive(tmp_path: Path) -> None:
    log, database = tmp_path / "drive.log", tmp_path / "long.dbc"
    log.write_text("(1.0) can0 100#0102\n(1.1) can0 300#0102\n")
    database.write_text('BO_ 768 DoorStatus: 8 ECU\n SG_ Front : 32|8@1+ (1,0) [0|0] "" ECU\n')
    with pytest.raises(Permanent) as caught:
        recorded(log, [("can0", database)], "exact", tmp_path)
    assert "The databases decode none of its 2 frames (unknown: 100; " in str(caught.value)
    assert "DoorStatus). Check --dbc and --match" in str(caught.value)
