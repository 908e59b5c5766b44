"""Push releases that do harm to a real agent, and see that each is taken back, with its receipt in the lake.

Broker, receiver and agent are real programs.  The agent runs as under systemd: it is started again when it ends, and
killed when the watchdog is not fed.  After each case, a good release must pass its trial.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent
from fleet.admin.create import create_fleet
from fleet.lake.query import query
from fleet.state.folder import FleetFolder
from lab.faulty_agent import FLAG
from lab.machine import ThisMachine
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.service import Service
from lab.vehicle import Agent, collect_everything
from tests.agent.car import DATABASES, Car, campaign, vehicle
from tests.trial.signing import sign

TRIAL_S: Final = 20.0
# The service's unit has 30 s, 30 s and 5 s.
WATCHDOG_S: Final = 30.0
START_S: Final = 30.0
RESTART_S: Final = 0.5
PATIENCE_S: Final = 300.0
_GOOD_FLAG: Final = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}


@dataclass(frozen=True)
class Case:
    """A release that does harm.  `bounds` are those that may be named in its receipt; without any, it is refused.

    `most_s` is the longest time that may pass from the release in force to the release before in force again.
    """

    name: str
    documents: dict[str, bytes]
    bounds: frozenset[str] = frozenset()
    reason: str = "unhealthy"
    most_s: float = TRIAL_S


@dataclass
class Outcome:
    """What became of one case.  `undone_s` is the time until the agent had the release before in force again."""

    name: str
    version: int
    reason: str = ""
    bound: str = ""
    detail: str = ""
    undone_s: float = 0.0
    most_s: float = 0.0
    restarts: int = 0
    hangs: int = 0
    collecting_again: bool = False
    good_release_confirmed: bool = False
    mistakes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Return whether the release was undone in time, for the right reason, with a receipt in the lake."""
        return self.collecting_again and self.good_release_confirmed and not self.mistakes


def toggles(*faults: str) -> bytes:
    """Return flag definitions that make the agent of `lab.faulty_agent` misbehave."""
    names = ["new-navigation", *(f"{FLAG}{fault}" for fault in faults)]
    return json.dumps({"flags": dict.fromkeys(names, _GOOD_FLAG)}).encode()


def foreign_authority(folder: Path) -> bytes:
    """Return the certificate of an authority that has issued nothing in this fleet."""
    other = FleetFolder(folder)
    create_fleet(other, suite="X25519", broker_names=(), now=datetime.now(UTC))
    return other.ca_certificate.read_bytes()


def wrong_database() -> bytes:
    """Return a database in which no message has the identifier that it has on the bus, as of another car model."""
    lines = (DATABASES / "demo_powertrain.dbc").read_text().splitlines()
    moved = []
    for line in lines:
        words = line.split(" ")
        if words[0] == "BO_" and words[1].isdigit():
            words[1] = str(int(words[1]) ^ 0x400)
        moved.append(" ".join(words))
    return "\n".join(moved).encode()


def cases(folder: Path) -> list[Case]:
    """Return all cases."""
    flood = {f"campaigns/flood-{n}.json": campaign(f"flood-{n}", period_ms=1_000) for n in range(120)}
    # Each crash, and each freeze, is followed by a start, which the service manager gives START_S.
    start_s = RESTART_S + START_S
    return [
        Case("crash", {"toggles.json": toggles("crash")}, most_s=3 * start_s),
        Case("hang", {"toggles.json": toggles("hang")}, frozenset({"progress"})),
        Case("freeze", {"toggles.json": toggles("freeze")}, most_s=WATCHDOG_S + 2 * START_S + 3 * start_s),
        Case("leaks memory", {"toggles.json": toggles("leak")}, frozenset({"memory"})),
        Case(
            "sends again and again",
            {"settings.toml": b"[uplink]\nack_timeout_s = 0.001\n"},
            frozenset({"uplink", "cpu"}),
            most_s=2 * TRIAL_S,
        ),
        Case("stops decoding", {"dbc/can0/other.dbc": wrong_database()}, frozenset({"decoding"}), most_s=2 * TRIAL_S),
        Case(
            "breaks the link",
            {"authorities.pem": foreign_authority(folder / "foreign")},
            frozenset({"link"}),
            # Two turns of two attempts each, with the back-off in between.
            most_s=60.0,
        ),
        Case("cannot be applied", {"toggles.json": toggles("unusable")}, frozenset({"applied"})),
        # The reader of databases leaves out what is broken, so the release takes effect, and nothing decodes.
        Case("a broken database", {"dbc/can0/broken.dbc": b"BO_ 1 A: 8 X\n SG_ s : 0|"}, frozenset({"decoding"})),
        # The last one, because the receiver then lets this vehicle wait: it has used up its share.
        Case("floods the uplink", flood, frozenset({"spool", "cpu", "memory", "uplink"})),
    ]


class Drill:
    """Plays cases in the new folder `folder`; `tell` gets a line for each."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        sections = {"pushes": f"trial_s = {TRIAL_S}", "telemetry": "increment_s = 0.5"}
        self._car = Car.make(folder, sources=vehicle(0.0), **sections)
        # The receiver bounds the work for one vehicle, and a window each second would exceed it on a busy machine.
        self._car.write_campaigns(collect_everything(5_000))
        self._broker = Broker(self._car.fleet, folder / "broker", port=self._car.broker_port)
        self._receiver = Receiver(self._car.fleet, self._broker.fleet_port, folder / "receiver.log")
        self._service = Service(watchdog_s=WATCHDOG_S, start_s=START_S, restart_s=RESTART_S)
        command = [*ThisMachine().python("lab.faulty_agent"), "run", "--config", str(self._car.config)]
        log = folder / "agent.log"
        self._agent = Agent(command, log, self._car.serve_port, environment=self._service.environment)

    def run(self, wanted: list[Case]) -> list[Outcome]:
        """Play the cases `wanted`, and return what became of them."""
        with ExitStack() as stack:
            stack.enter_context(self._broker)
            stack.enter_context(self._receiver.running_now())
            stack.enter_context(self._service.runs(self._agent))
            self._confirmed({"toggles.json": toggles()})
            # The state before the trials is measured over some time.
            time.sleep(TRIAL_S)
            outcomes = []
            for case in wanted:
                outcomes.append(self._play(case))
                self._tell(_line(outcomes[-1]))
        return outcomes

    def _play(self, case: Case) -> Outcome:
        before = self._until(lambda status: not status["pushes"]["in_trial"], "no trial")
        restarts, hangs = self._service.restarts, self._service.hangs
        version = sign(self._car.fleet, case.documents, self._broker.fleet_port)
        outcome = Outcome(case.name, version, most_s=case.most_s)
        kind = "push_reverted" if case.reason == "unhealthy" else "push_refused"
        since_s = time.monotonic()
        if kind == "push_reverted":
            # A crash may come before the status shows the release, so the state on the disk is asked.  A trial may end
            # between two looks at it.
            self._wait(
                lambda: (stored := self._stored())["trial"] is not None or stored.get("refused") == version, "on trial"
            )
            since_s = time.monotonic()
            self._wait(lambda: self._stored()["trial"] is None, "taken back", case.most_s + PATIENCE_S)
            if self._stored().get("refused") != version:
                raise Permanent(f"{case.name}: release {version} passed its trial; see {self._agent.log}")
        good = before["pushes"]["version"]
        now = self._until(lambda status: status["pushes"]["version"] == good and _is_up(status), "the release before")
        outcome.undone_s = round(time.monotonic() - since_s, 1)
        samples = now["telemetry"]["samples"]
        self._until(lambda status: status["telemetry"]["samples"] > samples, "collecting again")
        outcome.collecting_again = True
        self._wait(lambda: self._receipt(kind, version) is not None, "the receipt in the lake")
        outcome.restarts, outcome.hangs = self._service.restarts - restarts, self._service.hangs - hangs
        self._judge(case, outcome, self._receipt(kind, version) or {})
        self._confirmed({"toggles.json": toggles(), "campaigns/good.json": campaign("good", period_ms=5_000)})
        outcome.good_release_confirmed = True
        return outcome

    def _judge(self, case: Case, outcome: Outcome, receipt: dict[str, Any]) -> None:
        outcome.reason, outcome.bound = receipt.get("reason", ""), receipt.get("bound", "")
        outcome.detail = receipt.get("detail", "")
        if outcome.reason != case.reason:
            outcome.mistakes.append(f"the reason is {outcome.reason}, not {case.reason}")
        if case.bounds and outcome.bound not in case.bounds:
            outcome.mistakes.append(f"the bound is {outcome.bound!r}, not one of {sorted(case.bounds)}")
        if not outcome.detail:
            outcome.mistakes.append("the receipt does not say why")
        if outcome.undone_s > case.most_s:
            outcome.mistakes.append(f"it took {outcome.undone_s} s, and {case.most_s} s is the limit")

    def _confirmed(self, documents: dict[str, bytes]) -> None:
        version = sign(self._car.fleet, documents, self._broker.fleet_port)
        self._until(
            lambda status: status["pushes"]["version"] == version and not status["pushes"]["in_trial"],
            f"release {version} confirmed",
        )
        self._wait(
            lambda: self._receipt("push_confirmed", version) is not None, f"confirmation of {version} in the lake"
        )

    def _stored(self) -> dict[str, Any]:
        """Return the slots of the vehicle's record, read without the agent's code."""
        try:
            _, _, content = (self._car.state / "pushes" / "state.a").read_bytes().partition(b"\n")
            return {"trial": None, **json.loads(content)["slots"]}
        except (OSError, ValueError, KeyError):
            return {"trial": None}

    def _receipt(self, kind: str, version: int) -> dict[str, Any] | None:
        try:
            rows = query(str(self._car.fleet.lake), f"SELECT fields FROM events WHERE kind = '{kind}'")
        except Permanent:
            return None  # the lake has no table yet
        found = [json.loads(row) for row in rows.column(0).to_pylist()]
        return next((fields for fields in found if fields["version"] == version), None)

    def _until(self, test: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def holds() -> object:
            nonlocal found
            found = self._agent.status_or_none() or {}
            return found and test(found)

        self._wait(holds, what)
        return found

    def _wait(self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self._receiver.check_alive()
            if time.monotonic() > deadline_s:
                raise Permanent(f"Timed out after {timeout_s:.0f} s while waiting for: {what}; see {self._agent.log}")
            time.sleep(0.2)


def _is_up(status: dict[str, Any]) -> bool:
    return bool(status["link"]["state"] == "online" and not status["pushes"]["in_trial"])


def _line(outcome: Outcome) -> str:
    text = f"{'ok' if outcome.passed else 'FAILED'}  {outcome.name}: undone after {outcome.undone_s} s"
    text += f", {outcome.reason} {outcome.bound}: {outcome.detail}"
    return f"{text} {outcome.mistakes}" if outcome.mistakes else text


def as_values(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return `outcomes` for JSON."""
    return [asdict(outcome) | {"passed": outcome.passed} for outcome in outcomes]
