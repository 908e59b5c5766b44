"""The world of the campaign: broker, receiver and agent as real processes on loopback, and what can happen to them.

Everything that is started here is ended here, by its process id, and every small disk is unmounted.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import Permanent
from agent.system.tasks import whole
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.state.access_list import ACCESS_LIST
from fleet.state.folder import FleetFolder
from lab.mosquitto import PACKET_BYTES, Broker, free_port
from lab.process import Process, last_lines
from tests.faults import drive
from tests.faults.jumping import write_offset
from tests.faults.road import Road
from tests.faults.schedule import Fault, Kind, Track
from tests.small_disk import NoDisk, SmallDisk, small_disk

QUOTA_BYTES = 50_000_000
SMALL_QUOTA_BYTES = 100_000
NOBODY = 9  # a port of loopback where nobody listens
VEHICLE_DISK_KB = 65_536
FLEET_DISK_KB = 524_288
DAY_NS = 86_400 * 1_000_000_000
DENIED = ("pattern write hu/v1/up/+/%u/+\n", "topic write hu/v1/ack/+\n")
ANSWER_S = 2.0
UP_S = 20.0
QUIET = 8  # looks, half a second apart, that find everything delivered: losses are told every two seconds


class World:
    """One fleet with one vehicle in `folder`.  An asynchronous context manager; `start` starts the programs."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._log = log
        self._ending = contextlib.AsyncExitStack()
        self.fleet = FleetFolder(folder / "fleet")
        self.broker = Broker(self.fleet, folder / "broker")
        self._vehicle = folder / "vehicle"
        self._status_port = free_port()
        self._roads: dict[Track, Road] = {}
        self._disks: dict[Track, list[SmallDisk]] = {Track.VEHICLE_DISK: [], Track.FLEET_DISK: []}
        self._processes: dict[Track, Process] = {}
        self._down: set[Track] = set()
        self._speed, self._small_quota = 1.0, False
        self.no_disk: str | None = None
        """Why no disk can be filled; None where they can."""
        self.happened: Counter[tuple[Track, Kind]] = Counter()

    # ---- beginning and end

    async def __aenter__(self) -> Self:
        try:
            self._mount()
            now, model = datetime.now(UTC), Model("Aria", "One", "EU", 2026)
            create_fleet(self.fleet, suite="MLKEM768_X25519", broker_names=(), now=now)
            enrol(self.fleet, self._vehicle / "identity", model, days=2, now=now)
            for track in (Track.VEHICLE_ROAD, Track.RECEIVER_ROAD):
                self._roads[track] = await self._ending.enter_async_context(Road(self.broker.port))
            self._write_vehicle()
            self._processes = {
                Track.AGENT: self._process("agent", "lab.tight_agent", "run", "--config", str(self._config), *_tight()),
                Track.RECEIVER: self._process("receiver", "fleet", "receive", *self._fleet_arguments()),
            }
        except BaseException:
            await self._ending.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for track in (Track.AGENT, Track.RECEIVER):
            await whole(asyncio.to_thread(self._processes[track].stop))
        await whole(asyncio.to_thread(self.broker.stop))
        await self._ending.aclose()

    async def start(self) -> None:
        """Broker, receiver, agent."""
        await whole(asyncio.to_thread(self.broker.start))
        for process in self._processes.values():
            process.start()

    async def drain(self, timeout_s: float) -> None:
        """Play the rest of the log as fast as possible, wait until all of it is acknowledged, and end everybody."""
        await self._up()
        await self._ended(Track.AGENT)
        self._speed = 0.0
        self._write_config()
        self._processes[Track.AGENT].start()
        deadline = time.monotonic() + timeout_s
        quiet = 0
        while quiet < QUIET:
            self.check()
            await asyncio.sleep(0.5)
            status = await self.status()
            quiet = quiet + 1 if status and _delivered(status) else 0
            if time.monotonic() > deadline:
                raise Permanent(f"not delivered within {timeout_s:.0f} s: {json.dumps(status)}")
        for track in (Track.AGENT, Track.RECEIVER):
            await self._ended(track)

    async def _ended(self, track: Track) -> None:
        status = await whole(asyncio.to_thread(self._processes[track].stop))
        if status:
            log = last_lines(self._processes[track].log)
            raise Permanent(f"the {track} ended with status {status} when it was told to stop:\n{log}")

    def check(self) -> None:
        """Raises Permanent where a program ended by itself."""
        for track, process in self._processes.items():
            if track not in self._down:
                process.check_alive()

    async def status(self) -> dict[str, Any] | None:
        """The agent's status; None while it does not answer."""
        return await asyncio.to_thread(self._status)

    def _status(self) -> dict[str, Any] | None:
        with contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError):
            url = f"http://127.0.0.1:{self._status_port}/status"
            with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        return None

    # ---- faults

    async def suffer(self, fault: Fault) -> None:
        """Let a fault happen, for as long as it lasts."""
        if fault.kind is Kind.DISK_FULL and self.no_disk:
            return
        async with contextlib.AsyncExitStack() as after:
            await self._begin(fault, after)
            self.happened[fault.track, fault.kind] += 1
            await asyncio.sleep(fault.lasts_s)

    async def _begin(self, fault: Fault, after: contextlib.AsyncExitStack) -> None:
        """What begins; what ends it goes to `after`."""
        match fault.track, fault.kind:
            case (Track.AGENT | Track.RECEIVER) as track, Kind.KILL:
                self._down.add(track)
                self._processes[track].check_alive()
                self._processes[track].kill()
                after.callback(self._start_again, track)
            case Track.AGENT, Kind.SMALL_QUOTA:
                after.push_async_callback(self._reload, small_quota=False)
                await self._reload(small_quota=True)
            case Track.BROKER, Kind.DENY:
                self._write_acl(ACCESS_LIST.replace(DENIED[int(fault.amount)], ""))
                after.callback(self._write_acl, ACCESS_LIST)
            case Track.BROKER, kind:
                end = self.broker.kill if kind is Kind.KILL else self.broker.stop
                await whole(asyncio.to_thread(end))
                after.push_async_callback(self._restart_broker, forget=kind is Kind.FORGET)
                if kind is Kind.SMALL_PACKETS:
                    await whole(asyncio.to_thread(self.broker.start, packet_bytes=int(fault.amount)))
            case (Track.VEHICLE_ROAD | Track.RECEIVER_ROAD) as track, kind:
                await self._spoil(self._roads[track], kind, fault.amount)
                after.push_async_callback(self._roads[track].restore)
            case (Track.VEHICLE_DISK | Track.FLEET_DISK) as track, _:
                for disk in self._disks[track]:
                    after.callback(disk.free)
                    disk.fill()
            case track, _:
                write_offset(self._clock(track), round(fault.amount * DAY_NS))
                after.callback(write_offset, self._clock(track), 0)

    def _start_again(self, track: Track) -> None:
        self._processes[track].start()
        self._down.discard(track)

    async def _restart_broker(self, *, forget: bool) -> None:
        await whole(asyncio.to_thread(self.broker.stop))
        if forget:
            (self._folder / "broker" / "mosquitto.db").unlink(missing_ok=True)
        await whole(asyncio.to_thread(self.broker.start, packet_bytes=PACKET_BYTES))

    def _write_acl(self, text: str) -> None:
        self.fleet.broker_acl.write_text(text)
        if self.broker.pid is not None:
            os.kill(self.broker.pid, signal.SIGHUP)

    async def _reload(self, *, small_quota: bool) -> None:
        """Another configuration; the agent is told."""
        self._small_quota = small_quota
        self._write_config()
        await self._up()
        os.kill(self._processes[Track.AGENT].pid, signal.SIGHUP)

    async def _up(self) -> None:
        """Until then a signal would end the agent, as it does every program that is only starting."""
        deadline = time.monotonic() + UP_S
        while await self.status() is None:
            self.check()
            if time.monotonic() > deadline:
                raise Permanent(f"no status of the agent within {UP_S:.0f} s")
            await asyncio.sleep(0.2)

    @staticmethod
    async def _spoil(road: Road, kind: Kind, amount: float) -> None:
        match kind:
            case Kind.CUT:
                await road.cut()
            case Kind.STALL:
                road.stall()
            case Kind.HALF_OPEN:
                road.half_open()
            case _:
                road.slow(amount)

    # ---- files

    def _mount(self) -> None:
        wanted = [
            (Track.VEHICLE_DISK, self._vehicle / "state", VEHICLE_DISK_KB),
            (Track.FLEET_DISK, self.fleet.lake, FLEET_DISK_KB),
            (Track.FLEET_DISK, self.fleet.receiver, FLEET_DISK_KB),
        ]
        try:
            for track, folder, size_kb in wanted:
                self._disks[track].append(self._ending.enter_context(small_disk(folder, size_kb)))
        except NoDisk as error:
            self.no_disk = str(error)

    def _write_vehicle(self) -> None:
        campaigns = self._vehicle / "campaigns"
        campaigns.mkdir()
        for document in drive.CAMPAIGNS:
            (campaigns / f"{document['name']}.json").write_text(json.dumps(document))
        for track in (Track.VEHICLE_CLOCK, Track.FLEET_CLOCK):
            write_offset(self._clock(track), 0)
        self._write_config()

    def _write_config(self) -> None:
        self._config.write_text(
            drive.CONFIGURATION.format(
                log=self._log,
                speed=self._speed,
                buses=drive.buses(),
                identity="identity",
                state="state",
                runtime="run",
                campaigns="campaigns",
                quota_mb=(SMALL_QUOTA_BYTES if self._small_quota else QUOTA_BYTES) / 1e6,
                broker_port=NOBODY if self._small_quota else self._roads[Track.VEHICLE_ROAD].port,
                status_port=self._status_port,
            )
        )

    @property
    def _config(self) -> Path:
        return self._vehicle / "agent.toml"

    def _clock(self, track: Track) -> Path:
        return self._folder / f"{track}.offset"

    def _fleet_arguments(self) -> tuple[str, ...]:
        port = self._roads[Track.RECEIVER_ROAD].port
        return "--fleet", str(self.fleet.root), "--broker", f"localhost:{port}"

    def _process(self, name: str, module: str, *arguments: str) -> Process:
        clock = self._clock(Track.VEHICLE_CLOCK if name == "agent" else Track.FLEET_CLOCK)
        command = [sys.executable, "-m", "tests.faults.jumping", str(clock), module, *arguments]
        return Process(name, command, self._folder / f"{name}.log", {**os.environ, "PYTHONUNBUFFERED": "1"})


def _tight() -> list[str]:
    return [word for name, limit in drive.LIMITS.items() for word in ("--limit", f"{name}={limit}")]


def _delivered(status: dict[str, Any]) -> bool:
    return (
        all(source["state"] == "finished" for source in status["sources"])
        and not status["telemetry"]["in_memory_bytes"]
        and not status["spool"]["waiting"]
    )
