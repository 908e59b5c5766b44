"""The ledger explains every sequence number exactly once."""

from hypothesis import given
from hypothesis import strategies as st

from agent.formats.up.ledger import Record, Span, State, explain, ranges


def lost(first: int, last: int, batches: int | None = None, reason: str = "evicted_quota") -> Record:
    return Record(reason, "live", last - first + 1 if batches is None else batches, 0, first, last)


def test_what_is_neither_here_nor_reported_is_open() -> None:
    assert explain(6, {State.STORED: [(1, 2), (5, 5)]}, []) == [
        Span(1, 2, State.STORED),
        Span(3, 4, State.OPEN),
        Span(5, 5, State.STORED),
        Span(6, 6, State.OPEN),
    ]


def test_a_reported_range_is_lost_with_its_reason() -> None:
    record = lost(3, 4)
    assert explain(5, {State.STORED: [(1, 2), (5, 5)]}, [record])[1] == Span(3, 4, State.LOST, record)


def test_a_batch_that_arrived_although_it_was_given_up_is_stored() -> None:
    record = lost(2, 4)
    assert explain(4, {State.STORED: [(1, 1), (3, 3)]}, [record]) == [
        Span(1, 1, State.STORED),
        Span(2, 2, State.LOST, record),
        Span(3, 3, State.STORED),
        Span(4, 4, State.LOST, record),
    ]


def test_a_merged_record_explains_as_many_as_it_counts_and_says_that_it_is_not_exact() -> None:
    exact, merged = lost(4, 4, reason="corrupt"), lost(2, 8, batches=2)
    spans = explain(8, {State.STORED: [(1, 1), (6, 8)]}, [merged, exact])
    assert spans == [
        Span(1, 1, State.STORED),
        Span(2, 3, State.LOST, merged, exact=False),
        Span(4, 4, State.LOST, exact),
        Span(5, 5, State.OPEN),
        Span(6, 8, State.STORED),
    ]


def test_a_lost_index_explains_whatever_else_is_missing() -> None:
    record = Record("index_damaged")
    assert explain(2, {State.STORED: [(2, 2)]}, [record])[0] == Span(1, 1, State.LOST, record, exact=False)


def test_records_without_numbers_explain_none() -> None:
    assert explain(1, {}, [Record("bus_overflow", batches=0), Record("memory_full", batches=3)]) == [
        Span(1, 1, State.OPEN)
    ]


@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_the_numbers_and_nothing_else(numbers: set[int]) -> None:
    assert [n for first, last in ranges(numbers) for n in range(first, last + 1)] == sorted(numbers)


@given(
    st.integers(1, 60),
    st.sets(st.integers(1, 60)),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))),
)
def test_every_number_lies_in_exactly_one_span(last: int, stored: set[int], said: list[tuple[int, int, int]]) -> None:
    here = {number for number in stored if number <= last}
    records = [lost(first, first + width - 1, min(batches, width)) for first, width, batches in said]
    spans = explain(last, {State.STORED: ranges(here)}, records)
    assert [n for span in spans for n in range(span.first, span.last + 1)] == list(range(1, last + 1))
    assert {n for s in spans if s.state is State.STORED for n in range(s.first, s.last + 1)} == here
    for record in records:
        assert sum(span.batches for span in spans if span.record is record) <= record.batches
