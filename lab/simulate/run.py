"""Runs the simulation: connects all vehicles, lets them send, waits for the acknowledgements, and compares the lake.

Invariant: the measurement starts after all vehicles have connected, so it does not include the cost of connecting.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent, Transient, ungrouped
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, read_recipient
from fleet.state.registry import Registry
from lab.simulate.account import settle
from lab.simulate.cloud import Cloud, given_cloud, own_cloud
from lab.simulate.enrolment import enrol_many
from lab.simulate.figures import Measurement, Plan, figures_of
from lab.simulate.nudge import nudge_all
from lab.simulate.processes import Usage, allow_connections, total_usage
from lab.simulate.vehicle import Fleet, Vehicle
from lab.simulate.windows import record

HANDSHAKES: Final = 8
"""The limit of TLS handshakes at the same time.  More handshakes would only wait for the broker's one core."""

CONNECT_S: Final = 300.0
PATIENCE_S: Final = 300.0
"""Seconds that the last acknowledgements may take."""

_LOOK_S: Final = 0.2


def simulate(plan: Plan, given: tuple[FleetFolder, str, int] | None) -> dict[str, Any]:
    """Run a simulation and return its figures.

    `given` is an existing fleet with the host and port of its broker.  If it is None, a fleet is made for the
    simulation and removed afterwards.

    Raises: AgentError if the simulation cannot run, for example because the broker does not answer.
    """
    allow_connections(plan.vehicles)
    with tempfile.TemporaryDirectory(prefix="fleet-simulate-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        cloud = given_cloud(*given) if given else stack.enter_context(own_cloud(folder, plan.receivers))
        simulation = _Simulation(plan, cloud, folder)
        with ungrouped():
            measurement = asyncio.run(simulation.run())
        return figures_of(plan, cloud, measurement)


class _Simulation:
    """Runs one simulation.  All its vehicles run in this process and its event loop."""

    def __init__(self, plan: Plan, cloud: Cloud, folder: Path) -> None:
        self._plan = plan
        self._cloud = cloud
        self._folder = folder
        self._times_s: dict[str, float] = {}

    async def run(self) -> Measurement:
        """Enrol and connect the vehicles, let them send, compare the lake, and return the measurements."""
        vehicles = self._enrol()
        try:
            connecting = asyncio.Semaphore(HANDSHAKES)
            async with asyncio.TaskGroup() as tasks:
                keeping = [tasks.create_task(vehicle.run(connecting)) for vehicle in vehicles]
                keeping.append(tasks.create_task(_repeat(vehicles)))
                await self._connect(vehicles)
                # The cost of connecting is not measured, because a fleet connects once and then sends for hours.
                before = self._usage()
                begun_s = time.monotonic()
                nudging = [self._nudge(vehicles)] if self._plan.nudge else []
                driving = [self._drive(vehicle, place) for place, vehicle in enumerate(vehicles)]
                await asyncio.gather(*driving, *nudging)
                seconds = time.monotonic() - begun_s
                await _until(lambda: not any(vehicle.waiting for vehicle in vehicles), PATIENCE_S)
                after = self._usage()
                for task in keeping:
                    task.cancel()
        finally:
            self._revoke(vehicles)
        account = await asyncio.to_thread(settle, str(self._cloud.fleet.lake.resolve()), vehicles)
        return Measurement(vehicles, account, before, after, seconds, self._times_s)

    def _enrol(self) -> list[Vehicle]:
        begun_s = time.monotonic()
        fleet = self._cloud.fleet
        keys = self._folder / "vehicles"
        keys.mkdir(mode=0o700)
        shared = Fleet(
            read_recipient(fleet).public, read_ed25519(fleet.key("acks")).public_key(), record(self._plan.period_s)
        )
        enrolled = enrol_many(
            fleet, keys, self._plan.vehicles, host=self._cloud.host, port=self._cloud.port, now=datetime.now(UTC)
        )
        vehicles = [Vehicle(known.vehicle, key, endpoint, shared) for known, key, endpoint in enrolled]
        self._times_s["enrol_s"] = time.monotonic() - begun_s
        _print(f"{len(vehicles):,} vehicles enrolled in {self._times_s['enrol_s']:.1f} s")
        return vehicles

    async def _connect(self, vehicles: Sequence[Vehicle]) -> None:
        """Wait until all vehicles are online and their catalogues are acknowledged.

        Raises: Transient if vehicles cannot connect in time; Permanent if no receiver acknowledges.
        """
        begun_s = time.monotonic()

        async def introduce(vehicle: Vehicle) -> None:
            await vehicle.online.wait()
            await vehicle.introduce()

        try:
            async with asyncio.timeout(CONNECT_S), asyncio.TaskGroup() as tasks:
                for vehicle in vehicles:
                    tasks.create_task(introduce(vehicle))
        except TimeoutError as error:
            missing = sum(not vehicle.online.is_set() for vehicle in vehicles)
            raise Transient(
                f"{missing:,} vehicles are not connected after {CONNECT_S:.0f} s. Simulate fewer vehicles, or use a "
                "faster broker."
            ) from error
        if not await _until(lambda: not any(vehicle.waiting for vehicle in vehicles), PATIENCE_S):
            said = self._cloud.receivers_say()
            raise Permanent(
                f"Some vehicles got no acknowledgement in {PATIENCE_S:.0f} s. Check that a receiver is running.{said}"
            )
        self._times_s["connect_s"] = time.monotonic() - begun_s
        _print(
            f"all vehicles connected in {self._times_s['connect_s']:.1f} s and now send for {self._plan.minutes:g} min"
        )

    async def _drive(self, vehicle: Vehicle, place: int) -> None:
        """Send a batch of `vehicle` in every period.

        `place` is the vehicle's number from 0 on.  It delays the first batch, so that the batches of all vehicles are
        spread evenly over the period.
        """
        loop = asyncio.get_running_loop()
        begun_s = loop.time() + self._plan.period_s * place / self._plan.vehicles
        for number in range(max(1, round(self._plan.minutes * 60 / self._plan.period_s))):
            await asyncio.sleep(begun_s + number * self._plan.period_s - loop.time())
            await vehicle.send(place + number)

    async def _nudge(self, vehicles: Sequence[Vehicle]) -> None:
        await asyncio.sleep(self._plan.minutes * 60 / 2)
        await nudge_all(self._cloud, vehicles, self._folder)

    def _usage(self) -> dict[str, Usage]:
        return {"vehicle": total_usage([os.getpid()]), **self._cloud.usage()}

    def _revoke(self, vehicles: Sequence[Vehicle]) -> None:
        """Revoke the vehicles if the fleet existed before, so that their keys cannot be used later."""
        if self._cloud.broker is not None:
            return
        registry = Registry(self._cloud.fleet.vehicles)
        for vehicle in vehicles:
            registry.revoke(vehicle.name)


async def _repeat(vehicles: Sequence[Vehicle]) -> None:
    """Let the vehicles resend batches that were not acknowledged in time.  Run until cancelled."""
    while True:
        await asyncio.sleep(1.0)
        for vehicle in vehicles:
            if vehicle.waiting:
                await vehicle.send_again()


async def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


def _print(text: str) -> None:
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()
