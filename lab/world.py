"""Builds a world: a fleet with one vehicle, whose broker, receiver and agent are real programs on loopback.

The machine of the vehicle and the machine of the fleet are parameters, so the same scenario runs anywhere.  `World`
starts no program by itself.  Each program can be started and killed separately.  All programs are stopped, by their
process ids, when the world ends.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import Permanent
from agent.system.tasks import whole
from fleet.state.folder import FleetFolder
from lab.fleet import fleet_command
from lab.machine import Machine, ThisMachine
from lab.mosquitto import Broker
from lab.process import last_lines
from lab.receiver import Receiver
from lab.vehicle import Vehicle

_LOOK_S = 0.2


class World:
    """Holds a world in `folder`: the folders of `fleet` and `vehicle`, and the programs `broker`, `receiver`, `agent`.

    Use the world as a context manager, which stops the programs at the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vehicle_machine: Machine | None = None,
        fleet_machine: Machine | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        """Prepare the programs.  `limits` replaces limits of the agent that agent.toml cannot set."""
        self.folder = folder
        self.fleet = FleetFolder(folder / "fleet")
        self.fleet_machine = fleet_machine or ThisMachine()
        self.broker = Broker(self.fleet, folder / "broker", machine=self.fleet_machine)
        self.vehicle = Vehicle(folder / "vehicle", broker_port=self.broker.port, machine=vehicle_machine, limits=limits)
        self.agent = self.vehicle.agent(folder / "agent.log")
        self.route_receiver(self.broker.fleet_port)

    def route_receiver(self, port: int) -> None:
        """Make the receiver connect to `port`, for example that of a road.  Call this before the receiver starts."""
        self.receiver = Receiver(self.fleet, port, self.folder / "receiver.log", machine=self.fleet_machine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The agent stops first, so that it can store its open windows and still reaches the broker meanwhile.
        self.agent.stop()
        self.receiver.stop()
        self.broker.stop()

    async def fleet_command(self, verb: str, *arguments: str, fleet: FleetFolder | None = None) -> Any:
        """Run the command `fleet VERB ...` and return the parsed JSON.

        The command works on `fleet`, or on the fleet of this world if `fleet` is None.

        Raises: Permanent if the command fails.
        """
        # Even if the caller is cancelled, the command is waited for, so that no program outlives the world.
        machine = self.fleet_machine
        return await whole(asyncio.to_thread(fleet_command, fleet or self.fleet, verb, *arguments, machine=machine))

    async def status(self) -> dict[str, Any] | None:
        """Return the agent's status, or None while the agent does not answer."""
        return await asyncio.to_thread(self.agent.status_or_none)

    async def until(self, condition: str, test: Callable[[dict[str, Any]], object], timeout_s: float) -> dict[str, Any]:
        """Wait until the agent's status passes `test`, and return that status.  `condition` names the test in errors.

        Raises: Permanent if agent or receiver ends first, or if `timeout_s` seconds pass first.  The error shows the
        ends of the logs.
        """
        deadline_s = time.monotonic() + timeout_s
        status: dict[str, Any] | None = None
        while time.monotonic() < deadline_s:
            self.agent.check_alive()
            self.receiver.check_alive()
            status = await self.status()
            if status is not None and test(status):
                return status
            await asyncio.sleep(_LOOK_S)
        logs = "\n".join(f"{one.name}:\n{last_lines(one.log)}" for one in (self.agent, self.receiver))
        raise Permanent(
            f"Timed out after {timeout_s:.0f} s while waiting for this condition: {condition}.\n"
            f"The agent's last status: {json.dumps(status)}\nThe ends of the logs:\n{logs}"
        )
