"""The simulation itself: start what is needed, connect everybody, send for a while, wait, compare, report.

Invariant: what is measured is measured while the vehicles send, after all have connected; and a run counts as passed
only where the lake holds every batch and every sample once.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from agent.errors import AgentError, Permanent, Transient, first
from agent.formats.topics import PARTITIONS
from agent.link.mqtt import Endpoint, connect
from fleet.admin.create import create_fleet
from fleet.receiving.receiver import endpoint_of
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, read_recipient
from fleet.state.registry import Registry
from lab.mosquitto import Broker
from lab.process import Process, last_lines
from lab.simulate.account import Account, settle
from lab.simulate.enrolment import enrol_many
from lab.simulate.extrapolate import FLEETS, Measured, assumptions, need
from lab.simulate.processes import Usage, allow_connections, usage_of
from lab.simulate.vehicle import Fleet, Vehicle
from lab.simulate.windows import record

HANDSHAKES: Final = 8  # at once: more only queue for the broker's one core
CONNECT_S: Final = 300.0
PATIENCE_S: Final = 300.0  # for the last acknowledgements
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate.  `period_s` is also the length of the windows."""

    vehicles: int
    minutes: float
    period_s: float
    receivers: int


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where the vehicles connect; `processes` by part ("broker", "receiver"), empty where they are not ours."""

    fleet: FleetFolder
    host: str
    port: int
    processes: dict[str, list[int]]
    receivers: tuple[Process, ...] = ()


def simulate(plan: Plan, given: tuple[FleetFolder, str, int] | None) -> dict[str, Any]:
    """Run it against a fleet that is made for it, or a given one and its broker; the report.  Raises AgentError."""
    allow_connections(plan.vehicles)
    with tempfile.TemporaryDirectory(prefix="fleet-simulate-") as name:
        folder = Path(name)
        if given is not None:
            fleet, host, port = given
            asyncio.run(_try_broker(endpoint_of(fleet.require(), host, port, Share())))
            return _run(plan, Cloud(fleet, host, port, {}), folder)
        with _cloud(folder, plan.receivers) as cloud:
            return _run(plan, cloud, folder)


async def _try_broker(endpoint: Endpoint) -> None:
    """Raises AgentError where there is none, before anybody is enrolled."""
    async with connect(endpoint):
        pass


def _run(plan: Plan, cloud: Cloud, folder: Path) -> dict[str, Any]:
    try:
        return asyncio.run(_Simulation(plan, cloud, folder).run())
    except ExceptionGroup as group:
        ours, others = group.split(AgentError)
        if ours is None or others is not None:
            raise
        raise first(ours) from group


@contextlib.contextmanager
def _cloud(folder: Path, receivers: int) -> Iterator[Cloud]:
    """A new fleet with its broker and receivers, on loopback."""
    fleet = FleetFolder(folder / "fleet")
    create_fleet(fleet, suite="MLKEM768_X25519", broker_names=(), now=datetime.now(UTC))
    with Broker(fleet, folder / "broker") as broker, contextlib.ExitStack() as stack:
        started: list[Process] = []
        for share in shares(receivers):
            command = [sys.executable, "-m", "fleet", "receive", "--fleet", str(fleet.root)]
            command += ["--broker", f"localhost:{broker.port}", "--partitions", share, "--json"]
            log = folder / f"receiver-{len(started)}.log"
            process = Process(f"receiver of partitions {share}", command, log, os.environ)
            process.start()
            stack.callback(process.stop)
            started.append(process)
        _wait_for(started)
        assert broker.pid is not None
        pids = {"broker": [broker.pid], "receiver": [process.pid for process in started]}
        yield Cloud(fleet, "localhost", broker.port, pids, tuple(started))


def shares(receivers: int) -> list[str]:
    """The partitions, divided as evenly as they can be: "0-7/16", "8-15/16"."""
    edges = [PARTITIONS * number // receivers for number in range(receivers + 1)]
    return [f"{first}-{last - 1}/{PARTITIONS}" for first, last in pairwise(edges)]


def _wait_for(receivers: Sequence[Process]) -> None:
    deadline_s = time.monotonic() + 30.0
    while not all('"broker_connected"' in process.log.read_text() for process in receivers):
        for process in receivers:
            process.check_alive()
        if time.monotonic() > deadline_s:
            raise Permanent(f"the receiver does not connect:\n{last_lines(receivers[0].log)}")
        time.sleep(_LOOK_S)


class _Simulation:
    def __init__(self, plan: Plan, cloud: Cloud, folder: Path) -> None:
        self._plan = plan
        self._cloud = cloud
        self._folder = folder
        self._times: dict[str, float] = {}

    async def run(self) -> dict[str, Any]:
        vehicles = self._enrol()
        try:
            connecting = asyncio.Semaphore(HANDSHAKES)
            async with asyncio.TaskGroup() as tasks:
                keeping = [tasks.create_task(vehicle.run(connecting)) for vehicle in vehicles]
                keeping.append(tasks.create_task(_repeat(vehicles)))
                await self._connect(vehicles)
                before = self._usage()
                begun_s = time.monotonic()
                await asyncio.gather(*(self._drive(vehicle, place) for place, vehicle in enumerate(vehicles)))
                seconds = time.monotonic() - begun_s
                await _until(lambda: not any(vehicle.waiting for vehicle in vehicles), PATIENCE_S)
                after = self._usage()
                for task in keeping:
                    task.cancel()
        finally:
            self._revoke(vehicles)
        account = await asyncio.to_thread(settle, str(self._cloud.fleet.lake.resolve()), vehicles)
        return self._report(vehicles, account, before, after, seconds)

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
        self._times["enrol_s"] = time.monotonic() - begun_s
        _tell(f"{len(vehicles):,} vehicles enrolled in {self._times['enrol_s']:.1f} s")
        return vehicles

    async def _connect(self, vehicles: Sequence[Vehicle]) -> None:
        """Everybody online, and the catalogues in the lake."""
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
                f"{missing:,} vehicles are not connected after {CONNECT_S:.0f} s; simulate fewer, or a larger broker"
            ) from error
        if not await _until(lambda: not any(vehicle.waiting for vehicle in vehicles), PATIENCE_S):
            raise Permanent(f"no acknowledgement in {PATIENCE_S:.0f} s: does a receiver run?{self._receivers_say()}")
        self._times["connect_s"] = time.monotonic() - begun_s
        _tell(f"all connected in {self._times['connect_s']:.1f} s; sending for {self._plan.minutes:g} min")

    async def _drive(self, vehicle: Vehicle, place: int) -> None:
        """A batch every period, the vehicles spread over it."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time() + self._plan.period_s * place / self._plan.vehicles
        for number in range(max(1, round(self._plan.minutes * 60 / self._plan.period_s))):
            await asyncio.sleep(begun_s + number * self._plan.period_s - loop.time())
            await vehicle.send(place + number)

    def _usage(self) -> dict[str, Usage]:
        pids = {"vehicle": [os.getpid()], **self._cloud.processes}
        return {part: _sum([usage_of(pid) for pid in each]) for part, each in pids.items()}

    def _revoke(self, vehicles: Sequence[Vehicle]) -> None:
        """In a fleet that goes on living nobody shall use these names again."""
        if self._cloud.processes:
            return
        registry = Registry(self._cloud.fleet.vehicles)
        for vehicle in vehicles:
            registry.revoke(vehicle.name)

    def _receivers_say(self) -> str:
        return "".join(f"\n{process.name}:\n{last_lines(process.log)}" for process in self._cloud.receivers)

    def _report(
        self,
        vehicles: Sequence[Vehicle],
        account: Account,
        before: dict[str, Usage],
        after: dict[str, Usage],
        seconds: float,
    ) -> dict[str, Any]:
        for process in self._cloud.receivers:
            process.stop()
        totals = [json.loads(last_lines(process.log, 1)) for process in self._cloud.receivers]
        batches = sum(1 for vehicle in vehicles for samples in vehicle.sent.samples.values() if samples)
        cpu_s = {part: after[part].cpu_s - before[part].cpu_s for part in after}
        latencies_s = sorted(s for vehicle in vehicles for s in vehicle.sent.latencies_s)
        commits = sum(each["commits"] for each in totals)
        figures: dict[str, Any] = {
            "vehicles": self._plan.vehicles,
            "period_s": self._plan.period_s,
            "receivers": len(self._cloud.receivers),
            "seconds": seconds,
            "passed": account.adds_up and not any(vehicle.waiting or vehicle.sent.refused for vehicle in vehicles),
            "batches_sent": account.batches_sent,
            "samples_sent": account.samples_sent,
            "lost_batches": account.batches_lost,
            "lost_samples": account.samples_lost,
            "double_batches": account.batches_double,
            "double_samples": account.samples_double,
            "not_acknowledged": sum(vehicle.waiting for vehicle in vehicles),
            "refused": sum(len(vehicle.sent.refused) for vehicle in vehicles),
            "sent_again": sum(vehicle.sent.again for vehicle in vehicles),
            "reconnects": sum(vehicle.sent.reconnects for vehicle in vehicles),
            "batches_per_s": batches / seconds,
            "samples_per_s": account.samples_sent / seconds,
            "batch_bytes": sum(vehicle.sent.size_bytes for vehicle in vehicles) / account.batches_sent,
            "batches_per_commit": account.batches_sent / commits if commits else None,
            **{f"latency_p{p}_ms": _percentile(latencies_s, p) for p in (50, 95, 99)},
            **{f"{part}_cpu_ms_per_batch": None for part in ("broker", "receiver")},
            **{f"{part}_cpu_ms_per_batch": spent / batches * 1e3 for part, spent in cpu_s.items()},
            "vehicles_resident_mb": after["vehicle"].resident_bytes / 1e6,
            "broker_resident_mb": after["broker"].resident_bytes / 1e6 if "broker" in after else None,
            "receivers_resident_mb": after["receiver"].resident_bytes / 1e6 if "receiver" in after else None,
            "lake_bytes": _size(self._cloud.fleet.lake) if self._cloud.processes else None,
            **self._times,
        }
        return figures | self._extrapolated(figures)

    def _extrapolated(self, figures: dict[str, Any]) -> dict[str, Any]:
        if not self._cloud.processes:
            return {"extrapolation": [], "assumptions": []}
        measured = Measured(
            period_s=self._plan.period_s,
            batch_bytes=figures["batch_bytes"],
            batch_samples=figures["samples_sent"] / (figures["batches_sent"] - self._plan.vehicles),
            broker_cpu_s=figures["broker_cpu_ms_per_batch"] / 1e3,
            receiver_cpu_s=figures["receiver_cpu_ms_per_batch"] / 1e3,
            broker_bytes_per_connection=figures["broker_resident_mb"] * 1e6 / self._plan.vehicles,
            batches_per_commit=figures["batches_per_commit"],
            lake_bytes_per_sample=figures["lake_bytes"] / figures["samples_sent"],
        )
        return {
            "extrapolation": [asdict(need(vehicles, measured)) for vehicles in FLEETS],
            "assumptions": list(assumptions(measured)),
        }


async def _repeat(vehicles: Sequence[Vehicle]) -> None:
    """Vehicles send again what nobody acknowledged.  Runs until cancelled."""
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


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(sum(usage.cpu_s for usage in usages), sum(usage.resident_bytes for usage in usages))


def _percentile(ordered_s: Sequence[float], percent: int) -> float | None:
    if len(ordered_s) < 2:
        return ordered_s[0] * 1e3 if ordered_s else None
    return statistics.quantiles(ordered_s, n=100, method="inclusive")[percent - 1] * 1e3


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _tell(text: str) -> None:
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()
