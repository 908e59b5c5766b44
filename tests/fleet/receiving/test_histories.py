"""Random histories of disks that are put back, copied and damaged, of crashes, and of repeated messages.

Every sample that was collected is in the lake exactly once, or the ledger has a report of its loss, or the ledger lists
it as there twice: in a window, and in a checkpoint of the window that a replaced disk still had.  The only exception is
a sample whose every copy was on a disk when that disk was replaced: the model counts these samples itself.
"""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agent.formats.topics import Lane
from agent.system.times import utc_text_of
from fleet.lake.ledger import ledger
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.restored import HeadUnit, deliver, samples_in, topic_of
from tests.fleet.vehicles import T0_US, Vehicle, make_fleet, make_vehicle

EXAMPLES = int(os.environ.get("HISTORIES", "20"))
UNITS = 3
NUMBERS = st.integers(0, 10**6)
Samples = set[tuple[int, int]]
"""Samples, each named by its window and its place in the window."""


@cache
def made() -> tuple[Path, Vehicle]:
    """Return a fleet with one vehicle.  Making it takes longer than a history."""
    root = Path(tempfile.mkdtemp())
    return root / "fleet", make_vehicle(make_fleet(root / "fleet"), root / "vehicle")


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        fleet, self.vehicle = made()
        self.root = Path(tempfile.mkdtemp())
        shutil.copytree(fleet, self.root / "fleet")
        self.fleet = FleetFolder(self.root / "fleet")
        self.store = self.open()
        self.units = [HeadUnit(self.vehicle, self.root / "unit0")]
        self.held: list[Samples] = [set()]  # the samples that were put on the disk of each unit
        self.images: list[tuple[Path, Samples]] = []
        self.sent: list[bytes] = []
        self.acks: list[bytes] = []
        self.collected = 0
        self.folders = 0

    def open(self) -> Store:
        store = open_store(self.fleet, Share())
        store.recover()
        return store

    def chosen(self, number: int) -> tuple[HeadUnit, Samples]:
        place = number % len(self.units)
        return self.units[place], self.held[place]

    @rule(number=NUMBERS, windows=st.integers(1, 3))
    def collect(self, number: int, windows: int) -> None:
        unit, held = self.chosen(number)
        for _ in range(windows):
            self.collected += 1
            unit.collect(self.collected)
            held |= {(self.collected, 0), (self.collected, 1)}

    @rule(number=NUMBERS)
    def store_a_checkpoint(self, number: int) -> None:
        unit, held = self.chosen(number)
        self.collected += 1
        unit.checkpoint(self.collected)
        held.add((self.collected, 0))

    @rule(number=NUMBERS)
    def close_windows(self, number: int) -> None:
        unit, held = self.chosen(number)
        held |= {(closed, 1) for closed in unit.close_windows()}

    @rule(number=NUMBERS, windows=st.integers(1, 3), some=st.integers(1, 2), hears=st.booleans())
    def collect_and_send(self, number: int, windows: int, some: int, hears: bool) -> None:
        self.collect(number, windows)
        self.send(number, some, hears)

    @rule(number=NUMBERS, some=st.integers(1, 3), hears=st.booleans())
    def send(self, number: int, some: int, hears: bool) -> None:
        """Send every batch, or only some of them."""
        unit, _ = self.chosen(number)
        batches = unit.waiting()[number % some :: some]
        self.sent += batches
        acks = deliver(self.store, unit, batches)
        self.acks += acks
        for each in self.units if hears else ():  # head units with one identity hear each other's answers
            each.hear(*acks)

    @rule(number=NUMBERS)
    def send_while_the_receiver_crashes(self, number: int) -> None:
        """The receiver crashes when the batches are in its inbox and not in the lake."""
        batches = self.chosen(number)[0].waiting()
        self.sent += batches
        self.store.take_in([Message(topic_of(batch), batch) for batch in batches])
        self.restart(lose_inbox=False, forget=False)

    @rule(number=NUMBERS, choice=NUMBERS, reports=st.booleans())
    def lose_a_batch(self, number: int, choice: int, reports: bool) -> None:
        unit, _ = self.chosen(number)
        waiting = [entry for entry in unit.pending() if entry.lane is Lane.LIVE]
        if waiting:
            unit.lose(waiting[choice % len(waiting)])
        if reports:
            unit.report()

    @rule(number=NUMBERS)
    def kill(self, number: int) -> None:
        unit, _ = self.chosen(number)
        unit.kill()
        unit.start()

    @rule(number=NUMBERS)
    def copy(self, number: int) -> None:
        unit, held = self.chosen(number)
        unit.copy(image := self.new_folder())
        self.images.append((image, set(held)))

    @precondition(lambda self: self.images)
    @rule(number=NUMBERS, choice=NUMBERS)
    def put_back(self, number: int, choice: int) -> None:
        image, held = self.images[choice % len(self.images)]
        place = number % len(self.units)
        self.units[place].put_back(image)
        self.held[place] = set(held)

    @precondition(lambda self: self.images and len(self.units) < UNITS)
    @rule(choice=NUMBERS)
    def clone(self, choice: int) -> None:
        image, held = self.images[choice % len(self.images)]
        shutil.copytree(image, folder := self.new_folder())
        self.units.append(HeadUnit(self.vehicle, folder))
        self.held.append(set(held))

    @precondition(lambda self: self.sent)
    @rule(number=NUMBERS, some=st.integers(1, 3))
    def repeat_batches(self, number: int, some: int) -> None:
        self.acks += deliver(self.store, self.units[0], self.sent[number % some :: some])

    @precondition(lambda self: self.acks)
    @rule(number=NUMBERS)
    def repeat_acknowledgements(self, number: int) -> None:
        self.chosen(number)[0].hear(*self.acks)

    @rule(lose_inbox=st.booleans(), forget=st.booleans())
    def restart(self, lose_inbox: bool, forget: bool) -> None:
        self.store.close()
        if lose_inbox:
            with closing(self.open()):  # what is in the inbox and not in the lake must not be lost with the inbox
                pass
            self.fleet.inbox.unlink()
        elif forget:
            with closing(sqlite3.connect(self.fleet.inbox)) as inbox, inbox:
                inbox.execute("DELETE FROM recent")
        self.store = self.open()

    def new_folder(self) -> Path:
        self.folders += 1
        return self.root / f"folder{self.folders}"

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for unit in self.units:
            unit.kill()
            unit.start()  # this sends the checkpoints of windows that are still open
            unit.report()
            unit.hear(*deliver(self.store, unit))
            assert unit.waiting() == []
            unit.kill()
        self.store.close()
        self.check()
        shutil.rmtree(self.root)

    def check(self) -> None:
        in_lake = samples_in(self.fleet.lake)
        answer = ledger(str(self.fleet.lake), limit=10**6, stored=False)
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        twice = sum(int(str(row["samples"])) for row in rows if row["state"] == "twice")
        # A checkpoint has the first sample of each of two signals, and `in_lake` counts one of the signals.
        assert sum(copies - 1 for copies in in_lake.values()) * 2 == twice, "the ledger is wrong about double samples"
        lost = [(str(row["first"]), str(row["last"])) for row in rows if row["state"] == "lost"]
        for number, place in set().union(*self.held) - in_lake.keys():
            at = utc_text_of(T0_US + number * 1_000_000)
            assert any(first <= at <= last for first, last in lost), (
                f"sample {place} of window {number} is neither here nor in the ledger"
            )


@pytest.mark.timeout(20 * EXAMPLES)
def test_every_sample_is_in_the_lake_once_or_in_the_ledger_whatever_becomes_of_disks() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None, print_blob=True)
    )
