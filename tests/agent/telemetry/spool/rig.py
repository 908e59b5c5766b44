"""A spool on a disk and a clock that the test controls, and what tests of the spool read from it."""

import errno
import os
import sqlite3
from pathlib import Path

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.system.durable import Disk
from agent.telemetry.spool.batch import Entry
from tests.agent.telemetry.spool.flaky import Fault, FlakyDisk, connector
from tests.agent.telemetry.spool.store import Draft, Store

ALL = tuple(Lane)


class SetClock:
    """The machine's clocks: `now_s` since the boot, and a wall clock that is never set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> Clock:
        boottime_us = round(self.now_s * 1e6)
        return Clock(ClockQuality.UNSYNCHRONISED, "boot", boottime_us, boottime_us)


class Rig:
    """A spool folder with a clock that the test sets, and a disk that fails on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.fault = Fault()
        self.unsyncable = False  # whether syncing the folder of checkpoints fails

    def open(self, quota_bytes: int = 10**6, reserve_bytes: int = 0, max_age_s: float = 1_000.0) -> Store:
        return Store.open(
            self.folder,
            quota_bytes=quota_bytes,
            max_age_s=max_age_s,
            reserve_bytes=reserve_bytes,
            clock=self.clock,
            disk=UnsyncableDisk(self),
            open_database=connector(self.fault),
        )


class UnsyncableDisk(FlakyDisk):
    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.fault)
        self._rig = rig

    def sync_folder(self, folder: Path) -> None:
        if self._rig.unsyncable and folder.name == "checkpoints":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_folder(folder)


def draft(content: bytes = b"sealed", lane: Lane = Lane.LIVE, priority: int = 0, samples: int = 3) -> Draft:
    return Draft(lane, priority, "city", lambda seq: b"%d:" % seq + content, samples, 10, 20)


def entries(spool: Store) -> list[Entry]:
    return spool.pending(1_000_000, exclude=(), lanes=ALL)


def stored(spool: Store) -> dict[int, bytes | None]:
    return {entry.seq: spool.read(entry) for entry in entries(spool)}


def batch_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("batches/*/*"), *folder.glob("checkpoints/*")])


def drop_table(disk: Disk, table: str) -> None:
    database = sqlite3.connect(disk.folder / "index.sqlite3")
    database.execute(f"DROP TABLE {table}")
    database.commit()
    database.close()


def unaccounted(spool: Store) -> int:
    """Return how many batches are neither acknowledged nor waiting nor lost."""
    counts = spool.counts()
    lost = sum(total.batches for total in counts.lost.values())
    known = counts.acknowledged + len(entries(spool)) + lost
    return counts.next_seq - 1 + counts.adopted - known
