"""Compare the inbox with a simple model: a set of batches, and groups that are unfinished."""

import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.up.seal import digest_of
from fleet.lake.batch_key import BatchKey
from fleet.receiving.database import Database
from fleet.receiving.inbox import Inbox
from fleet.receiving.known_batches import SCHEMA, KnownBatches
from fleet.receiving.pending_batches import SealedBatch

EPOCH = "e" * 32


def key(seq: int, vehicle: str = "v1") -> BatchKey:
    return BatchKey(vehicle, EPOCH, seq, digest_of(b"sealed %d" % seq))


def other(seq: int) -> BatchKey:
    """Return the key of another batch with the number of `key(seq)`."""
    return BatchKey("v1", EPOCH, seq, digest_of(b"other %d" % seq))


def sealed(*seqs: int) -> list[SealedBatch]:
    return [SealedBatch(key(seq), b"sealed %d" % seq, seq) for seq in seqs]


def open_inbox(path: Path, share: str = "0-15", known: Iterable[BatchKey] = ()) -> Inbox:
    inbox = Inbox.open(path / "receiver.db", share=share)
    with inbox.transaction():
        inbox.known.learn(known)
    return inbox


def test_batches_out_of_order_all_get_rising_numbers(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path)
    numbers = []
    for seq in (1, 3, 2):
        taken = inbox.take(sealed(seq))
        assert taken.commit is not None
        numbers.append(taken.commit.number)
        inbox.finish(taken.commit.number)
    assert numbers == [1, 2, 3]


def test_a_batch_twice_in_a_group_is_taken_once(tmp_path: Path) -> None:
    taken = open_inbox(tmp_path).take(sealed(1, 1, 2))
    assert taken.commit is not None
    assert [batch.key.seq for batch in taken.commit.batches] == [1, 2]
    assert taken.stored == taken.held == ()


def test_what_was_taken_and_not_finished_comes_back_under_its_number_with_its_bytes(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path)
    first = inbox.take(sealed(2, 1)).commit
    assert first is not None
    inbox.close()
    inbox = open_inbox(tmp_path)
    assert inbox.undone() == [first]
    inbox.finish(first.number)
    assert inbox.undone() == []
    assert inbox.take(sealed(1)).stored == (key(1),)


def test_epochs_are_many_and_come_in_no_order(tmp_path: Path) -> None:
    """Each window that a crash left open sends its checkpoints under an epoch of its own."""
    inbox = open_inbox(tmp_path)
    epochs = [f"{number * 7919 % 101:032x}" for number in range(1, 101)]
    batches = [
        SealedBatch(BatchKey("v1", epoch, seq, digest_of(b"%s %d" % (epoch.encode(), seq))), b"checkpoint", 1)
        for epoch in epochs
        for seq in (1, 2)
    ]
    commit = inbox.take(batches).commit
    assert commit is not None
    assert commit.batches == tuple(batches)
    inbox.finish(commit.number)
    again = inbox.take([*reversed(batches), *sealed(1)])
    assert again.stored == tuple(batch.key for batch in reversed(batches))
    assert again.commit is not None
    assert again.commit.batches == tuple(sealed(1))


def test_finished_batches_leave_no_bytes_behind(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path)
    commit = inbox.take(sealed(*range(1, 100))).commit
    assert commit is not None
    inbox.finish(commit.number)
    with sqlite3.connect(tmp_path / "receiver.db") as database:
        assert database.execute("SELECT count(*) FROM pending").fetchone() == (0,)
        assert database.execute("SELECT first, last FROM known").fetchall() == [(1, 99)]


def test_receivers_of_different_shares_number_apart_and_never_take_each_others_batches(tmp_path: Path) -> None:
    one, other = open_inbox(tmp_path, "0-7"), open_inbox(tmp_path, "8-15")
    commit = one.take(sealed(1)).commit
    assert commit is not None
    taken = other.take(sealed(1, 2))
    assert taken.held == (key(1),)
    assert taken.commit is not None
    assert [batch.key.seq for batch in taken.commit.batches] == [2]
    assert one.app_id != other.app_id
    assert one.undone() == [commit]
    one.finish(commit.number)
    assert other.take(sealed(1)).stored == (key(1),)


def test_a_share_is_served_by_one_receiver_at_a_time(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path)
    with pytest.raises(Permanent, match="another receiver serves partitions 0-15"):
        open_inbox(tmp_path)
    inbox.close()
    open_inbox(tmp_path).close()


def test_a_receiver_whose_share_is_being_adopted_waits_for_it(tmp_path: Path) -> None:
    crashed = open_inbox(tmp_path, "0-7")
    commit = crashed.take(sealed(1)).commit
    crashed.close()
    adopter = open_inbox(tmp_path, "8-15")
    adopting = adopter.adopt()
    held = next(adopting)
    assert held.undone() == [commit]
    with ThreadPoolExecutor() as threads:
        opening = threads.submit(open_inbox, tmp_path, "0-7")
        time.sleep(0.2)
        assert not opening.done()
        adopting.close()
        opening.result(5.0).close()


def test_a_new_inbox_knows_what_the_lake_has_and_gets_a_new_name(tmp_path: Path) -> None:
    first = open_inbox(tmp_path)
    first.close()
    (tmp_path / "receiver.db").unlink()
    second = open_inbox(tmp_path, known=(key(2), key(1), key(7)))
    assert second.app_id != first.app_id
    assert second.take(sealed(1, 2, 3, 7)).stored == (key(1), key(2), key(7))


@pytest.mark.parametrize("format_", [-1, 1, 99])
def test_an_inbox_of_another_format_is_refused_with_the_remedy(tmp_path: Path, format_: int) -> None:
    open_inbox(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as database:
        database.execute(f"PRAGMA user_version = {format_}")
    with pytest.raises(Permanent, match=rf"receiver\.db has format {format_}, .* reads format 2\. .* move it away"):
        open_inbox(tmp_path)


def test_a_file_that_is_no_inbox_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "receiver.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Permanent, match="move the file away"):
        open_inbox(tmp_path)


def test_only_the_newest_digests_are_kept_and_older_batches_are_asked_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "known.db")) as raw:
        raw.executescript(SCHEMA)
    database = Database.open(tmp_path / "known.db")
    known = KnownBatches(database, recent=3)
    with database.transaction():
        for seq in range(1, 6):
            assert known.add([key(seq)]) == []
        assert known.add([other(5), other(6), other(4)]) == [other(5)]  # an epoch forks once
    assert [seq for seq in range(1, 6) if known.has_recent(key(seq))] == []
    assert all(known.has_recent(other(seq)) for seq in (4, 5, 6))
    assert [seq for seq in range(1, 9) if known.has_number(key(seq))] == [1, 2, 3, 4, 5, 6]


def test_another_batch_of_a_known_number_is_taken_unless_the_lake_has_it(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path, known=(key(1),))
    forked = SealedBatch(other(1), b"other", 1)
    assert inbox.unsure([*sealed(1, 2), forked, forked]) == [other(1)]
    assert inbox.take([forked], in_lake=[other(1)]).stored == (other(1),)
    taken = inbox.take([forked, *sealed(1)])
    assert (taken.forking, taken.stored) == ((other(1),), (key(1),))
    assert taken.commit is not None
    assert taken.commit.batches == (forked,)
    assert inbox.unsure([forked]) == []
    assert inbox.take([forked]).held == (other(1),)
    inbox.finish(taken.commit.number)
    assert inbox.take([forked]).stored == (other(1),)


groups = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), max_size=12)


@settings(max_examples=60, deadline=None)
@given(groups=groups, crashes=st.sets(st.integers(0, 11)))
def test_every_batch_is_handed_out_exactly_once_whatever_arrives_and_whenever_it_dies(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]], crashes: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("inbox")
    inbox = open_inbox(folder)
    landed: dict[int, list[int]] = {}  # batches by number, as a lake would hold them
    for step, group in enumerate(groups):
        taken = inbox.take(sealed(*group))
        known = {seq for batches in landed.values() for seq in batches}
        assert {k.seq for k in taken.stored} == known & set(group)
        assert taken.held == ()
        if step in crashes:
            inbox.close()
            inbox = open_inbox(folder)
            assert [c.number for c in inbox.undone()] == ([taken.commit.number] if taken.commit else [])
        for commit in inbox.undone():
            assert commit.number not in landed
            landed[commit.number] = [batch.key.seq for batch in commit.batches]
            inbox.finish(commit.number)
    inbox.close()
    handed_out = [seq for batches in landed.values() for seq in batches]
    assert sorted(handed_out) == sorted({seq for group in groups for seq in group})
    assert list(landed) == sorted(landed)
