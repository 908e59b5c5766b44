"""Plays the drill: a release that some vehicles fail on is rolled out, stops at its stage and goes back.

The broker, the receiver and `fleet rollout run` are real programs, and the lake is a real one.  `fleet rollout run` is
killed with SIGKILL again and again, and started again each time.  Afterwards a good release is rolled out to the end.

    1. all vehicles get a first release
    2. a release is rolled out on which `failing` vehicles fail
    3. the roll-out must have stopped at the first stage that reached such a vehicle, and all vehicles that had the new
       release must have the first one again; no vehicle beyond the stage may ever have had it
    4. a good release is rolled out, and must reach all vehicles
"""

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent, ungrouped
from agent.formats.down.audience import draw, salt_of
from agent.pushes.release import Release
from fleet.publishing.nudge import nudge
from fleet.publishing.publish import Publication, publish
from fleet.state.keys import read_ed25519, read_recipient
from lab.fleet import fleet_command
from lab.machine import ThisMachine
from lab.process import Process
from lab.rollout.vehicle import PushedVehicle
from lab.simulate.cloud import Cloud, own_cloud
from lab.simulate.enrolment import enrol_many
from lab.simulate.processes import allow_connections
from lab.simulate.vehicle import Fleet
from lab.simulate.windows import record

HANDSHAKES: Final = 8
PATIENCE_S: Final = 300.0
KILL_S: Final = (1.5, 4.0)
"""The time after which `fleet rollout run` is killed.  It needs about a second to start."""
_LOOK_S: Final = 0.2
_CAMPAIGN: Final = "drive"
_SALT: Final = salt_of(f"campaigns/{_CAMPAIGN}.json")


@dataclass(frozen=True, slots=True)
class Drill:
    """Holds the settings of a drill.  `stages`, `hold` and `stop_if` are the options of `fleet rollout start`.

    `kills` is how often `fleet rollout run` is killed in each roll-out, at most.
    """

    vehicles: int
    failing: int
    stages: str
    hold: str
    stop_if: str
    kills: int
    seed: int


def play(drill: Drill) -> dict[str, Any]:
    """Play the drill and return its report.  Raises: AgentError if it cannot be played."""
    allow_connections(drill.vehicles)
    with tempfile.TemporaryDirectory(prefix="fleet-rollout-") as name, own_cloud(Path(name), 1) as cloud, ungrouped():
        return asyncio.run(_Play(drill, cloud, Path(name)).run())


class _Play:
    def __init__(self, drill: Drill, cloud: Cloud, folder: Path) -> None:
        self._drill = drill
        self._cloud = cloud
        self._folder = folder
        self._random = random.Random(drill.seed)  # noqa: S311 (which vehicles fail)
        self._vehicles: list[PushedVehicle] = []
        self._failing: set[str] = set()
        self._bad = _campaign(2_000)
        self._begun_s = time.monotonic()

    async def run(self) -> dict[str, Any]:
        self._vehicles = self._enrol()
        connecting = asyncio.Semaphore(HANDSHAKES)
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(vehicle.run(connecting)) for vehicle in self._vehicles]
            await _until(lambda: all(vehicle.online.is_set() for vehicle in self._vehicles), "all vehicles connect")
            keeping += [tasks.create_task(vehicle.work()) for vehicle in self._vehicles]
            keeping.append(tasks.create_task(_repeat(self._vehicles)))
            first, good = _campaign(1_000), _campaign(3_000)
            await self._publish(first)
            await _until(lambda: self._count(first) == len(self._vehicles), "all vehicles have the first release")
            _print(f"{len(self._vehicles):,} vehicles have the first release")
            stopped = await self._roll_out(self._bad, first, self._failing)
            finished = await self._roll_out(good, good, set())
            await _until(lambda: not any(vehicle.waiting for vehicle in self._vehicles), "all receipts arrive")
            status = await asyncio.to_thread(fleet_command, self._cloud.fleet, "status", "--limit", "0")
            for task in keeping:
                task.cancel()
        return {
            "vehicles": len(self._vehicles),
            "failing": len(self._failing),
            "plan": {"stages": self._drill.stages, "hold": self._drill.hold, "stop_if": self._drill.stop_if},
            "stopped": stopped,
            "finished": finished,
            "status": status,
            "seconds": round(time.monotonic() - self._begun_s, 1),
            "passed": stopped["passed"] and finished["passed"],
        }

    def _enrol(self) -> list[PushedVehicle]:
        fleet = self._cloud.fleet
        keys = self._folder / "vehicles"
        keys.mkdir(mode=0o700)
        acks = read_ed25519(fleet.key("acks")).public_key()
        shared = Fleet(read_recipient(fleet).public, acks, record(30.0))
        root = (fleet.metadata / "1.root.json").read_bytes()
        enrolled = enrol_many(
            fleet, keys, self._drill.vehicles, host=self._cloud.host, port=self._cloud.port, now=datetime.now(UTC)
        )

        # The failing vehicles are chosen by their places in the roll-out, so a seed gives about the same drill each
        # time, although the pseudonyms are new.
        in_order = sorted((known.vehicle for known, _, _ in enrolled), key=lambda name: draw(_SALT, name))
        self._failing = set(self._random.sample(in_order, self._drill.failing))

        def fails(release: Release) -> bool:
            return self._bad in release.documents.values()

        return [
            PushedVehicle(
                replace(known.attributes, software="1.0"),
                key,
                endpoint,
                shared,
                folder=keys / f"{known.vehicle}.pushes",
                trusted_root=root,
                fails=fails if known.vehicle in self._failing else lambda _: False,
            )
            for known, key, endpoint in enrolled
        ]

    async def _publish(self, content: bytes) -> None:
        assert self._cloud.broker is not None
        files = [("campaign", self._document(content))]
        await asyncio.to_thread(publish, self._cloud.fleet, Publication(files), now=datetime.now(UTC))
        await nudge(self._cloud.fleet, self._cloud.host, self._cloud.broker.fleet_port)

    async def _roll_out(self, content: bytes, expected: bytes, failing: set[str]) -> dict[str, Any]:
        """Roll `content` out, wait until all vehicles have `expected`, and return the report."""
        assert self._cloud.broker is not None
        begun_s = time.monotonic()
        drill = self._drill
        options = ["--campaign", str(self._document(content)), "--stages", drill.stages, "--hold", drill.hold]
        options += ["--stop-if", drill.stop_if, "--need", "100%"]
        options += ["--broker", f"{self._cloud.host}:{self._cloud.broker.fleet_port}"]
        await asyncio.to_thread(fleet_command, self._cloud.fleet, "rollout", "start", *options)
        status, kills = await self._carry_out()
        ended_s = time.monotonic()
        await _until(lambda: self._count(expected) == len(self._vehicles), "all vehicles have the expected release")
        found = await asyncio.to_thread(fleet_command, self._cloud.fleet, "rollout", "status")
        # The oracle is the share's definition: a stage of P % has the vehicles that draw below P * 10,000.
        limits = [float(percent) * 10_000 for percent in drill.stages.split(",")]
        drawn = {vehicle.name: draw(_SALT, vehicle.name) for vehicle in self._vehicles}
        first_bad = min((drawn[name] for name in failing), default=None)
        last = limits[-1] if first_bad is None else next(limit for limit in limits if first_bad < limit)
        reached = {vehicle.name for vehicle in self._vehicles if content in vehicle.had}
        allowed = {name for name, number in drawn.items() if number < last}
        stages = [{**stage, "seconds": round(stage["ended_s"] - stage["began_s"], 2)} for stage in found["stages"]]
        wanted_phase = "stopped" if failing else "done"
        return {
            "phase": found["phase"],
            "why": found["why"],
            "stages": stages,
            "vehicles_reached": len(reached),
            "vehicles_of_its_stages": len(allowed),
            "vehicles_failed": sum(stage["failed"] for stage in stages),
            "kills": kills,
            "exit_status": status,
            "seconds": round(ended_s - begun_s, 1),
            "seconds_until_all_vehicles_have_the_expected_release": round(time.monotonic() - begun_s, 1),
            "passed": found["phase"] == wanted_phase
            and stages[-1]["percent"] * 10_000 == last
            and reached == allowed
            and status == (1 if failing else 0),
        }

    async def _carry_out(self) -> tuple[int, int]:
        """Run `fleet rollout run`, kill it several times, and return its last exit status and the number of kills."""
        command = [*ThisMachine().python("fleet"), "rollout", "--fleet", str(self._cloud.fleet.root), "run"]
        process = Process("roll-out", [*command, "--every", "0.5"], self._folder / "rollout.log")
        kills = 0
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)
            while True:
                process.start()
                patience_s = self._random.uniform(*KILL_S) if kills < self._drill.kills else PATIENCE_S
                deadline_s = time.monotonic() + patience_s
                while process.running and time.monotonic() < deadline_s:
                    await asyncio.sleep(_LOOK_S)
                if not process.running:
                    return process.wait(), kills
                if kills >= self._drill.kills:
                    raise Permanent(f"The roll-out did not end in {PATIENCE_S:.0f} s:\n{process.output()[-2000:]}")
                process.kill()
                kills += 1

    def _document(self, content: bytes) -> Path:
        file = self._folder / f"{_CAMPAIGN}.json"
        file.write_bytes(content)
        return file

    def _count(self, content: bytes) -> int:
        """Return how many vehicles have `content` in force, and confirmed."""
        return sum(
            (release := vehicle.pushes.current()) is not None
            and content in release.documents.values()
            and not vehicle.pushes.in_trial
            for vehicle in self._vehicles
        )


def _campaign(period_ms: int) -> bytes:
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    document = {"name": _CAMPAIGN, "collectionScheme": scheme, "signalsToCollect": [{"name": "*.Speed"}]}
    return json.dumps(document).encode()


async def _repeat(vehicles: Sequence[PushedVehicle]) -> None:
    while True:
        await asyncio.sleep(1.0)
        for vehicle in vehicles:
            if vehicle.waiting:
                await vehicle.send_again()


async def _until(done: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline_s:
            raise Permanent(f"Timed out after {PATIENCE_S:.0f} s while waiting until {what}.")
        await asyncio.sleep(_LOOK_S)


def _print(text: str) -> None:
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()
