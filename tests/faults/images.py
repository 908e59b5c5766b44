"""Takes images of disks while a campaign runs, and puts them back between two chapters."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from agent.errors import Permanent, Transient
from agent.system.tasks import whole
from agent.telemetry.spool.account import Counts, counts_on_disk
from lab.process import Process
from tests.faults.schedule import Image, Restored, Track
from tests.faults.world import FaultyWorld

STOPPED_S: Final = 10.0
IMAGE_S: Final = 60.0
CHECKPOINTS_S: Final = 5.0
AGAIN_S: Final = 1.0


class Images:
    """Keeps the images of one chapter in `folder`."""

    def __init__(self, faulty: FaultyWorld, folder: Path) -> None:
        self._faulty = faulty
        self._folder = folder
        world = faulty.world
        self._disks = {
            Restored.VEHICLE: (world.vehicle.state, "*"),
            Restored.INBOX: (world.fleet.inbox.parent, f"{world.fleet.inbox.name}*"),
            Restored.LAKE: (world.fleet.lake, "*"),
        }

    async def take(self, restored: Restored, track: Track, image: Image) -> None:
        """Take an image of the disk of `restored` that the program `track` uses.

        An image of the vehicle is taken only when no loss waits to be reported.  The record of such a loss could grow
        after the image was taken.  The original vehicle and the restored one would then report it with different
        counts, and both reports would be true.  An image should also have checkpoints of open windows, because a
        restored vehicle may send them a second time.
        """
        began_s = time.monotonic()
        while True:
            async with self._stopped(track, frozen=image.frozen):
                await whole(asyncio.to_thread(self._copy, _disk_of(restored, track)))
            if track is not Track.AGENT:
                return
            found = await asyncio.to_thread(self._counts_of_image)
            waited_s = time.monotonic() - began_s
            if found is not None and not found.unreported and (found.checkpoints[0] or waited_s > CHECKPOINTS_S):
                return
            if waited_s > IMAGE_S:
                raise Permanent(f"The agent did not report its losses within {IMAGE_S:.0f} s.")
            await asyncio.sleep(AGAIN_S)

    def put_back(self, restored: Restored) -> Path | None:
        """Put the images of `restored` back.  Return a copy of the replaced lake, if it is the lake."""
        replaced = None
        if restored is Restored.LAKE:
            replaced = self._folder / "replaced"
            shutil.copytree(self._faulty.world.fleet.lake, replaced)
        for disk in {_disk_of(restored, track) for track in (Track.AGENT, Track.RECEIVER)}:
            if not (self._folder / disk).exists():
                continue
            # The folder itself may be the mount point of a small disk, so only its content is replaced.
            folder, pattern = self._disks[disk]
            for each in folder.glob(pattern):
                _remove(each)
            for each in (self._folder / disk).iterdir():
                _copy_into(each, folder)
        return replaced

    def _copy(self, disk: Restored) -> None:
        folder, pattern = self._disks[disk]
        target = self._folder / disk
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for each in folder.glob(pattern):
            _copy_into(each, target)

    @contextlib.asynccontextmanager
    async def _stopped(self, track: Track, *, frozen: bool) -> AsyncIterator[None]:
        process = self._faulty.processes[track]
        if frozen:
            with _frozen(process):
                yield
            return
        self._faulty.down.add(track)
        process.check_alive()
        process.kill()
        try:
            yield
        finally:
            process.start()
            self._faulty.down.discard(track)

    def _counts_of_image(self) -> Counts | None:
        # SQLite may write to the files that it opens, so it opens a copy.
        with tempfile.TemporaryDirectory() as spool:
            for each in (self._folder / Restored.VEHICLE / "spool").glob("index.sqlite3*"):
                shutil.copy2(each, spool)
            try:
                return counts_on_disk(Path(spool))
            except Transient:  # The agent has not made its index yet, or is just replacing it.
                return None


def _disk_of(restored: Restored, track: Track) -> Restored:
    if restored is Restored.VEHICLE_AND_INBOX:
        return Restored.VEHICLE if track is Track.AGENT else Restored.INBOX
    return restored


@contextlib.contextmanager
def _frozen(process: Process) -> Iterator[None]:
    process.signal(signal.SIGSTOP)
    try:
        deadline_s = time.monotonic() + STOPPED_S
        while not _is_stopped(process.pid):
            process.check_alive()
            if time.monotonic() > deadline_s:
                raise Permanent(f"The {process.name} did not stop within {STOPPED_S:.0f} s after SIGSTOP.")
            time.sleep(0.01)
        yield
    finally:
        process.signal(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    """Return whether every thread of the process is stopped."""
    try:
        states = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # A thread has just ended.
        return False
    return set(states) == {"T"}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy_into(path: Path, folder: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, folder / path.name, symlinks=True)
    else:
        shutil.copy2(path, folder / path.name)
