"""Publishes the fleet's documents to the demonstration's vehicle, and sends the forged pushes of an attacker."""

import asyncio
from typing import Any, Final

from agent.errors import Transient
from agent.formats import topics
from agent.link.endpoint import Endpoint
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from lab.demo.attacks import attacks, everything
from lab.demo.documents import Documents
from lab.world import World

ANSWER_S: Final = 60.0
"""Seconds that the vehicle may take to answer.  It verifies in a child process, which is slow on a busy machine."""

_ATTEMPTS: Final = 20


class Publisher:
    """Publishes `documents` to one vehicle, and attacks the vehicle.

    `publish` and `attack` return only after the vehicle has answered.
    """

    def __init__(self, world: World, vehicle: str, documents: Documents) -> None:
        self._world = world
        self._vehicle = vehicle
        self._documents = documents
        self._foreign = FleetFolder(world.folder / "foreign-fleet")
        self._oldest = b""
        self.applied_version = 0

    async def publish(self) -> None:
        """Publish toggles and another campaign, and wait until the vehicle has applied both."""
        self._oldest = everything(self._world.fleet, self._vehicle)
        files = ("--toggles", str(self._documents.toggles), "--campaign", str(self._documents.changes))
        # The demonstration collects nearly everything, which exceeds the budget of a real fleet.
        signed = await self._world.fleet_command("publish", *files, "--yes-this-is-large", *self._broker())
        self.applied_version = await self._applied(signed["targets"])

    async def attack(self) -> dict[str, bool]:
        """Send three forged pushes, then publish a genuine push.

        Return for each forged push whether the vehicle refused it for the expected reason and kept its release.
        """
        # The vehicle must not ask for news during the attacks.  It would fetch the newer release, and the attacks would
        # prove nothing.
        await self._up_to_date()
        signed = await self._world.fleet_command("publish", "--toggles", str(self._documents.newer_toggles))
        await self._create_foreign_fleet()
        bundles = attacks(
            everything(self._world.fleet, self._vehicle), self._oldest, everything(self._foreign, self._vehicle)
        )
        refused = {name: await self._refuses(name, bundle) for name, bundle in bundles.items()}
        await self._nudge()
        self.applied_version = await self._applied(signed["targets"])
        return refused

    async def _create_foreign_fleet(self) -> None:
        await self._world.fleet_command("init", fleet=self._foreign)
        # The other fleet answers only vehicles that it has enrolled.
        record = Registry(self._world.fleet.vehicles).read(self._vehicle)
        assert record is not None
        Registry(self._foreign.vehicles).add(record)
        # After three releases the foreign push has the highest version, so that only its key is wrong.
        for file in (self._documents.toggles, self._documents.newer_toggles, self._documents.toggles):
            await self._world.fleet_command("publish", "--toggles", str(file), fleet=self._foreign)

    async def _refuses(self, name: str, bundle: bytes) -> bool:
        """Send one forged push.  Return whether the vehicle refused it for the reason `name` and kept its release."""
        before = (await self._online())["pushes"]
        await self._send(bundle)
        count = sum(before["refused"].values())
        status = await self._world.until(
            f"the {name} push is refused", lambda s: sum(s["pushes"]["refused"].values()) > count, ANSWER_S
        )
        after = status["pushes"]
        return _added(before["refused"], after["refused"]) == [name] and after["version"] == before["version"]

    async def _up_to_date(self) -> None:
        """Make the vehicle ask for news now, and wait for the answer.  The vehicle then does not ask again soon."""
        examined = (await self._online())["pushes"]["examined"]
        await self._nudge()
        await self._world.until(
            "the fleet has answered the agent", lambda s: s["pushes"]["examined"] > examined, ANSWER_S
        )

    async def _online(self) -> dict[str, Any]:
        return await self._world.until("the agent is online", lambda s: s["link"]["state"] == "online", ANSWER_S)

    async def _applied(self, version: int) -> int:
        status = await self._world.until(
            f"push {version} is applied", lambda s: s["pushes"]["version"] >= version, ANSWER_S
        )
        return int(status["pushes"]["version"])

    async def _nudge(self) -> None:
        await self._world.fleet_command("publish", *self._broker())

    def _broker(self) -> tuple[str, str]:
        return "--broker", f"localhost:{self._world.broker.fleet_port}"

    async def _send(self, bundle: bytes) -> None:
        """Publish `bundle` like an attacker who stole the receiver's TLS key, but not the fleet's signing keys."""
        fleet = self._world.fleet
        endpoint = Endpoint(
            "localhost",
            self._world.broker.fleet_port,
            fleet.ca_certificate,
            fleet.receiver_certificate,
            fleet.receiver_key,
            "demo-attacker",
        )
        for attempt in range(_ATTEMPTS):
            try:
                async with connect(endpoint) as connection:
                    await connection.publish(topics.push(self._vehicle), bundle)
                return
            except Transient:  # The plot kills the broker before the attack, and the broker may still be starting.
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.5)


def _added(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [reason for reason, count in after.items() if count > before.get(reason, 0)]
