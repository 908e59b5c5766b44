"""Containers decode as by cantools with `decode_containers=True`.  PDUs that do not decode are refused by name."""

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cantools.database.can import Database, Message, Signal
from cantools.database.errors import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.cache import from_bytes, to_bytes
from can_dbc.compile import compile_plan
from can_dbc.containers import Unpacked
from can_dbc.database import load
from can_dbc.decoder import Decoder, Refused
from can_dbc.plan import BusPlan, Match
from tests.can_dbc.oracle import CantoolsCrash, block_of, decoded, expected
from tests.can_dbc.test_equals_cantools import messages

ARXML = Path(__file__).with_name("container.arxml")
SPEED = Message(1, "Speed", 2, [Signal("Kmh", 0, 16)], header_id=0x000101)
DOORS = Message(
    1,
    "Doors",
    3,
    [
        Signal("Row", 0, 2, is_multiplexer=True),
        Signal("Front", 8, 8, multiplexer_ids=[0], multiplexer_signal="Row"),
        Signal("Rear", 16, 8, is_signed=True, multiplexer_ids=[1], multiplexer_signal="Row"),
    ],
    header_id=0xABCDEF,
)
BODY = Message(0x123, "Body", 24, [], contained_messages=[SPEED, DOORS])
SPEED_7 = bytes.fromhex("000101 02 0700")
REAR_IS_MINUS_1 = bytes.fromhex("ABCDEF 03 0100FF")


def decode(container, payloads, wanted=None):
    frames = [(container.frame_id, container.is_extended_frame, payload) for payload in payloads]
    return Decoder({0: compile_plan([Database([container], strict=False)])}, wanted).decode(block_of(frames))


def ours(result):
    """Return the samples of each PDU by (frame, message), in the order of the frame."""
    found = defaultdict(list)
    for columns in result.columns:
        pdus = decoded(msgspec.structs.replace(columns, rows=np.arange(len(columns.rows))))
        for place, row in enumerate(columns.rows.tolist()):
            found[row, columns.message.name].append(pdus[place])
    return dict(found)


def theirs(container, payloads):
    found = defaultdict(list)
    for row, payload in enumerate(payloads):
        try:
            unpacked = container.unpack_container(payload)
            values = container.decode(payload, decode_containers=True)
        except DecodeError:
            continue
        assert len(unpacked) == len(values)
        for message, content in unpacked:
            samples = expected(message, content) if isinstance(message, Message) else None
            if samples is not None:
                found[row, message.name].append(samples)
    return dict(found)


def values(result):
    """Return all samples as (frame, message, signal, raw)."""
    return [
        (row, message, sample.name, sample.raw)
        for (row, message), pdus in ours(result).items()
        for pdu in pdus
        for sample in pdu
    ]


def assert_all_counted(result, frames):
    assert frames - result.containers + result.pdus == sum(len(columns.rows) for columns in result.columns) + sum(
        result.refused.values()
    )


@st.composite
def containers(draw):
    inner = [draw(messages()) for _ in range(draw(st.integers(1, 4)))]
    header_ids = draw(st.lists(st.integers(0, 3) | st.integers(0, 2**24 - 1), min_size=4, max_size=4, unique=True))
    for number, (message, header_id) in enumerate(zip(inner, header_ids, strict=False)):
        message.header_id, message.name = header_id, f"Message{number}"
    length = draw(st.sampled_from([8, 12, 48, 64]))
    return Message(0x123, "Container", length, [], contained_messages=inner, is_extended_frame=draw(st.booleans()))


@st.composite
def payloads(draw, container):
    """Draw PDUs with known and unknown header ids and right and wrong lengths, then padding, or a truncated end."""
    content = b""
    for _ in range(draw(st.integers(0, 6))):
        message = draw(st.sampled_from(container.contained_messages))
        header_id = draw(st.sampled_from([message.header_id] * 4 + [0, 5, 0xFFFFFF]))
        size = min(draw(st.sampled_from([message.length] * 4 + [0, message.length - 1, message.length + 1])), 64)
        content += header_id.to_bytes(3, "big") + bytes([size]) + draw(st.binary(min_size=size, max_size=size))
    content += draw(st.sampled_from([b"", b"", b"\0", b"\0" * 6, b"\xff" * 3, b"\xff" * 5, b"\0\0\1"]))
    return content[: draw(st.sampled_from([container.length] * 6 + [container.length - 1, 10, 64]))]


@given(containers(), st.data())
@settings(max_examples=300, deadline=None)
def test_any_container_decodes_as_cantools_does(container, data):
    contents = data.draw(st.lists(payloads(container), min_size=1, max_size=12))
    result = decode(container, contents)
    with suppress(CantoolsCrash, OverflowError):  # our decoder does not fail
        assert ours(result) == theirs(container, contents)
    assert_all_counted(result, len(contents))


@given(containers())
@settings(max_examples=100, deadline=None)
def test_a_plan_of_containers_comes_back_from_the_cache(container):
    plan = compile_plan([Database([container], strict=False)])
    assert from_bytes(to_bytes(plan), Match.EXACT) == plan


def _container(**changes):
    (container,) = compile_plan([Database([BODY])]).messages
    return replace(container, **changes)


def _inner(**changes):
    speed, doors = _container().contained
    return _container(contained=(replace(speed, **changes), doors))


@pytest.mark.parametrize(
    "message",
    [
        _container(header_id=1),
        _container(defect="container"),
        _container(signals=_container().contained[0].signals),
        _inner(header_id=None),
        _inner(header_id=1 << 24),
        _inner(header_id=DOORS.header_id),
        _inner(can_id=7),
        _inner(extended=True),
        _inner(length=0),
        _inner(contained=_container().contained),
    ],
)
def test_a_cached_container_that_the_decoder_could_not_rely_on_is_refused(message):
    assert from_bytes(to_bytes(BusPlan((_container(),), Match.EXACT)), Match.EXACT) is not None
    assert from_bytes(to_bytes(BusPlan((message,), Match.EXACT)), Match.EXACT) is None


def test_what_cantools_packs_is_unpacked():
    payload = BODY.encode([("Doors", {"Row": 1, "Rear": -1}), ("Speed", {"Kmh": 7})])
    assert payload == REAR_IS_MINUS_1 + SPEED_7
    result = decode(BODY, [payload])
    assert values(result) == [(0, "Speed", "Kmh", 7), (0, "Doors", "Row", 1), (0, "Doors", "Rear", -1)]
    assert (result.containers, result.pdus, dict(result.refused)) == (1, 2, {})
    assert all(columns.message.can_id == 0x123 for columns in result.columns)


def test_a_message_may_be_in_a_frame_twice():
    result = decode(BODY, [SPEED_7 + SPEED_7[:4] + b"\x08\0", b"", SPEED_7])
    (columns,) = result.columns
    assert columns.rows.tolist() == [0, 0, 2]
    assert columns.t_ns.tolist() == [0, 0, 2_000_000]
    assert columns.raw.tolist() == [[7, 8, 7]]


@pytest.mark.parametrize(
    ("payload", "refused", "pdus"),
    [
        (b"", {}, 0),
        (SPEED_7 + bytes(10), {}, 1),  # two headers of zeros, then an incomplete one
        (SPEED_7 + b"\xff\xff\xff", {}, 1),
        (SPEED_7 + b"\xff\xff\xff\x00", {Refused.HEADER: 1}, 2),
        (SPEED_7 + b"\0\0\0\1\5", {Refused.HEADER: 1}, 2),
        (SPEED_7 + b"\xff" * 4, {Refused.TRUNCATED: 1}, None),
        (SPEED_7[:-1], {Refused.TRUNCATED: 1}, None),
        (SPEED_7 + bytes(19), {Refused.LONG: 1}, None),
        (SPEED_7 + SPEED_7[:3] + b"\1\7", {Refused.SHORT: 1}, 2),
    ],
)
def test_what_does_not_decode_is_refused_by_name_and_the_rest_of_the_frame_stays(payload, refused, pdus):
    result = decode(BODY, [payload, SPEED_7])
    assert dict(result.refused) == refused
    assert (result.containers, result.pdus) == ((1, 1) if pdus is None else (2, 1 + pdus))
    whole = [(0, "Speed", "Kmh", 7)] if pdus else []
    assert values(result) == [*whole, (1, "Speed", "Kmh", 7)]
    assert ours(result) == theirs(BODY, [payload, SPEED_7])
    assert_all_counted(result, 2)
    names = {Refused.SHORT: "Speed"}
    assert [(r.can_id, r.message) for r in result.refusals] == [(0x123, names.get(kind, "Body")) for kind in refused]


def test_a_contained_message_with_an_unlisted_multiplexer_number_keeps_its_other_signals():
    result = decode(BODY, [SPEED_7 + bytes.fromhex("ABCDEF 03 030000")])
    assert values(result) == [(0, "Speed", "Kmh", 7), (0, "Doors", "Row", 3)]
    assert [(one.message, one.multiplexer, one.frames) for one in result.unlisted] == [("Doors", "Row", 1)]
    assert_all_counted(result, 1)


def test_a_container_in_a_container_is_refused():
    deep = Message(1, "Deep", 8, [], contained_messages=[SPEED], header_id=5)
    outer = Message(0x124, "Outer", 64, [], contained_messages=[deep, SPEED])
    payload = b"\0\0\5\6" + SPEED_7 + SPEED_7
    result = decode(outer, [payload])
    assert values(result) == [(0, "Speed", "Kmh", 7)]
    assert dict(result.refused) == {Refused.CONTAINER: 1}
    assert ours(result) == theirs(outer, [payload])


def test_only_what_is_wanted_of_a_container_is_decoded():
    asked = []

    def wanted(bus, message):
        asked.append((bus, message.name))
        return (2,) if message.name == "Doors" else ()

    result = decode(BODY, [SPEED_7 + REAR_IS_MINUS_1, SPEED_7[:4] + b"\1\1"], wanted)
    assert asked == [(0, "Speed"), (0, "Doors")]
    assert values(result) == [(0, "Doors", "Rear", -1)]
    assert dict(result.refused) == {}


def test_a_container_of_which_nothing_is_wanted_is_skipped():
    result = decode(BODY, [SPEED_7, b"\xff" * 24], lambda *_: ())
    assert (result.columns, result.containers, dict(result.refused)) == ((), 0, {})


def test_contained_messages_come_apart_by_sender_where_the_bus_is_matched_by_pgn():
    container = Message(0x18FEF100, "Wide", 24, [], contained_messages=[SPEED], is_extended_frame=True)
    decoder = Decoder({0: compile_plan([Database([container])], Match.PGN)})
    frames = [(0x18FEF103, True, SPEED_7), (0x0CFEF121, True, SPEED_7 * 2), (0x18FEF103, True, SPEED_7)]
    found = {columns.source_address: columns.rows.tolist() for columns in decoder.decode(block_of(frames)).columns}
    assert found == {0x03: [0, 2], 0x21: [1, 1]}


def test_an_arxml_file_with_a_container_is_read():
    database = load(ARXML)
    plan = compile_plan([database])
    assert [(message.name, message.header_id) for message in plan.with_contained] == [
        ("BodyFrame", None),
        ("Speed", 0x101),
        ("Doors", 0x202),
    ]
    (container,) = database.messages
    payload = container.encode([("Speed", {"Kmh": 50.0, "Valid": 1}), ("Doors", {"Open": -3})])
    assert ours(decode(container, [payload])) == theirs(container, [payload])
    assert values(decode(container, [payload])) == [
        (0, "Speed", "Kmh", 5000),
        (0, "Speed", "Valid", 1),
        (0, "Doors", "Open", -3),
    ]


def test_the_bytes_of_a_pdu_end_where_its_length_says():
    unpacked = Unpacked(np.frombuffer(SPEED_7 + b"\xff\xff", np.uint8)[None, :], np.array([6], np.uint8), [0x101])
    pdus = unpacked.of(0x101, 9)
    assert (pdus.frame.tolist(), pdus.length.tolist(), pdus.data.tolist()) == ([0], [2], [[7] + [0] * 15])
