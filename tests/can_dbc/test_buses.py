"""One bus of a file can be chosen, and without a choice no message of another bus takes a frame in silence."""

from pathlib import Path

import pytest

from can_dbc.buses import file_and_bus
from can_dbc.cache import PlanCache
from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.errors import DatabaseError
from can_dbc.plan import Match
from tests.can_dbc.arxml_text import Field, Frame, arxml, arxml_of_buses

SIGNAL = '<Signal name="{0}" offset="0" length="8"/>'


def kcd(**buses):
    """Return a KCD; each bus is a list of (identifier, name of the message, name of its signal)."""
    text = "".join(
        f'<Bus name="{bus}">'
        + "".join(
            f'<Message id="{can_id}" name="{name}" length="8" format="{"extended" if can_id > 2047 else "standard"}">'
            f"{SIGNAL.format(signal)}</Message>"
            for can_id, name, signal in messages
        )
        + "</Bus>"
        for bus, messages in buses.items()
    )
    return f'<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0">{text}</NetworkDefinition>'.encode()


def arxml_like(**buses):
    return arxml_of_buses(
        {bus: [Frame(name, can_id, [Field(signal)]) for can_id, name, signal in ms] for bus, ms in buses.items()}
    )


FORMATS = pytest.mark.parametrize(("write", "suffix"), [(kcd, "kcd"), (arxml_like, "arxml")])
TWO = {"Chassis": [(0x51, "Brake", "Pedal"), (0x52, "Steer", "Angle")], "Cabin": [(0x51, "Seat", "Heat")]}


def names(path, match=Match.EXACT):
    return {message.name for message in compile_plan([load(path)], match).messages}


def chosen(path, bus):
    return Path(f"{path}#{bus}")


@FORMATS
def test_a_bus_is_chosen_by_its_name(tmp_path, write, suffix):
    path = tmp_path / f"car.{suffix}"
    path.write_bytes(write(**TWO))
    assert names(chosen(path, "Chassis")) == {"Brake", "Steer"}
    assert names(chosen(path, "Cabin")) == {"Seat"}


@FORMATS
def test_without_a_choice_an_identifier_with_two_meanings_is_refused(tmp_path, write, suffix):
    path = tmp_path / f"car.{suffix}"
    path.write_bytes(write(**TWO))
    with pytest.raises(DatabaseError, match=r"Brake of the bus Chassis and Seat of the bus Cabin .*as in FILE#"):
        names(path)


@FORMATS
def test_without_a_choice_a_note_names_the_buses(tmp_path, write, suffix):
    path = tmp_path / f"car.{suffix}"
    path.write_bytes(write(Chassis=[(0x51, "Brake", "Pedal")], Cabin=[(0x53, "Seat", "Heat")]))
    plan = compile_plan([load(path)])
    assert {message.name for message in plan.messages} == {"Brake", "Seat"}
    assert plan.notes[0].startswith("the database describes the buses Cabin, Chassis, and the messages of all")
    assert f"car.{suffix}#Cabin" in plan.notes[0]
    assert compile_plan([load(chosen(path, "Cabin"))]).notes == ()


def test_an_identifier_that_means_the_same_on_both_buses_has_one_meaning(tmp_path):
    path = tmp_path / "car.kcd"
    path.write_bytes(kcd(Chassis=[(0x51, "Brake", "Pedal")], Cabin=[(0x51, "Brake", "Pedal")]))
    assert names(path) == {"Brake"}


def test_an_arxml_frame_that_two_clusters_carry_has_one_meaning(tmp_path):
    path = tmp_path / "car.arxml"
    one = arxml(Frame("Brake", 0x51, [Field("Pedal")])).decode()
    cluster = one[one.index("<CAN-CLUSTER>") : one.index("</CAN-CLUSTER>") + len("</CAN-CLUSTER>")]
    path.write_text(one.replace(cluster, cluster + cluster.replace("Drive", "Cabin")))
    assert names(path) == {"Brake"}
    assert names(chosen(path, "Cabin")) == {"Brake"}


def test_buses_collide_by_parameter_group_as_well(tmp_path):
    path = tmp_path / "car.kcd"
    path.write_bytes(kcd(Chassis=[(0x0CFEEE00, "Heat", "Oil")], Cabin=[(0x18FEEE21, "Air", "Fan")]))
    assert names(path) == {"Heat", "Air"}
    with pytest.raises(DatabaseError, match="Heat of the bus Chassis and Air of the bus Cabin"):
        names(path, Match.PGN)


@FORMATS
def test_an_unknown_bus_names_the_buses_of_the_file(tmp_path, write, suffix):
    path = tmp_path / f"car.{suffix}"
    path.write_bytes(write(**TWO))
    with pytest.raises(DatabaseError, match=rf"car\.{suffix}: the file has no bus 'Cab'; its buses are Cabin, Chassis"):
        load(chosen(path, "Cab"))


def test_a_file_without_buses_says_so(tmp_path):
    path = tmp_path / "car.sym"
    path.write_text("FormatVersion=6.0 // 1\n{SEND}\n[Oil]\nID=300h\nLen=8\nVar=Bar unsigned 0,8\n")
    with pytest.raises(DatabaseError, match=r"car\.sym: the file has no bus 'Cab'; the file names no buses"):
        load(chosen(path, "Cab"))


def test_a_bus_of_a_dbc_is_refused(tmp_path):
    path = tmp_path / "car.dbc"
    path.write_text('BO_ 1 A: 8 X\n SG_ B : 0|8@1+ (1,0) [0|0] "" X\n')
    with pytest.raises(DatabaseError, match=r"car\.dbc: a DBC file describes one bus; leave out #Cab"):
        load(chosen(path, "Cab"))


@pytest.mark.parametrize(
    ("written", "file", "bus"),
    [
        ("car.kcd#Cabin", "car.kcd", "Cabin"),
        ("a/car.KCD#Cabin 2", "a/car.KCD", "Cabin 2"),
        ("car.arxml#a#b", "car.arxml", "a#b"),
        ("v#1.kcd", "v#1.kcd", None),
        ("v#1.kcd#Cabin", "v#1.kcd", "Cabin"),
        ("car.kcd#old.kcd", "car.kcd#old.kcd", None),
        ("car.txt#Cabin", "car.txt#Cabin", None),
        ("car.kcd#", "car.kcd#", None),
    ],
)
def test_the_bus_follows_the_suffix_of_the_file(written, file, bus):
    assert file_and_bus(Path(written)) == (Path(file), bus)


def test_the_buses_of_one_file_have_their_own_plans_in_the_cache(tmp_path):
    path = tmp_path / "car.kcd"
    path.write_bytes(kcd(**TWO))
    cache = PlanCache(tmp_path / "plans", lambda file, content: file.write_bytes(content) and None)
    for _ in range(2):
        for bus, expected in (("Chassis", {"Brake", "Steer"}), ("Cabin", {"Seat"})):
            assert {m.name for m in cache.plan([chosen(path, bus)], Match.EXACT).messages} == expected
    assert cache.compiled == 2
