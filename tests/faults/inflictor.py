"""Begins and ends the faults of a schedule in a world."""

import asyncio
import contextlib
import signal
from collections import Counter
from typing import Final

from agent.system.tasks import whole
from fleet.state.access_list import ACCESS_LIST
from lab.mosquitto import PACKET_BYTES
from lab.road import Road
from tests.faults.schedule import DISK, HOSTILE, Fault, Kind, Track
from tests.faults.world import FaultyWorld

DAY_NS: Final = 86_400 * 1_000_000_000
DENIED: Final = ("pattern write hu/v1/up/+/%u/+\n", "topic write hu/v1/ack/+\n")
"""The rule of the access list that a fault removes, by the amount of the fault."""


class Inflictor:
    """Inflicts faults on one world, and counts in `happened` the faults that took place."""

    def __init__(self, faulty: FaultyWorld) -> None:
        self._faulty = faulty
        self._world = faulty.world
        self.happened: Counter[tuple[Track, Kind]] = Counter()

    async def inflict(self, fault: Fault) -> None:
        """Inflict one fault for as long as it lasts, and restore the state before it."""
        if fault.kind is Kind.DISK_FULL and self._faulty.no_disk:
            return
        # If batches of an image and later ones were evicted together, one report would name both.  The verdict could
        # not tell how much of it the original vehicle has delivered or reported, too.
        if fault.kind in DISK and fault.track is not Track.FLEET_DISK and self._faulty.unsettled:
            return
        async with contextlib.AsyncExitStack() as after:
            await self._begin(fault, after)
            self.happened[fault.track, fault.kind] += 1
            await asyncio.sleep(fault.lasts_s)

    async def _begin(self, fault: Fault, after: contextlib.AsyncExitStack) -> None:
        """Begin a fault, and register in `after` how it ends."""
        match fault.track, fault.kind:
            case (Track.AGENT | Track.RECEIVER) as track, Kind.KILL:
                process = self._faulty.processes[track]
                self._faulty.down.add(track)
                process.check_alive()
                process.kill()
                after.callback(self._start_again, track)
            case Track.AGENT, Kind.SMALL_QUOTA:
                after.push_async_callback(self._reload, small_quota=False)
                await self._reload(small_quota=True)
            case Track.BROKER, Kind.DENY:
                self._world.broker.write_access_list(ACCESS_LIST.replace(DENIED[int(fault.amount)], ""))
                after.callback(self._world.broker.write_access_list, ACCESS_LIST)
            case Track.BROKER, kind:
                await self._break_broker(kind, int(fault.amount))
                after.push_async_callback(self._restart_broker, forget=kind is Kind.FORGET)
            case (Track.VEHICLE_ROAD | Track.RECEIVER_ROAD) as track, kind:
                road = self._faulty.roads[track]
                await _spoil(road, kind, fault.amount)
                after.push_async_callback(road.restore)
            case (Track.VEHICLE_DISK | Track.FLEET_DISK) as track, _:
                for disk in self._faulty.disks[track]:
                    after.callback(disk.free)
                    disk.fill()
            case Track.REGISTRY, _:
                record = self._world.fleet.vehicles / f"{self._faulty.vehicle}.json"
                away = record.rename(record.with_suffix(".away"))
                after.callback(away.rename, record)
            case _, kind if kind in HOSTILE:
                await after.enter_async_context(self._faulty.hostile.attacking(kind))
            case track, _:
                clock = self._faulty.clocks[track]
                clock.move_clock(round(fault.amount * DAY_NS))
                after.callback(clock.move_clock, 0)

    def _start_again(self, track: Track) -> None:
        self._faulty.processes[track].start()
        self._faulty.down.discard(track)

    async def _break_broker(self, kind: Kind, packet_bytes: int) -> None:
        broker = self._world.broker
        await whole(asyncio.to_thread(broker.kill if kind is Kind.KILL else broker.stop))
        if kind is Kind.SMALL_PACKETS:
            await whole(asyncio.to_thread(broker.start, packet_bytes=packet_bytes))

    async def _restart_broker(self, *, forget: bool) -> None:
        await whole(asyncio.to_thread(self._world.broker.stop))
        if forget:
            self._world.broker.forget()
        await whole(asyncio.to_thread(self._world.broker.start, packet_bytes=PACKET_BYTES))

    async def _reload(self, *, small_quota: bool) -> None:
        """Write another configuration, and let the agent reload it."""
        self._faulty.configure(small_quota=small_quota)
        await self._faulty.until_up()
        self._world.agent.signal(signal.SIGHUP)


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
