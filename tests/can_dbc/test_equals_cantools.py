"""The decoder gives the values of cantools, for random databases and for every open database."""

import random
from contextlib import suppress

import cantools.database
import pytest
from cantools.database.can import Database, Message, Signal
from cantools.database.conversion import BaseConversion
from hypothesis import given, settings
from hypothesis import strategies as st

from can_dbc import encodings
from can_dbc.compile import compile_plan
from can_dbc.database import load, parse
from can_dbc.decoder import Decoder
from can_dbc.plan import Match
from tests import shared_data
from tests.can_dbc.oracle import CantoolsCrash, block_of, decoded, expected, messages_of

SCALES = st.sampled_from([1, 1, 1, 2, -1, 10, 0.5, 0.1, -0.25, 1e-7, 1e12, 0, 2**40, -1e300, 1.7e308, 5e-324, -0.0])
OFFSETS = st.sampled_from([0, 0, 0, 1, -40, 0.5, -273.15, 1e9, -(2**53), 1e308, -5e-324, -0.0])
KEYS = st.integers(-4, 20) | st.sampled_from(
    [-1, -128, 255, -(2**31), 2**31 - 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1]
)
TEXTS = st.dictionaries(KEYS, st.sampled_from(["off", "on", "error", "§"]))
SPANS = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 9)), min_size=1, max_size=3)
TYPES = st.booleans()  # whether an identifier is extended
IDS = st.lists(st.integers(-1, 9), min_size=1, max_size=8) | st.integers(0, 9).map(lambda n: list(range(n, 16)))


@st.composite
def conversions(draw, is_float):
    choices = draw(st.none() | TEXTS)
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
def messages(draw, types=TYPES):
    """Draw a message of plain, multiplexed and nested signals, which may overlap, as they do in real files."""
    length = draw(st.sampled_from([1, 2, 3, 7, 8, 8, 8, 9, 12, 17, 64]))
    listed = [draw(signals(f"S{n}", length)) for n in range(draw(st.integers(0, 3)))]
    parents: list[str] = []
    for n in range(draw(st.integers(0, 3))):
        nested = {}
        if parents and draw(st.booleans()):
            nested = {"multiplexer_signal": draw(st.sampled_from(parents)), "multiplexer_ids": draw(IDS)}
        listed.append(draw(multiplexers(f"M{n}", length, **nested)))
        parents.append(f"M{n}")
    for n in range(draw(st.integers(0, 4)) if parents else 0):
        parent = draw(st.sampled_from(parents))
        listed.append(draw(signals(f"C{n}", length, multiplexer_signal=parent, multiplexer_ids=draw(IDS))))
    extended = draw(types)
    can_id = draw(st.integers(0, 0x1FFFFFFF if extended else 0x7FF))
    return Message(can_id, "Message", length, listed, is_extended_frame=extended, strict=False)


@st.composite
def texts(draw):
    """Draw the text of a DBC with extended multiplexing: several multiplexers, nested multiplexers, and ranges."""
    length = draw(st.sampled_from([4, 8, 16, 64]))
    lines, ranges = [], []
    multiplexers_: list[str] = []
    for n in range(draw(st.integers(1, 3))):
        bits = draw(st.integers(1, 5))
        start = draw(st.integers(0, 8 * length - bits))
        parent = draw(st.sampled_from(multiplexers_)) if multiplexers_ else None
        spans = draw(SPANS)
        marker = "M" if parent is None else f"m{spans[0][0]}M"
        lines.append(f' SG_ M{n} {marker} : {start}|{bits}@1+ (1,0) [0|0] "" E')
        if parent is not None:
            ranges.append((f"M{n}", parent, spans))
        multiplexers_.append(f"M{n}")
    for n in range(draw(st.integers(1, 5))):
        bits = draw(st.integers(1, 64 if length > 8 else 16))
        start, order = draw(st.integers(0, 8 * length - bits)), draw(st.sampled_from("01"))
        sign = draw(st.sampled_from("+-"))
        start = 8 * (start // 8) + 7 - start % 8 if order == "0" else start
        factors = draw(st.sampled_from(["1,0", "-1,0", "0.01,-40", "1E-9,1E9", "2,-3"]))
        spans = draw(SPANS)
        lines.append(f' SG_ S{n} m{spans[0][0]} : {start}|{bits}@{order}{sign} ({factors}) [0|0] "u" E')
        ranges.append((f"S{n}", draw(st.sampled_from(multiplexers_)), spans))
    selections = []
    for signal, parent, spans in ranges:
        listed = ", ".join(f"{first}-{first + more}" for first, more in spans)
        selections.append(f"SG_MUL_VAL_ 291 {signal} {parent} {listed};")
    values = [f'VAL_ 291 S0 -1 "minus" 0 "zero" {draw(st.integers(-9, 9))} "some";']
    return "\n".join([f"BO_ 291 Message: {length} E", *lines, "", *selections, *values, ""])


def assert_equal(message, payloads, decoder):
    frames = [(message.frame_id, message.is_extended_frame, payload) for payload in payloads]
    result = decoder.decode(block_of(frames))
    ours = {row: samples for columns in result.columns for row, samples in decoded(columns).items()}
    for row, payload in enumerate(payloads):
        with suppress(CantoolsCrash):  # our decoder does not fail
            assert ours.get(row) == expected(message, payload), (message, payload.hex())
    assert len(ours) + sum(refusal.frames for refusal in result.refusals) == len(payloads)


@given(messages(), st.data())
@settings(max_examples=300, deadline=None)
def test_any_message_decodes_as_cantools_does(message, data):
    size = st.just(message.length) | st.sampled_from([0, message.length - 1, 64])
    payload = size.flatmap(lambda n: st.binary(min_size=n, max_size=n))
    payloads = data.draw(st.lists(payload, min_size=1, max_size=12))
    assert_equal(message, payloads, Decoder({0: compile_plan([Database([message], strict=False)])}))


@given(texts(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_extended_multiplexing_of_a_file_decodes_as_cantools_does(text, data):
    database = parse(text.encode(), "dbc", "random.dbc")
    assert all(": VAL_ has" in note for note in database.notes)  # Some values have two texts.
    (message,) = messages_of(text)
    payload = st.binary(min_size=message.length, max_size=message.length)
    assert_equal(message, data.draw(st.lists(payload, min_size=1, max_size=12)), Decoder({0: compile_plan([database])}))


@given(messages(st.just(True)), st.data())
@settings(max_examples=100, deadline=None)
def test_any_message_of_several_senders_decodes_as_cantools_does(message, data):
    """Priority and source address differ from frame to frame, as in SAE J1939."""
    payload = st.binary(min_size=message.length, max_size=message.length)
    frame = st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 255]), payload)
    sent = data.draw(st.lists(frame, min_size=1, max_size=12))
    plan = compile_plan([Database([message], strict=False)], Match.PGN)
    ids = [message.frame_id & 0x03FFFF00 | priority << 26 | sender for priority, sender, _ in sent]
    result = Decoder({0: plan}).decode(block_of([(n, True, frame[2]) for n, frame in zip(ids, sent, strict=True)]))
    ours = {row: samples for columns in result.columns for row, samples in decoded(columns).items()}
    for row, (_, sender, content) in enumerate(sent):
        with suppress(CantoolsCrash):
            assert ours.get(row) == expected(message, content)
        assert {columns.source_address for columns in result.columns if row in columns.rows} <= {sender}


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
    plan = compile_plan([load(path)])
    try:
        listed = messages_of(encodings.decoded(path.read_bytes(), None, path.name)[0])
    except cantools.database.UnsupportedDatabaseFormatError:
        pytest.skip("cantools refuses this file; tests/can_dbc/dbc_reader has what is read of such files")
    chance = random.Random(path.name)
    decoder = Decoder({0: plan})
    by_key = {(message.frame_id, message.is_extended_frame): message for message in listed}  # the last one is used
    # cantools gives a long name to every signal that has its short name.
    unclear = [note for note in plan.notes if "it is not clear which signal the long name is for" in note]
    doubtful = {name.partition(".")[0] for note in unclear for name in note.split(": ")[2].split(", ")}
    assert by_key.keys() == {(message.can_id, message.extended) for message in plan.messages}
    for message in by_key.values():
        if message.name in doubtful:
            continue
        payloads = [chance.randbytes(min(64, message.length)) for _ in range(12)]
        payloads += [
            bytes([n % 16]) + payload[1:] for n, payload in enumerate(payloads) if payload
        ]  # for multiplexers with few numbers
        payloads += [chance.randbytes(chance.randrange(9)) for _ in range(2)]
        assert_equal(message, payloads, decoder)


def test_the_open_databases_are_there_where_they_are_required():
    shared_data.require()
    assert len(shared_data.databases()) == 33
