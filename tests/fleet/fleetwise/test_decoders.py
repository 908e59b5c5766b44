"""Frames that are encoded bit by bit from a decoder manifest decode with the written database to the same values."""

import json
import math
from typing import Any

import cantools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.decoder import Decoder
from can_dbc.values import physical
from fleet.fleetwise.findings import Outcome
from fleet.fleetwise.recognition import documents_in
from fleet.fleetwise.takeover import Result, Takeover
from tests.can_dbc.oracle import block_of
from tests.fleet.fleetwise.bits import places, put, value

INTERFACE = {"interfaceId": "1", "type": "CAN_INTERFACE", "canInterface": {"name": "can0"}}


def layout(**fields: Any) -> dict[str, Any]:
    plain = {"messageId": 256, "isBigEndian": False, "isSigned": False, "startBit": 0, "length": 8}
    return {**plain, "offset": 0.0, "factor": 1.0, **fields}


def decoder(fqn: str, **fields: Any) -> dict[str, Any]:
    return {"fullyQualifiedName": fqn, "type": "CAN_SIGNAL", "interfaceId": "1", "canSignal": layout(**fields)}


def taken(*contents: Any) -> Result:
    found = [each for number, content in enumerate(contents) for each in documents_in(content, f"{number}.json")]
    return Takeover().take(found)


def database(text: bytes) -> Any:
    """Return what cantools, which is strict about overlaps, reads in a DBC."""
    return cantools.database.load_string(text.decode(), "dbc")


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Return a layout that fits a frame of CAN FD."""
    floating = draw(st.booleans())
    bits = draw(st.sampled_from((32, 64)) if floating else st.integers(1, 64))
    big_endian = draw(st.booleans())
    start = draw(st.integers(0, 511))
    return layout(
        messageId=draw(st.sampled_from((1, 0x7FF, 0x800, 0x1FFFFFFF))),
        isBigEndian=big_endian,
        isSigned=draw(st.booleans()),
        startBit=start,
        length=bits,
        factor=draw(st.sampled_from((1.0, 0.5, 0.1, -2.0, 1e-7, 3.0e6))),
        offset=draw(st.sampled_from((0.0, -40.0, 0.25, 1e9))),
        signalValueType="FLOATING_POINT" if floating else "INTEGER",
    )


@settings(max_examples=300, deadline=None)
@given(layouts(), st.data())
def test_a_frame_decodes_to_the_value_that_the_bits_of_the_manifest_have(
    one: dict[str, Any], data: st.DataObject
) -> None:
    result = taken([decoder("Vehicle.Engine.Speed") | {"canSignal": one}], [INTERFACE])
    fits = all(0 <= byte < 64 for byte, _ in places(one))
    (finding, _) = result.findings
    if not fits:
        assert finding.outcome is Outcome.DIFFERENCE
        assert finding.remarks[0].key == "signalDecoders[0].canSignal.startBit"
        return
    assert finding.outcome is Outcome.TAKEN, finding
    size = max(byte for byte, _ in places(one)) + 1
    frame = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    put(frame, one, data.draw(st.integers(0, 2 ** one["length"] - 1)))
    expected = value(bytes(frame), one)

    text = result.files["dbc/can0/decoders.dbc"]
    extended = one["messageId"] > 0x7FF
    (message,) = database(text).messages
    assert (message.frame_id, message.is_extended_frame) == (one["messageId"], extended)
    by_cantools = message.decode(bytes(frame), decode_choices=False)["Speed"]
    plan = compile_plan([parse(text, "dbc", "x.dbc")])
    assert plan.notes == ()
    (columns,) = Decoder({0: plan}).decode(block_of([(one["messageId"], extended, bytes(frame))])).columns
    (signal,) = columns.message.signals
    ours = physical(signal, columns.raw[0])[0]
    for found in (by_cantools, ours):
        assert (math.isnan(found) and math.isnan(expected)) or found == pytest.approx(expected, rel=1e-15)


def test_all_signals_of_a_message_decode_together_whatever_their_order() -> None:
    layouts = {
        "Little": layout(startBit=10, length=13, isSigned=True, factor=0.25),
        "Big": layout(startBit=36, length=11, isBigEndian=True, offset=-40),
        "Bit": layout(startBit=7, length=1),
        "Byte": layout(startBit=56, length=8, isBigEndian=True, isSigned=True),
    }
    result = taken(
        [decoder(f"Vehicle.Mixed.{name}") | {"canSignal": one} for name, one in layouts.items()], [INTERFACE]
    )
    frame = bytearray(8)
    for number, one in enumerate(layouts.values()):
        put(frame, one, 0xA5B6C7D8 * (number + 3) >> 5)
    (message,) = database(result.files["dbc/can0/decoders.dbc"]).messages
    assert message.decode(bytes(frame)) == {name: value(bytes(frame), one) for name, one in layouts.items()}


def test_names_of_three_steps_need_no_mapping_and_other_names_get_one() -> None:
    result = taken(
        [
            decoder("Vehicle.ABS.Pressure", startBit=0),
            decoder("Vehicle.ABS.Speed", startBit=8),
            decoder("Vehicle.Cabin.Door.Row1.IsOpen", messageId=0x18FF0001, length=1, name="DoorOpen"),
            decoder("Vehicle.Cabin.Door.Row2.IsOpen", messageId=0x18FF0001, length=1, startBit=1, name="Door.2"),
            # Two messages cannot share a name.
            decoder("Vehicle.ECM.Torque", messageId=0x300),
            decoder("Vehicle.ECM.Load", messageId=0x301),
        ],
        [INTERFACE],
        [{"sensor": {"fullyQualifiedName": "Vehicle.Cabin.Door.Row1.IsOpen", "dataType": "BOOLEAN", "unit": "open"}}],
    )
    written = database(result.files["dbc/can0/decoders.dbc"])
    assert {message.name: [signal.name for signal in message.signals] for message in written.messages} == {
        "ABS": ["Pressure", "Speed"],
        "CAN_300": ["Torque"],
        "CAN_301": ["Load"],
        "CAN_18FF0001": ["DoorOpen", "Door_2"],
    }
    assert written.get_message_by_name("CAN_18FF0001").get_signal_by_name("DoorOpen").unit == "open"
    vehicle = json.loads(result.files["mapping/can0/decoders.json"])["Vehicle"]["children"]
    assert set(vehicle) == {"Cabin", "ECM"}
    row1 = vehicle["Cabin"]["children"]["Door"]["children"]["Row1"]["children"]["IsOpen"]
    assert row1["dbc2vss"] == {"signal": "CAN_18FF0001.DoorOpen", "interval_ms": 0}
    assert (row1["datatype"], row1["unit"]) == ("boolean", "open")
    assert vehicle["ECM"]["children"]["Load"]["dbc2vss"]["signal"] == "CAN_301.Load"


def test_the_parts_of_a_manifest_come_together_from_many_files() -> None:
    many = [decoder(f"Vehicle.M{n}.S", messageId=n) for n in range(1_100)]
    result = taken(
        {"signalDecoders": many[:500]},
        {"signalDecoders": many[500:1_000], "nextToken": ""},
        many[1_000:],
        {"networkInterfaces": [INTERFACE]},
        {"name": "model-a", "arn": "a", "modelManifestArn": "b", "creationTime": 1, "lastModificationTime": 2},
    )
    assert {finding.outcome for finding in result.findings} == {Outcome.TAKEN}
    assert {finding.name for finding in result.findings} == {"model-a"}
    assert len(database(result.files["dbc/can0/model-a.dbc"]).messages) == 1_100


def test_updates_replace_and_remove_decoders() -> None:
    result = taken(
        {"name": "m", "modelManifestArn": "x", "signalDecoders": [decoder("Vehicle.A.B"), decoder("Vehicle.A.C")]},
        {
            "name": "m",
            "signalDecodersToUpdate": [decoder("Vehicle.A.B", startBit=24)],
            "signalDecodersToRemove": ["Vehicle.A.C"],
            "networkInterfacesToAdd": [INTERFACE],
        },
    )
    (message,) = database(result.files["dbc/can0/m.dbc"]).messages
    assert [(signal.name, signal.start) for signal in message.signals] == [("B", 24)]


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"startBit": 1, "length": 16, "isBigEndian": True}, "canSignal.startBit", "would begin before the frame"),
        ({"startBit": 510, "length": 3}, "canSignal.startBit", "ends behind byte 64"),
        ({"length": 0}, "canSignal.length", "1 to 64 bits"),
        ({"length": 65}, "canSignal.length", "1 to 64 bits"),
        ({"length": 16, "signalValueType": "FLOATING_POINT"}, "canSignal.length", "32 or 64 bits"),
        ({"messageId": 0x20000000}, "canSignal.messageId", "greatest id"),
        ({"factor": math.inf}, "canSignal.factor", "finite"),
        ({"offset": math.nan}, "canSignal.offset", "finite"),
    ],
)
def test_a_decoder_that_no_frame_can_have_is_refused_with_its_place(
    fields: dict[str, Any], key: str, words: str
) -> None:
    result = taken([decoder("Vehicle.A.Good", messageId=1), decoder("Vehicle.B.Bad", **fields)], [INTERFACE])
    (remark,) = result.findings[0].remarks
    assert remark.key == f"signalDecoders[1].{key}"
    assert words in remark.text
    (message,) = database(result.files["dbc/can0/decoders.dbc"]).messages
    assert message.name == "A"


def test_decoders_of_other_kinds_are_refused_one_by_one() -> None:
    obd = {
        "pidResponseLength": 1,
        "serviceMode": 1,
        "pid": 13,
        "scaling": 1,
        "offset": 0,
        "startByte": 0,
        "byteLength": 1,
    }
    result = taken(
        [
            decoder("Vehicle.A.B"),
            {"fullyQualifiedName": "Vehicle.OBD.Speed", "type": "OBD_SIGNAL", "interfaceId": "0", "obdSignal": obd},
            {
                "fullyQualifiedName": "Vehicle.Place",
                "type": "CUSTOM_DECODING_SIGNAL",
                "interfaceId": "L",
                "customDecodingSignal": {"id": "place"},
            },
        ],
        [INTERFACE],
    )
    assert [(remark.key, "refused" in remark.text) for remark in result.findings[0].remarks] == [
        ("signalDecoders[1]", True),
        ("signalDecoders[2]", True),
    ]
    assert "diagnostic requests (OBD)" in result.findings[0].remarks[0].text


def test_a_bus_gets_a_name_that_a_folder_can_have() -> None:
    interface = {**INTERFACE, "canInterface": {"name": ".."}}
    result = taken([decoder("Vehicle.A.B")], [interface])
    assert list(result.files) == ["dbc/__/decoders.dbc"]
    assert "called .. here" in result.findings[0].remarks[0].text


def test_two_buses_and_two_manifests_stay_apart() -> None:
    other = {"interfaceId": "2", "type": "CAN_INTERFACE", "canInterface": {"name": "can1"}}
    on_other = {**decoder("Vehicle.C.D"), "interfaceId": "2"}
    first = {"name": "a", "signalDecoders": [decoder("Vehicle.A.B"), on_other], "networkInterfaces": [INTERFACE, other]}
    second = {"name": "b", "signalDecoders": [decoder("Vehicle.A.B", length=4)], "networkInterfaces": [INTERFACE]}
    assert list(taken(first, second).files) == ["dbc/can0/a.dbc", "dbc/can0/b.dbc", "dbc/can1/a.dbc"]
