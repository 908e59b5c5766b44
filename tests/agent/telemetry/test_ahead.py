"""What the uplink keeps in mind of the spool."""

from collections.abc import Iterable

from agent.formats.topics import Lane
from agent.telemetry.ahead import AHEAD, KEPT_S, KINDS, Ahead, Kind
from agent.telemetry.spool_batch import Entry

EVENTS = Kind(Lane.EVENTS, None)


def entries(seqs: Iterable[int]) -> list[Entry]:
    return [Entry(seq, "e", seq, Lane.EVENTS, 0, "", 10, b"", 1, None, None) for seq in seqs]


def keys(*seqs: int) -> set[tuple[str, int]]:
    return {("e", seq) for seq in seqs}


def test_the_spool_is_asked_once_for_many_looks() -> None:
    ahead = Ahead()
    assert ahead.lacks(EVENTS, 1, set(), 0.0)
    ahead.put(EVENTS, entries(range(AHEAD)), 0.0)
    sent = 0
    while not ahead.lacks(EVENTS, 4, set(), 0.5):
        chosen = ahead.get(EVENTS, 4, set())
        assert [entry.seq for entry in chosen] == [*range(sent, sent + 4)]
        ahead.sent({entry.key for entry in chosen})
        sent += 4
    assert sent == AHEAD


def test_what_is_busy_is_passed_over() -> None:
    ahead = Ahead()
    ahead.put(EVENTS, entries(range(AHEAD)), 0.0)
    assert [entry.seq for entry in ahead.get(EVENTS, 2, keys(0, 2))] == [1, 3]
    assert ahead.lacks(EVENTS, 2, keys(*range(1, AHEAD)), 0.0)


def test_the_spool_is_not_asked_again_for_what_it_does_not_have() -> None:
    ahead = Ahead()
    ahead.put(EVENTS, entries([7]), 0.0)
    assert not ahead.lacks(EVENTS, 4, keys(7), 0.5)
    assert ahead.get(EVENTS, 4, keys(7)) == []
    assert [entry.seq for entry in ahead.get(EVENTS, 4, set())] == [7]


def test_nothing_is_kept_for_long() -> None:
    ahead = Ahead()
    ahead.put(EVENTS, [], 0.0)
    assert ahead.lacks(EVENTS, 1, set(), KEPT_S)


def test_every_lane_is_sealed_for_some_lane_and_travels_in_one() -> None:
    assert KINDS.keys() == set(Lane)
    kinds = [kind for of in KINDS.values() for kind in of]
    assert len(kinds) == len(set(kinds))
    assert {kind.lane for kind in kinds} == set(Lane)
