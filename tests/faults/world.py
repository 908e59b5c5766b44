"""Adds failing roads, full disks and jumping clocks to the world of the lab."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.errors import Permanent
from agent.system.tasks import whole
from lab.fleet import enrol_vehicle, make_fleet
from lab.machine import ClockedMachine
from lab.process import Process, last_lines
from lab.road import Road
from lab.vehicle import delivered
from lab.world import World
from tests.faults import drive
from tests.faults.hostile import HostileVehicle
from tests.faults.schedule import Track
from tests.small_disk import NoDisk, SmallDisk, small_disk

SMALL_QUOTA_BYTES: Final = 100_000
DISCARD_PORT: Final = 9
"""On this port of loopback no program listens."""

VEHICLE_DISK_KB: Final = 65_536
FLEET_DISK_KB: Final = 524_288
UP_S: Final = 60.0
QUIET: Final = 8
"""So many looks in a row, half a second apart, must find everything delivered.

Losses are reported every two seconds.
"""


class FaultyWorld:
    """A fleet with one vehicle in `folder`, as an asynchronous context manager.  `start` starts the programs."""

    def __init__(self, folder: Path) -> None:
        self._ending = contextlib.AsyncExitStack()
        self.clocks = {
            track: ClockedMachine(folder / f"{track}.offset") for track in (Track.VEHICLE_CLOCK, Track.FLEET_CLOCK)
        }
        self.world = World(
            folder,
            vehicle_machine=self.clocks[Track.VEHICLE_CLOCK],
            fleet_machine=self.clocks[Track.FLEET_CLOCK],
            limits=drive.LIMITS,
        )
        self.roads: dict[Track, Road] = {}
        self.disks: dict[Track, list[SmallDisk]] = {Track.VEHICLE_DISK: [], Track.FLEET_DISK: []}
        self.no_disk: str | None = None
        """The reason why disks cannot be filled, or None if they can."""
        self.down: set[Track] = set()
        """Programs that a fault keeps down at the moment."""
        self.unsettled = False
        """Whether the vehicle's disk was put back, and batches of the image still wait to be sent."""
        self._log = folder / "drive.log"

    async def __aenter__(self) -> Self:
        try:
            self._mount()
            make_fleet(self.world.fleet.root)
            self.vehicle = enrol_vehicle(self.world.fleet, self.world.vehicle.identity).vehicle
            broker = self.world.broker
            self.hostile = HostileVehicle(self.world.fleet, self.world.folder / "hostile", broker.port)
            for track, port in ((Track.VEHICLE_ROAD, broker.port), (Track.RECEIVER_ROAD, broker.fleet_port)):
                self.roads[track] = await self._ending.enter_async_context(Road(port))
            self.world.route_receiver(self.roads[Track.RECEIVER_ROAD].port)
            self.world.vehicle.write_campaigns(*drive.CAMPAIGNS)
            await whole(asyncio.to_thread(broker.start))
        except BaseException:
            await self._ending.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await whole(asyncio.to_thread(self.world.__exit__, kind, error, trace))
        await self._ending.aclose()

    @property
    def processes(self) -> dict[Track, Process]:
        """Return agent and receiver, which faults kill.  The broker is not included, because several faults end it."""
        return {Track.AGENT: self.world.agent, Track.RECEIVER: self.world.receiver}

    async def start(self, log: Path) -> None:
        """Start receiver and agent, which replays `log`.  Return when the receiver has compared inbox and lake."""
        self._log = log
        self.configure()
        receiver = self.world.receiver
        connected = receiver.output().count('"broker_connected"')
        for process in self.processes.values():
            process.start()
        await whole(asyncio.to_thread(receiver.until_connected, connected + 1))

    def configure(self, *, speed: float = 1.0, small_quota: bool = False) -> None:
        """Write agent.toml.  With `small_quota` the broker is out of reach, too, so the spool must evict batches."""
        vehicle = self.world.vehicle
        vehicle.broker_port = DISCARD_PORT if small_quota else self.roads[Track.VEHICLE_ROAD].port
        spool = drive.spool(SMALL_QUOTA_BYTES if small_quota else drive.QUOTA_BYTES)
        vehicle.buses = drive.buses()
        vehicle.write(sources=drive.source(self._log, speed), spool=spool, **drive.SECTIONS)

    async def drain(self, timeout_s: float) -> None:
        """Play the rest of the log as fast as possible, wait until all of it is acknowledged, and end all programs."""
        await self.until_up()
        await self._end(Track.AGENT)
        self.configure(speed=0.0)
        self.world.agent.start()
        deadline_s = time.monotonic() + timeout_s
        quiet = 0
        while quiet < QUIET:
            self.check()
            await asyncio.sleep(0.5)
            status = await self.world.status()
            quiet = quiet + 1 if status and delivered(status) else 0
            if time.monotonic() > deadline_s:
                raise Permanent(f"the log was not delivered within {timeout_s:.0f} s: {json.dumps(status)}")
        for track in (Track.AGENT, Track.RECEIVER):
            await self._end(track)

    async def _end(self, track: Track) -> None:
        process = self.processes[track]
        status = await whole(asyncio.to_thread(process.stop))
        if status:
            raise Permanent(f"the {track} ended with status {status} on SIGTERM:\n{last_lines(process.log)}")

    def check(self) -> None:
        """Raise Permanent if a program ended by itself."""
        for track, process in self.processes.items():
            if track not in self.down:
                process.check_alive()

    async def until_up(self) -> None:
        """Wait until the agent answers.  Before that, a signal would end it, as its handlers are not installed."""
        deadline_s = time.monotonic() + UP_S
        while await self.world.status() is None:
            self.check()
            if time.monotonic() > deadline_s:
                raise Permanent(f"the agent did not answer within {UP_S:.0f} s")
            await asyncio.sleep(0.2)

    async def settle(self) -> None:
        """Wait until the agent has sent all batches of the image that was put back."""
        while (status := await self.world.status()) is None or status["spool"]["waiting"]:
            await asyncio.sleep(0.2)
        self.unsettled = False

    def _mount(self) -> None:
        wanted = [
            (Track.VEHICLE_DISK, self.world.vehicle.state, VEHICLE_DISK_KB),
            (Track.FLEET_DISK, self.world.fleet.lake, FLEET_DISK_KB),
            (Track.FLEET_DISK, self.world.fleet.receiver, FLEET_DISK_KB),
        ]
        try:
            for track, folder, size_kb in wanted:
                self.disks[track].append(self._ending.enter_context(small_disk(folder, size_kb)))
        except NoDisk as error:
            self.no_disk = str(error)


def _tight() -> list[str]:
    return [word for name, limit in drive.LIMITS.items() for word in ("--limit", f"{name}={limit}")]
