from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.formats.up import catalogue as catalogues
from agent.formats.up.catalogue import Catalogue, UnknownCatalogue, catalogue_of, read_catalogue
from agent.formats.up.columns import ColumnGroup
from agent.formats.up.cut import cut
from agent.formats.up.decode import decode_window
from agent.formats.up.delta import MalformedError
from agent.formats.up.encode import encode_window
from can_dbc.values import Kind
from tests.agent.formats.up.windows import INT64, SIGNALS, WINDOWS, encode_all, plain, samples, signal, window

_TABLES = st.dictionaries(INT64 | st.integers(0, 3), st.text(max_size=5), max_size=4)
_DESCRIBED = st.lists(st.tuples(SIGNALS, _TABLES), max_size=8)


@given(_DESCRIBED)
def test_a_catalogue_comes_back_under_its_digest(described):
    made = catalogue_of("c", "r", described)
    read = read_catalogue(made.content)
    assert (read.digest, read.campaign, read.revision) == (made.digest, "c", "r")
    assert repr(read.described) == repr(tuple((info, dict(sorted(table.items()))) for info, table in made.described))


@settings(max_examples=300)
@given(WINDOWS, st.data())
def test_a_window_that_refers_comes_back_bit_for_bit_whatever_the_catalogue_says(original, data):
    infos = [info for group in original.groups for info in group.signals]
    texts = [table for group in original.groups for table in group.tables]
    chosen = [data.draw(st.sampled_from(["left out", "as it is", "more", "other"])) for _ in infos]
    described = [
        (info, {"as it is": dict(table), "more": {**table, 9: "nine"}, "other": {0: "zero"}}[how])
        for info, table, how in zip(infos, texts, chosen, strict=True)
        if how != "left out"
    ]
    catalogue = catalogue_of(original.campaign, original.revision, described)
    body = encode_window(original, catalogue)
    assert plain(decode_window(body, {catalogue.digest: catalogue}.get)) == plain(original)
    assert encode_window(original, read_catalogue(catalogue.content)) == body


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_a_catalogue_and_nothing_else(content):
    try:
        found = read_catalogue(content)
    except MalformedError:
        return
    assert isinstance(found, Catalogue)


def test_a_batch_whose_catalogue_is_not_here_names_it_and_loses_nothing():
    original = _window()
    catalogue = _catalogue()
    body = encode_window(original, catalogue)
    with pytest.raises(UnknownCatalogue) as missing:
        decode_window(body)
    assert missing.value.digest == catalogue.digest
    assert plain(decode_window(body, {catalogue.digest: catalogue}.get)) == plain(original)


def test_a_reference_costs_a_few_bytes_where_descriptions_cost_kilobytes():
    infos = tuple(signal(f"Message{i // 8}.Signal{i}", unit="km/h", scale=0.1 * i) for i in range(400))
    groups = [
        ColumnGroup(np.array([0, 10]), infos[i : i + 8], np.zeros((8, 2), np.int64), ({},) * 8)
        for i in range(0, 400, 8)
    ]
    original = window(*groups)
    catalogue = catalogue_of(original.campaign, original.revision, [(info, {}) for info in infos])
    assert len(encode_window(original)) > 1_500
    assert len(encode_window(original, catalogue)) < 200


def test_fragments_of_a_cut_window_all_refer():
    original = _window(rows=4_000)
    catalogue = _catalogue()
    bodies = encode_all(original, 3_000, catalogue)
    assert len(bodies) > 1
    for body in bodies:
        with pytest.raises(UnknownCatalogue):
            decode_window(body)
    assert samples(decode_window(body, {catalogue.digest: catalogue}.get) for body in bodies) == samples([original])


@given(WINDOWS.filter(lambda window: window.groups), st.data())
def test_numbered_signals_give_the_bytes_that_comparing_all_descriptions_gives(original, data):
    listed = [entry for group in original.groups for entry in zip(group.signals, group.tables, strict=True)]
    catalogue = catalogue_of(original.campaign, original.revision, listed[: data.draw(st.integers(0, len(listed)))])
    first, groups = 0, []
    for group in original.groups:
        groups.append(replace(group, numbers=np.arange(first, first + len(group.signals))))
        first += len(group.signals)
    numbered = replace(original, groups=tuple(groups))
    again = decode_window(encode_window(numbered, catalogue), {catalogue.digest: catalogue}.get)
    assert plain(again) == plain(original)
    ambiguous = len({catalogues._key(info) for info, _ in listed}) < len(listed)
    if not ambiguous:
        assert encode_window(numbered, catalogue) == encode_window(original, catalogue)


def test_fragments_keep_the_numbers_of_their_signals():
    infos = signal("M.a"), signal("M.b"), signal("M.c")
    catalogue = catalogue_of("drive", "0123456789ab", [(info, {}) for info in infos])
    chosen = ColumnGroup(np.array([5]), infos[1:], np.array([[1], [2]]), ({}, {}), None, np.array([1, 2]))
    for fragment, info in zip(cut(window(chosen), 2), infos[1:], strict=True):
        (group,) = fragment.groups
        assert (group.signals, catalogue.entries_of([group]).tolist()) == ((info,), [infos.index(info)])


def test_another_campaign_or_revision_never_refers():
    for campaign, revision in (("other", "0123456789ab"), ("drive", "ffffffffffff")):
        catalogue = catalogue_of(campaign, revision, _catalogue().described)
        assert plain(decode_window(encode_window(_window(), catalogue))) == plain(_window())


def test_signals_that_only_their_value_tables_tell_apart_describe_themselves():
    twin = signal("M.Twin")
    catalogue = catalogue_of("drive", "0123456789ab", [(twin, {0: "a"}), (twin, {0: "b"}), (signal("M.x"), {})])
    assert [info.name for info, _ in catalogue.described] == ["M.x"]


def test_zero_and_minus_zero_are_different_descriptions():
    plus, minus = (
        signal("F.x", kind=Kind.FLOAT32, bits=32, offset=0.0),
        signal("F.x", kind=Kind.FLOAT32, bits=32, offset=-0.0),
    )
    catalogue = catalogue_of("c", "r", [(plus, {}), (minus, {})])
    group = ColumnGroup(np.array([0]), (minus,), np.array([[0]]), ({},))
    assert catalogue.entries_of([group]).tolist() == [1]


def test_a_catalogue_beyond_its_limit_is_not_read(monkeypatch):
    content = _catalogue().content
    monkeypatch.setattr(catalogues, "MAX_CATALOGUE_BYTES", len(content) - 1)
    with pytest.raises(MalformedError, match="exceeds"):
        read_catalogue(content)


def _catalogue():
    described = [(signal("M.a", bits=16), {}), (signal("M.gear", bits=4), {0: "P", 1: "R", 2: "N"})]
    return catalogue_of("drive", "0123456789ab", described)


def _window(rows=5):
    raw = np.array([np.random.default_rng(1).integers(0, 2**16, rows), np.arange(rows) % 2])
    signals = (signal("M.a", bits=16), signal("M.gear", bits=4))
    return window(ColumnGroup(np.arange(rows) * 10_000, signals, raw, ({}, {0: "P", 1: "R"})))
