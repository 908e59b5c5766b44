"""Only an acknowledgement of batches that were sent is kept for the disk, and their number is bounded."""

from agent.formats.up.acks import Ack, Sealed
from agent.telemetry.uplink.late_answers import LATE, LateAnswers

EPOCH = "e" * 32


def ack(seq: int) -> Ack:
    return Ack("vehicle", EPOCH, stored=frozenset({Sealed(seq, b"d" * 16)}))


def test_answered_batches_are_named_until_the_spool_has_recorded_the_answer() -> None:
    late = LateAnswers()
    late.keep(ack(1), [(EPOCH, 1)])
    late.keep(ack(2), [(EPOCH, 2)])
    assert (late.keys, late.oldest, len(late)) == ({(EPOCH, 1), (EPOCH, 2)}, ack(1), 2)
    late.drop_oldest()
    assert late.keys == {(EPOCH, 2)}


def test_an_answer_that_names_no_batch_that_was_sent_keeps_no_batch_from_being_sent() -> None:
    late = LateAnswers()
    late.keep(ack(1), [])
    assert (late.keys, len(late)) == (frozenset(), 0)


def test_a_flood_of_answers_takes_bounded_memory() -> None:
    late = LateAnswers()
    for seq in range(LATE + 5):
        late.keep(ack(seq), [(EPOCH, seq)])
    assert len(late) == LATE
