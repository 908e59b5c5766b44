"""The plot of the demonstration: what happens in the drive and when, as a table, and the shell that plays it.

The times are parts of the drive's length, so every input gets every event however long it is.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from agent.errors import Transient
from agent.formats import topics
from agent.link.endpoint import Endpoint
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from lab.demo.attacks import NAMES, attacks, everything
from lab.demo.proxy import Proxy
from lab.demo.world import World

OUTAGE: Final = (0.34, 0.68)
"""From when to when the vehicle is in a tunnel: a third of the drive."""

AFTER_S: Final = 120.0
"""How long deliveries may take after the drive: the outage's backlog, and the receiver's last commits."""


@dataclass(slots=True)
class Record:
    """What happened: wall-clock spans of the outage (Unix epoch, microseconds), kills, refusals."""

    outages_us: list[tuple[int, int]] = field(default_factory=list)
    drive_us: tuple[int, int] = (0, 0)
    broker_kills: int = 0
    receiver_kills: int = 0
    applied_version: int = 0
    refused: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(NAMES, False))
    acts: list[str] = field(default_factory=list)


class Drive:
    """One drive of `length_s` seconds of wall time.  `documents` are what the fleet publishes on the way."""

    def __init__(
        self, world: World, proxy: Proxy, vehicle: str, length_s: float, documents: Mapping[str, Path]
    ) -> None:
        self._world = world
        self._proxy = proxy
        self._vehicle = vehicle
        self._length_s = length_s
        self._documents = documents
        self._foreign = FleetFolder(world.folder / "foreign-fleet")
        self._oldest = b""
        self.record = Record()

    @property
    def _plot(self) -> list[tuple[float, str, Callable[[], Awaitable[None]]]]:
        return [
            (0.12, "the receiver is killed (SIGKILL) and started again", self._kill_receiver),
            (0.24, "the fleet publishes toggles and another campaign", self._publish),
            (OUTAGE[0], "tunnel: the connection is gone", self._enter_tunnel),
            (OUTAGE[1], "daylight: the connection is back, the backlog drains", self._leave_tunnel),
            (0.76, "the broker is killed (SIGKILL) and started again", self._kill_broker),
            (0.84, "somebody sends a tampered, an older and a foreign push", self._attack),
        ]

    async def play(self) -> dict[str, Any]:
        """Play everything; the agent's status when all is delivered.  Raises what went wrong."""
        started = time.monotonic()
        began_us = time.time_ns() // 1000
        self.record.drive_us = (began_us, began_us + round(self._length_s * 1e6))
        plot = self._plot
        with tqdm(total=100, bar_format="  {bar:40} {percentage:3.0f} %  {desc}", leave=False, disable=None) as bar:
            while (part := (time.monotonic() - started) / self._length_s) < 1.0 or plot:
                bar.n = min(100, round(part * 100))
                bar.refresh()
                self._world.agent.check_alive()
                if plot and part >= plot[0][0]:
                    _, text, act = plot.pop(0)
                    bar.set_description_str(text)
                    self._tell(f"{min(part, 1.0):4.0%}  {text}")
                    await act()
                else:
                    await asyncio.sleep(0.1)
        self._tell("100%  the drive is over; waiting until the lake has acknowledged every batch")
        return await self._world.until("every batch acknowledged", _delivered, AFTER_S)

    def _tell(self, text: str) -> None:
        self.record.acts.append(text)
        tqdm.write(f"  {text}", file=sys.stderr)

    async def _publish(self) -> None:
        self._oldest = everything(self._world.fleet, self._vehicle)
        signed = await self._world.fleet_command(
            "publish",
            "--toggles",
            str(self._documents["toggles"]),
            "--campaign",
            str(self._documents["changes"]),
            "--broker",
            f"localhost:{self._world.broker.port}",
        )
        await self._applied(signed["targets"])

    async def _applied(self, version: int) -> None:
        await self._world.until(f"push {version} is applied", lambda s: s["pushes"]["version"] >= version, 30.0)
        self.record.applied_version = version
        self._tell(f"      push {version} is applied")

    async def _kill_receiver(self) -> None:
        self._world.receiver.kill()
        self.record.receiver_kills += 1
        await asyncio.sleep(1.0)
        self._world.receiver.start()

    async def _enter_tunnel(self) -> None:
        await self._proxy.cut()
        self.record.outages_us.append((time.time_ns() // 1000, 0))

    async def _leave_tunnel(self) -> None:
        await self._proxy.mend()
        start, _ = self.record.outages_us.pop()
        self.record.outages_us.append((start, time.time_ns() // 1000))

    async def _kill_broker(self) -> None:
        self._world.broker.kill()
        self.record.broker_kills += 1
        await asyncio.sleep(1.0)
        await asyncio.to_thread(self._world.broker.start)

    async def _attack(self) -> None:
        await self._up_to_date()  # it would learn of the newer release by itself, and no attack would be of any use
        newer = str(self._documents["newer-toggles"])
        signed = await self._world.fleet_command("publish", "--toggles", newer)  # and nobody is told yet
        await self._world.fleet_command("init", fleet=self._foreign)
        for name in ("toggles", "newer-toggles", "toggles"):  # by its version alone the foreign push is the newest
            path = str(self._documents[name])
            await self._world.fleet_command("publish", "--toggles", path, fleet=self._foreign)
        bundles = attacks(
            everything(self._world.fleet, self._vehicle), self._oldest, everything(self._foreign, self._vehicle)
        )
        for name, bundle in bundles.items():
            before = await self._world.until("the agent is online", lambda s: s["link"]["state"] == "online", 60.0)
            count = sum(before["pushes"]["refused"].values())
            await self._publish_raw(topics.push(self._vehicle), bundle)

            def refused(status: Mapping[str, Any], count: int = count) -> bool:
                return bool(sum(status["pushes"]["refused"].values()) > count)

            after = await self._world.until(f"the {name} push is refused", refused, 30.0)
            reasons = after["pushes"]["refused"]
            reason = next(key for key in reasons if reasons[key] > before["pushes"]["refused"].get(key, 0))
            self.record.refused[name] = reason == name and after["pushes"]["version"] == before["pushes"]["version"]
            self._tell(f"      the {name} push is refused: {reason}")
        await self._tell_the_vehicle()
        await self._applied(signed["targets"])

    async def _up_to_date(self) -> None:
        """Have the vehicle ask what is new, and hear the answer, so that it does not ask soon again."""
        before = await self._world.until("the agent is online", lambda s: s["link"]["state"] == "online", 60.0)

        def answered(status: Mapping[str, Any]) -> bool:
            return bool(status["pushes"]["examined"] > before["pushes"]["examined"])

        await self._tell_the_vehicle()
        await self._world.until("the fleet has answered the agent", answered, 60.0)

    async def _tell_the_vehicle(self) -> None:
        await self._world.fleet_command("publish", "--broker", f"localhost:{self._world.broker.port}")

    async def _publish_raw(self, topic: str, payload: bytes) -> None:
        """As somebody who has the receiver's access to the broker, and not the fleet's keys."""
        fleet = self._world.fleet
        endpoint = Endpoint(
            "localhost",
            self._world.broker.port,
            fleet.ca_certificate,
            fleet.receiver_certificate,
            fleet.receiver_key,
            "demo-attacker",
        )
        for attempt in range(20):
            try:
                async with connect(endpoint) as connection:
                    await connection.publish(topic, payload)
                return
            except Transient:  # the broker may be coming up again
                if attempt == 19:
                    raise
                await asyncio.sleep(0.5)


def _delivered(status: Mapping[str, Any]) -> bool:
    sources = [source["state"] for source in status["sources"]]
    return all(state == "finished" for state in sources) and status["spool"]["waiting"] == 0
