"""While the disk refuses, windows are sent from memory, and each sample is delivered, stored or lost by name, once."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.formats.up.columns import Window
from agent.formats.up.decode import decode_window
from agent.formats.up.losses import Reason
from agent.formats.up.seal import unseal
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.stopgap import NOTE
from tests.agent.formats.up.windows import CLOCK
from tests.agent.telemetry.outbox.contents import window
from tests.agent.telemetry.spool.depot import DEVICE, FLEET, VEHICLE, LedgerDatabase, TestDisk
from tests.agent.telemetry.spool.store import Store

LANES = (Lane.LIVE, Lane.EVENTS)


class Disk(TestDisk):
    __test__ = False
    code: int = errno.ENOSPC

    def create_file(self, path: Path, content: bytes) -> None:
        if self.full:
            raise OSError(self.code, os.strerror(self.code))
        super().create_file(path, content)


class Car:
    """An outbox over a spool in `folder`, a fleet that answers, and a process that can be killed."""

    def __init__(self, folder: Path, memory_bytes: int = 100_000) -> None:
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.arrived: dict[tuple[str, int], Window] = {}
        (folder / "run").mkdir()
        self.start()

    def start(self) -> None:
        self.disk, self.index = Disk(), LedgerDatabase()
        self.spool = Store(
            self.folder / "spool",
            Limits.of(10**8, 1e9, 0, self.memory_bytes),
            disk=self.disk,
            open_database=self.index,
            runtime_folder=self.folder / "run",
        )
        self.spool.reader.on_append = lambda: None  # the link is up
        sealer = Sealer(VEHICLE, DEVICE, FLEET.public, lambda: 1_000_000)
        self.outbox = Outbox(
            self.spool, sealer, lambda: CLOCK, batch_max_bytes=60_000, pending_max_bytes=self.memory_bytes
        )

    def kill(self) -> None:
        """End the process without a word, and start the next one, whose disk works."""
        self.spool.close()
        self.start()

    def collect(self, start_us: int, samples: int = 100) -> None:
        each = window(start_us, samples)
        self.outbox.put([(each, 0)], {each.campaign: {"can0:drive": start_us}})

    def send(self, limit: int = 1_000, *, acknowledged: bool = True) -> list[Entry]:
        """Let the fleet store up to `limit` batches; return them."""
        found = self.spool.pending(limit, exclude=(), lanes=LANES)
        for entry in found:
            content = self.spool.read(entry)
            assert content is not None
            each = decode_window(unseal(content, FLEET, DEVICE.public_key())[1])
            assert self.arrived.setdefault(entry.key, each).start_us == each.start_us, "one number names two batches"
            if acknowledged:
                removed, others = self.spool.reader.acknowledge(entry.epoch, [entry.sealed])
                assert (removed, others) == ([entry.seq], [])
        return found

    def starts(self) -> Counter[int]:
        """Return how often the fleet has each window."""
        return Counter(each.start_us for each in self.arrived.values() if each.samples)

    def lost(self) -> int:
        return sum(total.samples for total in self.spool.counts().lost.values())

    def adds_up(self) -> bool:
        counts = self.spool.counts()
        lost = sum(total.batches for total in counts.lost.values())
        return counts.next_seq - 1 + counts.adopted == counts.acknowledged + counts.batches + lost


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_an_online_car_delivers_although_the_disk_takes_no_file(car: Car, code: int) -> None:
    car.collect(1)
    car.send()
    car.disk.full, car.disk.code = True, code
    for start_us in (2, 3):
        car.collect(start_us)
        assert os.strerror(code) in str(car.outbox.problem)
        assert len(car.send()) == 1
    assert car.outbox.pending_bytes == 0  # so the sources may release their frames
    car.disk.full = False
    car.collect(4)
    car.send()
    assert car.starts() == Counter([1, 2, 3, 4])
    assert (car.lost(), car.spool.resume_points(), car.adds_up()) == (0, {"can0:drive": 4}, True)
    assert not (car.folder / "run" / NOTE).exists()


def test_an_online_car_delivers_although_the_index_can_neither_be_read_nor_written(car: Car) -> None:
    car.index.fails = True
    for start_us in (1, 2):
        car.collect(start_us)
        car.send()
    car.index.fails = False
    car.outbox.flush()
    assert car.starts() == Counter([1, 2])
    assert (car.lost(), car.adds_up()) == (0, True)


@pytest.mark.parametrize("done", [False, True])
def test_a_window_whose_append_is_in_doubt_is_never_sent_from_memory(car: Car, done: bool) -> None:
    car.index.fail_commits(1, done=done)
    car.collect(1)
    car.collect(2)
    car.outbox.flush()
    car.send()
    assert car.starts() == Counter([1, 2])
    assert car.adds_up()


@pytest.mark.parametrize("done", [False, True])
def test_nothing_is_added_to_a_stopgap_whose_record_is_in_doubt(car: Car, done: bool) -> None:
    car.disk.full = True
    car.collect(1)
    car.send()
    car.disk.full = False
    car.index.fail_commits(1, done=done)
    car.collect(2)  # the record of the stopgap reports failure
    car.disk.full = True
    car.collect(3)
    car.send()
    car.disk.full = False
    car.outbox.flush()
    car.send()
    assert car.starts() == Counter([1, 2, 3])
    assert (car.lost(), car.spool.resume_points(), car.adds_up()) == (0, {"can0:drive": 3}, True)


def test_an_online_car_delivers_although_the_index_can_be_read_but_takes_no_transaction(car: Car) -> None:
    car.index.fail_commits(1_000, done=False)
    for start_us in (1, 2, 3):
        car.collect(start_us)
        assert len(car.send()) == 1
    car.index.fail_commits(0, done=False)
    car.outbox.flush()
    assert car.starts() == Counter([1, 2, 3])
    assert (car.lost(), car.spool.resume_points(), car.adds_up()) == (0, {"can0:drive": 3}, True)


@pytest.mark.parametrize("killed", [False, True])
def test_a_window_that_memory_gave_up_is_in_the_ledger_before_a_later_one_is_sent_from_memory(
    tmp_path: Path, killed: bool
) -> None:
    car = Car(tmp_path, memory_bytes=1)  # one window in the stopgap, and one in the queue
    car.disk.full = car.index.fails = True
    for start_us in (1, 2, 3):  # the second is given up
        car.collect(start_us)
    car.send()
    car.outbox.flush()  # the third goes to the stopgap
    car.send()
    assert car.starts() == Counter([1, 3])
    if killed:
        car.kill()
    car.index.fails = car.disk.full = False
    car.outbox.flush()
    assert car.spool.resume_points() == {"can0:drive": 3}
    assert (car.lost(), car.adds_up()) == (100, True)


def test_frames_of_a_lost_window_come_again_if_the_process_ends_before_its_loss_is_recorded(tmp_path: Path) -> None:
    car = Car(tmp_path, memory_bytes=1)
    car.disk.full = car.index.fails = True
    for start_us in (1, 2, 3):  # the first goes to the stopgap, the second is given up, and the third waits
        car.collect(start_us)
    car.index.fails = False  # no file can be made yet
    car.outbox.flush()
    car.kill()
    assert car.spool.resume_points() == {"can0:drive": 1}
    assert car.lost() == 100  # the first was not acknowledged


def test_what_was_not_acknowledged_goes_to_the_disk_under_its_number_when_the_disk_works_again(car: Car) -> None:
    car.disk.full = True
    car.collect(1)
    car.collect(2)
    sent = car.send(acknowledged=False)
    car.disk.full = False
    car.outbox.flush()
    assert {entry.key for entry in car.spool.pending(9, exclude=(), lanes=LANES)} == {entry.key for entry in sent}
    car.kill()
    car.send()
    assert car.starts() == Counter([1, 2])
    assert (car.lost(), car.adds_up()) == (0, True)


@pytest.mark.parametrize("done", [False, True])
def test_a_take_over_whose_commit_fails_is_repeated(car: Car, done: bool) -> None:
    car.disk.full = True
    car.collect(1)
    car.collect(2)
    car.send(1)
    car.disk.full = False
    car.index.fail_commits(1, done=done)
    car.outbox.flush()
    car.outbox.flush()
    car.send()
    assert car.starts() == Counter([1, 2])
    assert (car.lost(), car.adds_up(), car.spool.resume_points()) == (0, True, {"can0:drive": 2})


def test_a_kill_while_the_disk_refuses_makes_no_sample_double_and_names_what_was_not_acknowledged(car: Car) -> None:
    car.disk.full = True
    for start_us in (1, 2, 3):
        car.collect(start_us)
    newest = car.send(1)
    car.kill()
    assert car.spool.resume_points() == {"can0:drive": 3}  # no source delivers these frames again
    losses = [loss for _, loss in car.spool.unreported_losses(9)]
    assert [(loss.reason, loss.epoch, loss.first_seq, loss.last_seq) for loss in losses] == [
        (Reason.MEMORY_FULL, newest[0].epoch, 1, 2)
    ]
    assert (car.lost(), car.adds_up()) == (200, True)
    car.collect(4)
    car.send()
    assert car.starts() == Counter([3, 4])
    car.kill()
    assert car.lost() == 200  # the note was recorded once


def test_the_checkpoints_of_a_window_that_was_sent_from_memory_are_not_sent(car: Car) -> None:
    each = window(1)
    assert car.outbox.put_checkpoints([(window(1, 40), 0)], {"can0:drive": 1})
    car.disk.full = True
    car.outbox.put([(each, 0)], {each.campaign: {"can0:drive": 2}})
    car.send()
    car.kill()
    car.send()
    assert car.starts() == Counter([1])
    assert (car.lost(), car.spool.counts().checkpoints, car.adds_up()) == (0, (0, 0), True)


def test_what_memory_cannot_hold_is_lost_by_name_once(tmp_path: Path) -> None:
    car = Car(tmp_path, memory_bytes=12_000)
    car.disk.full = True
    for start_us in range(1, 21):
        car.collect(start_us, 1_000)
        assert car.spool.stopgap.held[1] <= 12_000
    car.disk.full = False
    car.outbox.flush()
    car.send()
    assert 0 < len(car.starts()) < 20
    assert car.lost() == 1_000 * (20 - len(car.starts()))
    assert car.adds_up()


def test_a_refusal_of_the_receiver_is_recorded_when_the_disk_works_again(car: Car) -> None:
    car.disk.full = True
    car.collect(1)
    (entry,) = car.spool.pending(9, exclude=(), lanes=LANES)
    assert car.spool.refuse(entry.epoch, {entry.seq: Refusal("other bytes", b"x" * 16)}) == []
    assert car.spool.refuse(entry.epoch, {entry.seq: Refusal("no", entry.sealed.digest)}) == [entry.seq]
    car.disk.full = False
    car.outbox.flush()
    assert car.spool.counts().lost[Reason.REFUSED_BY_RECEIVER].samples == 100
    assert car.adds_up()


def test_while_the_link_is_down_windows_wait_in_the_outbox_so_that_the_sources_keep_their_frames(car: Car) -> None:
    car.spool.reader.on_append = None
    car.disk.full = True
    car.collect(1)
    assert (car.outbox.pending_bytes > 0, car.spool.stopgap.held) == (True, (0, 0))
    car.spool.reader.on_append = lambda: None
    car.outbox.flush()  # as every RETRY_S
    car.send()
    assert (car.starts(), car.outbox.pending_bytes) == (Counter([1]), 0)


def test_without_a_place_for_the_note_windows_wait_as_before(car: Car) -> None:
    (car.folder / "run").rmdir()
    car.disk.full = True
    car.collect(1)
    assert car.spool.pending(9, exclude=(), lanes=LANES) == []
    assert car.outbox.pending_bytes > 0
    car.disk.full = False
    car.outbox.flush()
    car.send()
    assert car.starts() == Counter([1])
