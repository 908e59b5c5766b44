"""Equality with cantools: random databases, every open database, value for value and refusal for refusal."""

import random
from contextlib import suppress

import cantools.database
import pytest
from cantools.database.can import Database, Message, Signal
from cantools.database.conversion import BaseConversion
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc.database import load
from can_dbc.decoder import Decoder
from can_dbc.errors import DatabaseError
from can_dbc.plan import compile_plan
from tests import shared_data
from tests.can_dbc.oracle import CantoolsCrash, block_of, decoded, expected

SCALES = st.sampled_from([1, 1, 2, -1, 10, 0.5, 0.1, -0.25, 1e-7, 1e12, 0])
OFFSETS = st.sampled_from([0, 0, 1, -40, 0.5, -273.15, 1e9])


@st.composite
def conversions(draw, is_float):
    choices = draw(st.none() | st.dictionaries(st.integers(-4, 20), st.sampled_from(["off", "on", "error", "§"])))
    return BaseConversion.factory(draw(SCALES), draw(OFFSETS), choices, is_float)


@st.composite
def signals(draw, name, length, **placed):
    is_float = draw(st.integers(0, 5)) == 0
    widths = [bits for bits in (16, 32, 64) if bits <= 8 * length]
    is_float = is_float and bool(widths)
    most = min(64, 8 * length)
    bits = draw(st.sampled_from(widths) if is_float else st.integers(1, most) | st.integers(max(1, most - 7), most))
    big_endian = draw(st.booleans())
    first = draw(st.integers(0, 8 * length - bits))
    start = 8 * (first // 8) + 7 - first % 8 if big_endian else first
    return Signal(
        name,
        start,
        bits,
        "big_endian" if big_endian else "little_endian",
        is_signed=draw(st.booleans()),
        conversion=draw(conversions(is_float)),
        **placed,
    )


@st.composite
def multiplexers(draw, name, length, **placed):
    bits = draw(st.integers(1, 4))
    start = draw(st.integers(0, 8 * length - bits))
    choices = draw(st.none() | st.dictionaries(st.integers(0, 9), st.sampled_from(["off", "on", "error"])))
    scale, offset = draw(st.sampled_from([(1, 0), (1, 0), (1, 0), (2, 0), (0.5, 1), (1, -2)]))
    conversion = BaseConversion.factory(scale, offset, choices, False)
    return Signal(
        name, start, bits, conversion=conversion, is_multiplexer=True, is_signed=draw(st.booleans()), **placed
    )


@st.composite
def messages(draw):
    """A message of plain, multiplexed and nested signals; they may overlap, as they do in real files."""
    length = draw(st.sampled_from([1, 2, 3, 7, 8, 8, 8, 9, 12, 17, 64]))
    listed = [draw(signals(f"S{n}", length)) for n in range(draw(st.integers(0, 3)))]
    parents: list[str] = []
    for n in range(draw(st.integers(0, 2))):
        nested = {}
        if parents and draw(st.booleans()):
            nested = {
                "multiplexer_signal": parents[-1],
                "multiplexer_ids": draw(st.lists(st.integers(0, 8), max_size=6)),
            }
        listed.append(draw(multiplexers(f"M{n}", length, **nested)))
        parents.append(f"M{n}")
    for n in range(draw(st.integers(0, 4)) if parents else 0):
        ids = draw(st.lists(st.integers(-1, 9), min_size=1, max_size=8))
        parent = draw(st.sampled_from(parents))
        listed.append(draw(signals(f"C{n}", length, multiplexer_signal=parent, multiplexer_ids=ids)))
    return Message(draw(st.integers(0, 0x7FF)), "Message", length, listed, strict=False)


def assert_equal(message, payloads, decoder):
    frames = [(message.frame_id, message.is_extended_frame, payload) for payload in payloads]
    result = decoder.decode(block_of(frames))
    ours = {row: samples for columns in result.columns for row, samples in decoded(columns).items()}
    for row, payload in enumerate(payloads):
        with suppress(CantoolsCrash):  # ours decodes on
            assert ours.get(row) == expected(message, payload), (message, payload.hex())
    assert len(ours) + sum(refusal.frames for refusal in result.refusals) == len(payloads)


@given(messages(), st.data())
@settings(max_examples=300, deadline=None)
def test_any_message_decodes_as_cantools_does(message, data):
    size = st.just(message.length) | st.sampled_from([0, message.length - 1, 64])
    payload = size.flatmap(lambda n: st.binary(min_size=n, max_size=n))
    payloads = data.draw(st.lists(payload, min_size=1, max_size=12))
    assert_equal(message, payloads, Decoder({0: compile_plan([Database([message], strict=False)])}))


@pytest.mark.parametrize("length", [8, 17, 64])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("bits", [1, 7, 8, 9, 31, 33, 56, 57, 58, 61, 63, 64])
def test_a_signal_at_every_place_of_a_message_decodes_as_cantools_does(bits, big_endian, length):
    chance = random.Random(bits)
    payloads = [chance.randbytes(length), bytes(length), b"\xff" * length]
    for first in range(8 * length - bits + 1):
        start = 8 * (first // 8) + 7 - first % 8 if big_endian else first
        order = "big_endian" if big_endian else "little_endian"
        message = Message(1, "Message", length, [Signal("S", start, bits, order, is_signed=bool(first % 2))])
        assert_equal(message, payloads, Decoder({0: compile_plan([Database([message])])}))


@pytest.mark.shared
@pytest.mark.parametrize("path", shared_data.databases(), ids=lambda path: path.stem)
def test_every_open_database_decodes_random_frames_as_cantools_does(path):
    try:
        database = load(path)
    except DatabaseError:
        with pytest.raises(cantools.database.UnsupportedDatabaseFormatError):
            cantools.database.load_file(path, strict=False)
        return
    chance = random.Random(path.name)
    decoder = Decoder({0: compile_plan([database])})
    for listed in database.messages:
        message = database.get_message_by_frame_id(listed.frame_id, listed.is_extended_frame)  # the last one wins
        payloads = [chance.randbytes(min(64, message.length)) for _ in range(12)]
        payloads += [
            bytes([n % 16]) + payload[1:] for n, payload in enumerate(payloads) if payload
        ]  # small multiplexers
        payloads += [chance.randbytes(chance.randrange(9)) for _ in range(2)]
        assert_equal(message, payloads, decoder)


def test_the_open_databases_are_there_where_they_are_required():
    shared_data.require()
    assert len(shared_data.databases()) == 33
