"""Random histories of inboxes and lakes that are put back, copied, deleted or opened with a wrong key, and of crashes.

Each sample that was acknowledged is in the lake exactly once, or a receiver has counted it as missing at its start.
The vehicles are honest: they keep each batch until it is acknowledged, and then delete it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agent.errors import Permanent, Transient
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import read_header
from fleet.lake.location import Location
from fleet.lake.query import ask_sql
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.receiving.test_histories import made
from tests.fleet.vehicles import make_window

EXAMPLES = int(os.environ.get("HISTORIES", "10"))
FOLDERS = st.integers(0, 1)
NUMBERS = st.integers(0, 10**6)


class FleetHistories(RuleBasedStateMachine):
    """Two fleet folders, the second a copy of the first, and one lake.  Each folder may have a running receiver."""

    @initialize()
    def begin(self) -> None:
        fleet, self.vehicle = made()
        self.root = Path(tempfile.mkdtemp())
        self.folders = [FleetFolder(self.root / name) for name in ("fleet", "copy")]
        for folder in self.folders:
            shutil.copytree(fleet, folder.root)
        self.lake = self.root / "lake"
        self.stores: list[Store | None] = [None, None]
        self.images: list[Path] = []
        self.waiting: dict[int, bytes] = {}
        self.acknowledged: set[int] = set()
        self.missing = 0
        self.made = self.copies = 0
        self.start(0)

    @rule(number=FOLDERS)
    def start(self, number: int) -> None:
        """Start the receiver of a folder, also beside that of the other one."""
        self.stop(number)
        with structlog.testing.capture_logs() as logs:
            store = open_store(self.folders[number], Share(), Location(str(self.lake)), accept_lake=True)
        self.missing += sum(entry["missing"] for entry in logs if entry["event"] == "lake_is_older")
        self.stores[number] = store
        self.guarded(number, store.recover)

    @rule(number=FOLDERS)
    def stop(self, number: int) -> None:
        if (store := self.stores[number]) is not None:
            store.close()
            self.stores[number] = None

    def guarded(self, number: int, step: Callable[[], list[Message] | None]) -> list[Message]:
        """Run a step of a receiver, which ends if another receiver has claimed its partitions."""
        try:
            try:
                return step() or []
            except Transient:  # the claim came after the last version that the receiver has loaded
                return step() or []
        except Permanent as error:
            assert "has claimed" in str(error)
            self.stop(number)
            return []

    @rule(windows=st.integers(1, 3))
    def collect(self, windows: int) -> None:
        for _ in range(windows):
            self.made += 1
            self.waiting[self.made] = self.vehicle.batch(self.made, make_window(self.made, samples=2))

    @rule(windows=st.integers(0, 2), first=FOLDERS, some=st.integers(1, 2), crash=st.sampled_from([0, 0, 0, 1, 2]))
    def send(self, windows: int, first: int, some: int, crash: int) -> None:
        """All running receivers get what the vehicle sends.  One may crash before or after the commit."""
        if self.stores == [None, None]:
            self.start(first)
        self.collect(windows)
        batches = list(self.waiting.values())[::some]
        acks: list[Message] = []
        for number in (first, 1 - first):
            if (store := self.stores[number]) is None:
                continue
            assert store.take_in([Message(self.vehicle.topic, batch) for batch in batches]) == len(batches)
            if crash == 1:
                self.stop(number)
                continue
            heard = self.guarded(number, store.land)
            if crash == 2:
                self.stop(number)
                continue
            acks += heard
        for ack in acks:
            for seq, _ in self.vehicle.verify(ack.payload).stored:
                self.acknowledged.add(seq)
                self.waiting.pop(seq, None)

    @rule(number=FOLDERS, take=st.booleans(), wrong=st.booleans())
    def crash_in_a_commit(self, number: int, take: bool, wrong: bool) -> None:
        """A receiver dies when one table has the commit, and recovers once with a wrong key."""
        if self.stores[number] is None:
            self.start(number)
        if (store := self.stores[number]) is None:
            return
        self.collect(1)
        store.take_in([Message(self.vehicle.topic, batch) for batch in self.waiting.values()])
        if take and store._to_land is not None:
            commit, batches = store._to_land
            claims = store._inbox.record.claims(Share())
            half = store._inbox.record.half_landed("samples")
            rows = [rows for key, rows in batches.items() if key.digest not in half]

            def land_samples() -> None:
                store._lake.append("samples", store._inbox.app_id, commit.number, rows, claims)

            self.guarded(number, land_samples)
        self.stop(number)
        if wrong:
            key = self.folders[number].hpke_private
            right = key.read_bytes()
            suite = read_header(self.vehicle.batch(1)).suite
            key.write_bytes(RecipientPrivateKey.generate(suite).to_json())
            self.start(number)
            self.stop(number)
            key.write_bytes(right)
            self.start(number)

    @rule()
    def copy_everything(self) -> None:
        """Back up both inboxes and the lake, as after a power cut."""
        self.stop(0)
        self.stop(1)
        self.copies += 1
        image = self.root / f"image{self.copies}"
        for number, folder in enumerate(self.folders):
            shutil.copytree(folder.receiver, image / str(number))
        shutil.copytree(self.lake, image / "lake")
        self.images.append(image)

    @precondition(lambda self: self.images)
    @rule(choice=NUMBERS, source=FOLDERS, to=FOLDERS)
    def put_back_an_inbox(self, choice: int, source: int, to: int) -> None:
        """Put back an inbox from a backup, perhaps from one of the other folder."""
        self.stop(to)
        shutil.rmtree(self.folders[to].receiver)
        shutil.copytree(self.images[choice % len(self.images)] / str(source), self.folders[to].receiver)

    @rule(to=FOLDERS)
    def copy_the_inbox(self, to: int) -> None:
        self.stop(0)
        self.stop(1)
        shutil.rmtree(self.folders[to].receiver)
        shutil.copytree(self.folders[1 - to].receiver, self.folders[to].receiver)

    @rule(number=FOLDERS)
    def lose_an_inbox(self, number: int) -> None:
        self.stop(number)
        self.folders[number].inbox.unlink(missing_ok=True)

    @precondition(lambda self: self.images)
    @rule(choice=NUMBERS, deleted=st.sampled_from([False, False, True]))
    def put_back_the_lake(self, choice: int, deleted: bool) -> None:
        """Put back or delete the lake.  The receiver that has acknowledged its batches starts next."""
        # An inbox that knows every batch of the lake must see this, so the last one that ran must not be older.
        self.start(0)
        self.stop(0)
        self.stop(1)
        shutil.rmtree(self.lake)
        if not deleted:
            shutil.copytree(self.images[choice % len(self.images)] / "lake", self.lake)
        lost = self.missing
        kept = self.in_lake() if self.lake.exists() else {}
        gone = self.acknowledged - kept.keys()
        self.start(0)
        assert self.missing - lost >= len(gone), "batches are missing, and the receiver has not said so"
        self.acknowledged -= gone

    def in_lake(self) -> dict[int, int]:
        batches = ask_sql(str(self.lake), "SELECT seq, count(*) FROM batches GROUP BY seq").rows
        assert {count for _, count in batches} <= {1}, "a batch is in the lake twice"
        samples = ask_sql(str(self.lake), "SELECT seq, count(*) FROM samples GROUP BY seq").rows
        assert {count for _, count in samples} <= {4}, "a sample is in the lake twice"
        whole = {int(str(seq)) for seq, _ in batches}
        assert whole <= {int(str(seq)) for seq, _ in samples}
        return {int(str(seq)): int(str(count)) for seq, count in samples if seq in whole}

    def teardown(self) -> None:
        if not hasattr(self, "stores"):
            return
        self.stop(1)
        self.start(0)
        self.send(1, 0, 1, 0)
        assert self.waiting == {}
        assert set(self.in_lake()) >= self.acknowledged, "an acknowledged batch is not in the lake"
        self.stop(0)
        shutil.rmtree(self.root)


@pytest.mark.timeout(60 * EXAMPLES)
def test_every_acknowledged_sample_is_in_the_lake_once_or_said_to_be_missing_whatever_is_put_back() -> None:
    run_state_machine_as_test(
        FleetHistories, settings=settings(max_examples=EXAMPLES, stateful_step_count=25, deadline=None, print_blob=True)
    )
