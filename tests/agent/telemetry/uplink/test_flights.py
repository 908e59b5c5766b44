"""Test how many batches may wait for an answer, by count, bytes and turn."""

from hypothesis import given
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.flights import START, Flight, Flights
from agent.telemetry.uplink.turns import Turn


def flight(seq: int, size: int = 100, turn: Turn = Turn.LIVE) -> Flight:
    return Flight(Entry(seq, "e", seq, Lane.LIVE, 0, "", size, b"", 0, None, None), Lane.LIVE, turn, 0.0)


def fill(flights: Flights, size: int = 100, turn: Turn = Turn.LIVE, first: int = 1) -> list[int]:
    """Send as many batches as `flights` takes, and return their numbers."""
    seqs = []
    while flights.takes(turn, size) and len(seqs) < 10_000:
        seqs.append(first + len(seqs))
        flights.add(flight(seqs[-1], size, turn))
    return seqs


def confirm(flights: Flights, seqs: list[int]) -> None:
    for seq in seqs:
        flights.confirm(("e", seq), 1.0, 21.0)


def test_the_window_opens_with_the_answers_and_no_further_than_the_settings_say() -> None:
    flights = Flights(in_flight=START + 3, receive_maximum=1_000, unconfirmed_bytes=10**9)
    assert len(fill(flights)) == START
    for answers, room in ((2, 2), (10, 3)):
        for _ in range(answers):
            flights.grow()
        assert flights.room() == room


def test_what_the_broker_has_makes_room_for_bytes_but_not_in_the_window() -> None:
    flights = Flights(in_flight=8, receive_maximum=1_000, unconfirmed_bytes=300)
    seqs = fill(flights)
    assert len(seqs) == 3
    confirm(flights, seqs)
    assert len(fill(flights, first=4)) == 3
    confirm(flights, [4, 5, 6])
    assert len(fill(flights, first=7)) == 2
    assert flights.room() == 0


def test_a_batch_larger_than_all_bytes_goes_alone() -> None:
    flights = Flights(in_flight=8, receive_maximum=1_000, unconfirmed_bytes=64)
    for turn in Turn:
        assert fill(flights, 1_000, turn) == [1]
        flights.remove(("e", 1))


def test_the_brokers_receive_maximum_bounds_what_it_has_not_confirmed() -> None:
    flights = Flights(in_flight=8, receive_maximum=2, unconfirmed_bytes=10**9)
    assert fill(flights) == [1, 2]
    confirm(flights, [1])
    assert flights.room() == 1


def test_the_backlog_leaves_bytes_for_fresh_data() -> None:
    flights = Flights(in_flight=8, receive_maximum=1_000, unconfirmed_bytes=800)
    assert len(fill(flights, 200, Turn.BACKLOG)) == 3
    assert flights.takes(Turn.LIVE, 200)
    assert not flights.takes(Turn.AGAIN, 200)


def test_it_is_hungry_once_half_of_it_is_confirmed() -> None:
    flights = Flights(in_flight=8, receive_maximum=1_000, unconfirmed_bytes=800)
    seqs = fill(flights)
    assert not flights.is_hungry
    confirm(flights, seqs[:4])
    assert flights.is_hungry


@given(
    in_flight=st.integers(1, 20),
    receive_maximum=st.integers(1, 20),
    limit=st.integers(1, 2_000),
    script=st.lists(
        st.tuples(
            st.sampled_from(["send", "confirm", "remove", "grow"]),
            st.integers(1, 30),
            st.integers(1, 900),
            st.sampled_from(Turn),
        )
    ),
)
def test_the_limits_hold_whatever_happens(
    in_flight: int, receive_maximum: int, limit: int, script: list[tuple[str, int, int, Turn]]
) -> None:
    flights = Flights(in_flight, receive_maximum, limit)
    for action, seq, size, turn in script:
        match action:
            case "send" if flights.takes(turn, size):
                flights.add(flight(seq, size, turn))
            case "confirm":
                flights.confirm(("e", seq), 1.0, 2.0)
            case "remove":
                flights.remove(("e", seq))
            case "grow":
                flights.grow()
        waiting = [each for each in flights if not each.confirmed]
        assert len(flights.keys) <= in_flight
        assert len(waiting) <= receive_maximum
        assert len(waiting) <= 1 or sum(each.entry.size_bytes for each in waiting) <= limit
        assert sum(each.turn.beside for each in flights) <= max(1, in_flight - 1)
        assert flights.room() <= max(0, in_flight - len(flights.keys))


def test_another_size_of_the_window_leaves_what_is_in_flight() -> None:
    flights = Flights(in_flight=8, receive_maximum=1_000, unconfirmed_bytes=10**9)
    seqs = fill(flights)
    flights.set_in_flight(2)
    assert (len(flights.keys), flights.room()) == (8, 0)
    for seq in seqs[:7]:
        flights.remove(("e", seq))
        flights.grow()
    assert flights.room() == 1
    flights.set_in_flight(4)
    flights.grow()
    assert flights.room() == 2
