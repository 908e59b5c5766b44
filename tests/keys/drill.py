"""Change every key of a running fleet, and count the samples: real agents, a real mosquitto, a real receiver.

Some vehicles are offline during all rotations: they collect meanwhile, seal to the old key, sign with the old device
key, and come back at the end.  Each vehicle replays a log of its own, so the number of samples that must arrive is
known without the code under test: frames in the log times signals of their message (cantools).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import cantools
from cryptography import x509

from agent.errors import Permanent
from fleet.admin.enrol import enrol
from fleet.lake.query import query
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_certificate
from fleet.state.registry import Registry
from lab.fleet import FAST_SUITE, MODEL, fleet_command, make_fleet
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.road import Road
from lab.vehicle import Agent, Vehicle, collect_everything, delivered
from tests.keys.result import Result

DATABASE: Final = Path(__file__).parents[2] / "can_dbc" / "dbc" / "demo_powertrain.dbc"
MESSAGE: Final = "VehicleMotion"
FRAMES_PER_S: Final = 10
PATIENCE_S: Final = 240.0
_SETTINGS: Final = {
    "telemetry": "increment_s = 1.0",
    "spool": "reserve_mb = 0",
    "pushes": "trial_s = 3.0",
    # On a busy machine, a shorter time for acknowledgements makes 20 vehicles send everything again and again.
    "uplink": "ack_timeout_s = 30.0\nbackoff_max_s = 2.0",
}


class _OfflineRoad:
    """Runs the road of the vehicles that go offline, in a thread with an event loop of its own."""

    def __init__(self, broker_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._road = Road(broker_port)
        self.mend()

    @property
    def port(self) -> int:
        return self._road.port

    def mend(self) -> None:
        asyncio.run_coroutine_threadsafe(self._road.mend(), self._loop).result()

    def cut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._road.cut(), self._loop).result()

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)


class Drill:
    """Runs one drill in the new folder `folder`; `tell` gets a line for each step."""

    def __init__(self, folder: Path, *, vehicles: int, offline: int, seconds: int, tell: Callable[[str], None]) -> None:
        self.fleet: FleetFolder = make_fleet(folder / "fleet", FAST_SUITE)
        self.broker = Broker(self.fleet, folder / "broker")
        self.receiver = Receiver(self.fleet, self.broker.fleet_port, folder / "receiver.log")
        self.result = Result(vehicles, offline, frames_per_vehicle=seconds * FRAMES_PER_S)
        self._folder = folder
        self._tell = tell
        self._agents: list[Agent] = []
        self._first_certificates: dict[str, str] = {}

    def run(self) -> Result:
        """Run the drill, and return its result.  Raises: Permanent if a step does not succeed in time."""
        with ExitStack() as stack:
            self.broker.start()
            stack.callback(self.broker.stop)
            road = _OfflineRoad(self.broker.port)
            stack.callback(road.close)
            self._make_vehicles(road.port)
            stack.enter_context(self.receiver.running_now())
            self.receiver.until_connected()
            for agent in self._agents:
                stack.callback(agent.kill)
                agent.start()
            self._wait(self._agents, lambda status: status["link"]["state"] == "online", "online")
            road.cut()
            online = self._agents[: self.result.vehicles - self.result.offline]
            self._rotate(online)
            self.result.needed_old_key["offline"] = self._needing_old_key()
            self._step("offline vehicles back")
            road.mend()
            self._followed(self._agents)
            self._done("offline vehicles back")
            self._finish_authority()
            self._wait(self._agents, delivered, "delivered")
            for agent in self._agents:
                if agent.stop() != 0:
                    raise Permanent(f"The agent of {agent.log} did not stop cleanly.")
            self.receiver.stop()
        self.result.needed_old_key["end"] = self._needing_old_key()
        self._count()
        return self.result

    def _make_vehicles(self, offline_port: int) -> None:
        message = cantools.database.load_file(DATABASE).get_message_by_name(MESSAGE)
        self.result.samples_expected = self.result.vehicles * self.result.frames_per_vehicle * len(message.signals)
        for number in range(self.result.vehicles):
            is_offline = number >= self.result.vehicles - self.result.offline
            vehicle = Vehicle(
                self._folder / f"vehicle-{number}",
                broker_port=offline_port if is_offline else self.broker.port,
                buses=f'[bus.can0]\ndbc = ["{DATABASE}"]',
                sources='[[sources]]\nkind = "replay"\nlog = "drive.log"',
                **_SETTINGS,
            )
            # Half of the certificates are due, so these vehicles renew as soon as they connect.
            now = datetime.now(UTC)
            days, issued = (10, now - timedelta(days=8)) if number % 2 else (3_000, now)
            record = enrol(self.fleet, vehicle.identity, MODEL, days=days, now=issued)
            self._first_certificates[record.vehicle] = record.certificate_pem
            vehicle.write()
            vehicle.write_campaigns(collect_everything(5_000))
            _write_log(vehicle.folder / "drive.log", self.result.frames_per_vehicle, message.frame_id, message.length)
            self._agents.append(vehicle.agent(vehicle.folder / "agent.log"))

    # ---------------------------------------------------------------- rotations

    def _rotate(self, online: list[Agent]) -> None:
        self._step("device certificates")
        due = [agent for number, agent in enumerate(online) if number % 2]
        self._until(lambda: all(agent.said("certificate_in_use") for agent in due), "renewed certificates")
        self._done("device certificates")

        self._step("sealing key")
        rotated = fleet_command(self.fleet, "keys", "rotate", "sealing")
        self._followed(online)
        self.result.versions["sealing_key"] = rotated["key_id"]
        self._until(lambda: all(f'"sealing_key": "{rotated["key_id"]}"' in a.output() for a in online), "sealing")
        self._done("sealing key")

        self._step("root keys and targets key")
        self.result.versions["root"] = self._hold_ceremony()
        self._followed(online)
        self._done("root keys and targets key")

        self._step("authority")
        self._authority("announced")
        self._followed(online)
        self._authority("switched")
        self._followed(online)
        self._until(lambda: self._renewed() >= len(online), "certificates of the new authority")
        self._done("authority")

    def _hold_ceremony(self) -> int:
        """Replace root2 and the targets key, and return the version of the new root."""
        paper, new = self._folder / "ceremony.json", self._folder / "root-new.pem"
        root = lambda *words: fleet_command(self.fleet, "keys", "root", *map(str, words))  # noqa: E731
        public = root("key", "--out", new)["public"]
        root("start", "--replace", "targets", "--replace", f"root2={public}", "--out", paper)
        signatures = []
        for name in ("root1", "root3"):
            signatures.append(self._folder / f"{name}.sig")
            root("sign", paper, "--key", self.fleet.key(name), "--out", signatures[-1])
        return int(root("import", paper, *signatures)["root"])

    def _authority(self, expected: str) -> None:
        step = fleet_command(self.fleet, "keys", "rotate", "authority")
        if step["step"] != expected:
            raise Permanent(f"The rotation of the authority is {step['step']}, not {expected}.")
        self._restart_broker()

    def _finish_authority(self) -> None:
        self._step("end of the old authority")
        self._until(lambda: self._renewed() >= self.result.vehicles, "certificates of the new authority")
        # Each vehicle has connected with its new certificate before the old authority ends.
        self._until(lambda: all(a.output().count('"certificate_in_use"') for a in self._agents), "new certificates")
        self._wait(self._agents, lambda status: status["link"]["state"] == "online", "online")
        self._authority("finished")
        self._followed(self._agents)
        self._done("end of the old authority")

    def _restart_broker(self) -> None:
        connected = self.receiver.output().count('"broker_connected"')
        self.broker.stop()
        self.broker.start()
        self.receiver.until_connected(connected + 1, PATIENCE_S)

    def _followed(self, agents: list[Agent]) -> None:
        """Notify the vehicles, and wait until each has the newest release in force, past its trial."""
        address = f"localhost:{self.broker.fleet_port}"
        published = fleet_command(self.fleet, "publish", "--broker", address)
        self._wait(
            agents,
            lambda status: status["pushes"]["version"] == published["targets"] and not status["pushes"]["in_trial"],
            f"following release {published['targets']}",
        )

    def _needing_old_key(self) -> int:
        """Return how many vehicles still need the earlier sealing key, as `fleet keys list` counts them."""
        sealing = fleet_command(self.fleet, "keys", "list")["sealing"]
        return int(sealing["waiting"] + sealing["never_heard"] + sealing["incomplete"])

    def _renewed(self) -> int:
        """Return how many vehicles have certificates of the authority that issues them now."""
        issuing = read_certificate(self.fleet.ca_certificate).subject
        registry = Registry(self.fleet.vehicles)
        return sum(registry.require(name).certificates[0].issuer == issuing for name in registry.names())

    # ---------------------------------------------------------------- waiting and counting

    def _wait(self, agents: list[Agent], test: Callable[[dict[str, Any]], object], what: str) -> None:
        for agent in agents:
            agent.until_status(test, what, PATIENCE_S)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.receiver.check_alive()
            if time.monotonic() > deadline_s:
                raise Permanent(f"Timed out after {PATIENCE_S:.0f} s while waiting for: {what}.")
            time.sleep(0.5)

    def _step(self, name: str) -> None:
        self._tell(f"{name} ...")
        self.result.seconds[name] = time.monotonic()

    def _done(self, name: str) -> None:
        self.result.seconds[name] = round(time.monotonic() - self.result.seconds[name], 1)

    def _count(self) -> None:
        lake = str(self.fleet.lake)
        number = lambda sql: int(query(lake, sql).column(0)[0].as_py())  # noqa: E731
        self.result.samples_in_lake = number("SELECT count(*) FROM samples")
        self.result.doubles = number("SELECT count(*) - count(DISTINCT (vehicle, signal, time)) FROM samples") + number(
            "SELECT count(*) - count(DISTINCT (vehicle, epoch, seq)) FROM batches"
        )
        self.result.losses = len(fleet_command(self.fleet, "query", "losses"))
        registry = Registry(self.fleet.vehicles)
        self.result.certificates_renewed = sum(
            x509.load_pem_x509_certificate(registry.require(name).certificate_pem.encode()).issuer
            == read_certificate(self.fleet.ca_certificate).subject
            and registry.require(name).certificate_pem != first
            for name, first in self._first_certificates.items()
        )


def _write_log(path: Path, frames: int, can_id: int, length: int) -> None:
    """Write a candump log of `frames` frames whose data count up."""
    start_s = 1_790_000_000
    with path.open("w") as log:
        for number in range(frames):
            data = (number * 0x0101_0101_0101).to_bytes(8, "little")[:length].hex().upper()
            log.write(f"({start_s + number / FRAMES_PER_S:.6f}) can0 {can_id:03X}#{data}\n")
