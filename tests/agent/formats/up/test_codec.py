from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.up import decode, encode
from agent.formats.up.catalogue import UnknownCatalogue
from agent.formats.up.columns import ColumnGroup, Event
from can_dbc.values import Kind
from tests.agent.formats.up.make_vectors import CATALOGUE, SENDERS, TRIGGERS
from tests.agent.formats.up.make_vectors import WINDOWS as VECTORS
from tests.agent.formats.up.windows import CLOCK, WINDOWS, encode_all, plain, samples, signal, window

FOLDER = Path(__file__).parent / "vectors"


@given(WINDOWS)
def test_a_window_comes_back_bit_for_bit(original):
    assert plain(decode.decode_window(encode.encode_window(original))) == plain(original)


@given(WINDOWS)
def test_equal_windows_give_equal_bytes(original):
    again = decode.decode_window(encode.encode_window(original))
    assert encode.encode_window(again) == encode.encode_window(original)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_committed_vector_decodes_for_ever(name):
    assert plain(decode.decode_window((FOLDER / f"{name}.batch").read_bytes())) == plain(VECTORS[name])


def test_a_committed_vector_with_senders_decodes_for_ever():
    assert plain(decode.decode_window((FOLDER / "senders.batch").read_bytes())) == plain(SENDERS)


def test_a_committed_vector_with_triggers_decodes_for_ever():
    assert plain(decode.decode_window((FOLDER / "triggers.batch").read_bytes())) == plain(TRIGGERS)


def test_groups_without_triggers_cost_no_byte_for_them():
    assert not _message(encode.encode_window(VECTORS["kinds"])).columns.triggers
    assert list(_message(encode.encode_window(TRIGGERS)).columns.triggers) == [1, 0, 2**53 - 1]


def test_groups_without_senders_cost_no_byte_for_them():
    assert not _message(encode.encode_window(VECTORS["kinds"])).columns.senders
    assert list(_message(encode.encode_window(SENDERS)).columns.senders) == [1, 256, 0]


def test_a_window_of_too_many_signals_is_cut_though_senders_multiplied_them():
    infos = tuple(signal(f"M.S{i}") for i in range(300))
    raw = np.arange(600)[:, None].reshape(300, 2)
    many = window(*(ColumnGroup(np.array([1, 5]), infos, raw, ({},) * 300, sender) for sender in range(256)))
    bodies = encode_all(many, 1_000_000)
    assert len(bodies) == 4
    assert samples(decode.decode_window(body) for body in bodies) == samples([many])


def test_a_committed_catalogue_and_the_batch_that_refers_to_it_decode_for_ever():
    window, carried = decode.decode_batch((FOLDER / "catalogue.batch").read_bytes())
    assert (window.campaign, window.revision, window.groups) == (CATALOGUE.campaign, CATALOGUE.revision, ())
    assert (carried.digest, carried.described) == (CATALOGUE.digest, CATALOGUE.described)
    assert carried.digest.hex() == "b271fbc2a5300b9c2744088e71bb986b"
    body = (FOLDER / "referring.batch").read_bytes()
    assert plain(decode.decode_window(body, {carried.digest: carried}.get)) == plain(VECTORS["kinds"])


def test_there_is_a_vector_for_every_kind_and_every_width():
    groups = [group for example in VECTORS.values() for group in example.groups]
    assert {info.kind for group in groups for info in group.signals} == set(Kind)
    message = _message((FOLDER / "kinds.batch").read_bytes())
    assert set(message.columns.value.widths) == {0, 1, 2, 4, 8}


def test_equal_times_of_several_groups_travel_once():
    times = np.array([1, 7, 30])
    first = ColumnGroup(times, (signal("A.x"),), np.array([[1, 2, 3]]), ({},))
    second = ColumnGroup(times.copy(), (signal("B.y"),), np.array([[4, 5, 9]]), ({},))
    message = _message(encode.encode_window(window(first, second)))
    assert list(message.columns.counts) == [3]
    assert list(message.columns.times) == [0, 0]


def test_times_that_differ_between_equal_ends_do_not_become_one():
    times = [np.array([0, 10_000, 30_000]), np.array([0, 20_000, 30_000])]
    original = window(*(ColumnGroup(t_us, (signal("M.a"),), np.zeros((1, 3), np.int64), ({},)) for t_us in times))
    assert plain(decode.decode_window(encode.encode_window(original))) == plain(original)


def test_signals_that_do_not_change_cost_next_to_nothing():
    times = np.arange(3_000) * 10_000
    infos = tuple(signal(f"Message.Signal{i}") for i in range(100))
    raw = np.repeat(np.arange(100)[:, None], len(times), axis=1)
    body = encode.encode_window(window(ColumnGroup(times, infos, raw, ({},) * 100)))
    assert len(body) < 1_000  # for 300,000 samples


def test_a_body_says_its_size():
    body = encode.encode_window(window())
    assert zstandard.get_frame_parameters(body).content_size == len(zstandard.decompress(body))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_untrusted_and_nothing_else(body):
    _decodes_or_is_untrusted(body)


@given(st.binary(max_size=300))
def test_arbitrary_compressed_bytes_are_untrusted_and_nothing_else(body):
    _decodes_or_is_untrusted(zstandard.compress(body))


@settings(max_examples=300)
@given(WINDOWS, st.data())
def test_a_mutated_body_decodes_or_is_untrusted_and_nothing_else(original, data):
    body = bytearray(zstandard.decompress(encode.encode_window(original)))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        action = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if action == "set":
            body[position] = data.draw(st.integers(0, 255))
        elif action == "cut" and len(body) > position + 1:
            del body[position : position + data.draw(st.integers(1, 4))]
        else:
            body[position:position] = data.draw(st.binary(max_size=4))
        if not body:
            break
    _decodes_or_is_untrusted(zstandard.compress(bytes(body)))


def test_a_compression_bomb_is_untrusted_before_it_is_unpacked():
    with pytest.raises(Untrusted, match="exceeds"):
        decode.decode_window(zstandard.compress(bytes(decode.MAX_BODY_BYTES + 1)))


def test_a_body_that_hides_its_size_is_untrusted():
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(b"\x08\x01")
    with pytest.raises(Untrusted, match="exceeds"):
        decode.decode_window(hidden)


def test_counts_that_no_bytes_back_are_untrusted_before_memory_is_taken():
    one = pb.Deltas(bases=[0], steps=[1], widths=b"\0")
    body = pb.TelemetryBatch(
        format=1,
        signals=pb.SignalTable(
            names="A.x", strings=[""], buses=[0], types=[0], units=[0], kinds=b"\x01", bits=b"\x08",
            scales=bytes(8), offsets=bytes(8), texts=[0], text_counts=[0],
        ),
        columns=pb.Columns(sizes=[1], counts=[2**32 - 1], unit=1, time=one, value=one),
    )  # fmt: skip
    with pytest.raises(Untrusted, match=f"more than {decode.MAX_VALUES} values"):
        decode.decode_window(zstandard.compress(body.SerializeToString()))
    body.columns.counts[0] = 5
    assert decode.decode_window(zstandard.compress(body.SerializeToString())).samples == 5


@pytest.mark.parametrize("format_", [0, 2, 2**32 - 1])
def test_a_body_of_another_format_is_told_apart_and_says_what_to_update(format_):
    message = _message(encode.encode_window(VECTORS["kinds"]))
    message.format = format_
    with pytest.raises(decode.UnknownFormat, match=rf"format {format_}, .* reads format 1: update the receiver"):
        decode.decode_window(zstandard.compress(message.SerializeToString()))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda m: m.columns.sizes.pop(), "differ"),
        (lambda m: m.columns.sizes.__setitem__(0, 0), "no signals"),
        (lambda m: m.columns.sizes.__setitem__(0, 7), "number of signals"),
        (lambda m: m.columns.times.__setitem__(0, 9), "time column"),
        (lambda m: m.columns.signals.append(0), "number of signals"),
        (lambda m: m.columns.signals.extend([1] * 9), "no description"),
        (lambda m: m.columns.unwrapped.append(9), "unwrapped"),
        (lambda m: m.columns.senders.append(1), "differ"),
        (lambda m: m.columns.triggers.append(1), "differ"),
        (lambda m: m.columns.triggers.extend([1, 2**53]), "trigger"),
        (lambda m: m.columns.senders.extend([1, 257]), "source address"),
        (lambda m: setattr(m.columns, "unit", 0), "unit is out of range"),
        (lambda m: m.signals.buses.append(0), "differ"),
        (lambda m: m.signals.types.__setitem__(0, 99), "an entry"),
        (lambda m: setattr(m.signals, "kinds", b"\x09" * len(m.signals.kinds)), "kind"),
        (lambda m: setattr(m.signals, "bits", b"\x41" * len(m.signals.bits)), "1 to 64 bits"),
        (lambda m: m.signals.text_counts.append(3), "texts"),
        (lambda m: setattr(m.signals, "scales", b"123"), "multiple of 8"),
        (lambda m: setattr(m.columns.time, "residuals", b"123"), "residuals"),
        (lambda m: setattr(m.columns.value, "residuals", b"1"), "residuals"),
        (lambda m: m.columns.value.steps.pop(), "differ"),
        (lambda m: setattr(m.signals, "names", ".x\n" + m.signals.names), "abbreviated"),
        (lambda m: setattr(m, "catalogue", b"short"), "digest"),
        (lambda m: setattr(m, "window", b"short"), "id of its window"),
        (lambda m: setattr(m, "carried", b"\x80"), "catalogue"),
    ],
)
def test_each_contradiction_in_a_body_is_untrusted_and_named(damage, reason):
    message = _message((FOLDER / "kinds.batch").read_bytes())
    damage(message)
    with pytest.raises(Untrusted, match=reason):
        decode.decode_window(zstandard.compress(message.SerializeToString()))


@settings(max_examples=300)
@given(st.sampled_from(["kinds", "referring", "catalogue"]), st.data())
def test_a_mutated_vector_decodes_or_is_untrusted_and_nothing_else(name, data):
    body = bytearray(zstandard.decompress((FOLDER / f"{name}.batch").read_bytes()))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    _decodes_or_is_untrusted(zstandard.compress(bytes(body)), {CATALOGUE.digest: CATALOGUE}.get)


def test_a_clock_quality_and_an_event_value_of_tomorrow_do_not_stop_a_receiver_of_today():
    message = _message(encode.encode_window(window(events=[Event(1, "start", {"a": 1})])))
    message.clock.quality = 77
    message.events[0].fields.append(pb.EventField(name="tomorrow"))
    read = decode.decode_window(zstandard.compress(message.SerializeToString()))
    assert read.clock.quality.name == "UNSYNCHRONISED"
    assert dict(read.events[0].fields) == {"a": 1}
    assert read.clock.boot_id == CLOCK.boot_id


@pytest.mark.parametrize("name", ["", ".x", "A.x\ny", "A." + "x" * 500])
def test_a_signal_name_that_could_not_be_told_apart_again_is_refused_at_the_vehicle(name):
    with pytest.raises(ValueError, match="signal name"):
        encode.encode_window(window(ColumnGroup(np.array([1]), (signal(name),), np.array([[1]]), ({},))))


def _noisy(signals=20, rows=2_000):
    random = np.random.default_rng(7)
    infos = tuple(signal(f"Noise.Signal{i}", bits=16) for i in range(signals))
    raw = random.integers(0, 2**16, (signals, rows))
    return ColumnGroup(np.arange(rows) * 5_000, infos, raw, ({},) * signals)


def test_a_large_window_becomes_few_batches_of_limited_size_that_hold_every_sample_once():
    original = window(_noisy(), events=[Event(3, "start", {})])
    bodies = encode_all(original, 20_000)
    least = len(encode.encode_window(original)) / 20_000
    assert max(map(len, bodies)) <= 20_000
    assert least < len(bodies) <= least * 1.5 + 2
    parts = [decode.decode_window(body) for body in bodies]
    assert samples(parts) == samples([original])
    assert [event for part in parts for event in part.events] == list(original.events)
    assert encode_all(original, 20_000) == bodies


def test_a_small_window_is_one_batch_as_it_is():
    original = window(_noisy(2, 50))
    assert encode_all(original, 20_000) == [encode.encode_window(original)]


@settings(max_examples=50)
@given(WINDOWS, st.integers(600, 1_500))
def test_any_window_is_cut_into_batches_of_limited_size_without_loss(original, max_bytes):
    parts = [decode.decode_window(body) for body in encode_all(original, max_bytes)]
    assert samples(parts) == samples([original])
    assert sum(len(part.events) for part in parts) == len(original.events)


def test_more_values_than_a_batch_may_hold_are_cut_even_where_they_compress_to_nothing(monkeypatch):
    monkeypatch.setattr(encode, "MAX_VALUES", 1_000)
    times = np.arange(900)
    original = window(ColumnGroup(times, (signal("A.x"),), np.zeros((1, 900), np.int64), ({},)))
    with pytest.raises(ValueError, match="use encode_fragments"):
        encode.encode_window(original)
    bodies = encode_all(original, 60_000)
    assert len(bodies) == 2
    assert samples(map(decode.decode_window, bodies)) == samples([original])


def test_a_sample_that_fits_no_batch_is_an_error():
    with pytest.raises(ValueError, match="single sample"):
        encode_all(window(ColumnGroup(np.array([1]), (signal("A.x"),), np.array([[1]]), ({},))), 40)


def _message(body):
    message = pb.TelemetryBatch()
    message.ParseFromString(zstandard.decompress(body))
    return message


def _decodes_or_is_untrusted(body, find=decode.no_catalogues):
    try:
        window, _ = decode.decode_batch(body, find)
    except (Untrusted, UnknownCatalogue):
        return
    assert plain(decode.decode_window(encode.encode_window(window))) == plain(window)  # it can be encoded again
