"""Kill a real agent with SIGKILL while it fetches, verifies, commits, tries and takes back releases.

Each start of the agent finds a new release, or the trial of an earlier one.  Some releases cannot be applied and must
be taken back.  After each kill, the verdict reads the state folder without the agent's code; at the end, it compares
the receipts in the lake with what it has seen.
"""

import hashlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.errors import Permanent
from agent.system.boot import BOOT_ID
from fleet.lake.query import query
from lab.machine import ThisMachine
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import Agent
from tests.agent.car import Car
from tests.trial.drill import toggles
from tests.trial.signing import sign

TRIAL_S: Final = 1.0
FETCH_S: Final = 2.0
"""The longest time from the connection to a kill while a release is fetched, verified and committed."""
OUTCOME_S: Final = 1.6
"""The longest time from the first outcome of a push to a kill in its trial, or while it is taken back."""
VERIFY_S: Final = 8.0
"""The longest wait for an outcome, which does not come if nothing is new."""
PATIENCE_S: Final = 120.0


TRIES = 3


@dataclass
class Kills:
    """Holds the result.  `moments` counts the kills by what the agent was doing, as its log shows."""

    seed: int
    kills: int = 0
    releases: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    receipts: int = 0
    mistakes: list[str] = field(default_factory=list)

    def as_values(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return self.__dict__ | {"passed": not self.mistakes}


class Verdict:
    """Reads the state folder of a vehicle, and reports each contradiction to what it has read before."""

    def __init__(self, folder: Path, result: Kills) -> None:
        self._folder = folder
        self._result = result
        self.published: dict[int, dict[str, bytes]] = {}
        self._floor: dict[str, int] = {}
        self._generation = 0
        self._in_force = 0
        self.tried: set[int] = set()
        self.confirmed: set[int] = set()
        self.taken_back: set[int] = set()

    def look(self) -> None:
        """Read the state, and compare it with the state before."""
        copies = [copy for name in ("state.a", "state.b") if (copy := self._copy(name)) is not None]
        if not copies:
            if self._generation:
                self._say("no copy of the record is whole")
            return
        record = max(copies, key=lambda copy: copy["generation"])
        if record["generation"] < self._generation:
            self._say(f"the record went back from generation {self._generation} to {record['generation']}")
        self._generation = record["generation"]
        for role, version in record["floor"].items():
            if version < self._floor.get(role, 0):
                self._say(f"the floor of {role} fell from {self._floor[role]} to {version}")
        self._floor = record["floor"]
        slots = record["slots"]
        refused = slots.get("refused", 0)
        for name in ("trial", "current", "before"):
            if slots.get(name) is not None:
                self._check_release(name, slots[name])
        version = (slots.get("trial") or slots.get("current") or {"version": 0})["version"]
        if version < self._in_force <= record["floor"]["targets"] and self._in_force > refused:
            self._say(f"release {version} is in force after {self._in_force}, which was never taken back")
        self._in_force = version
        self.tried |= {slots[name]["version"] for name in ("trial", "current") if slots.get(name) is not None}
        if slots.get("current") is not None:
            self.confirmed.add(slots["current"]["version"])
        if refused:
            self.taken_back.add(refused)

    def _copy(self, name: str) -> dict[str, Any] | None:
        try:
            digest, _, content = (self._folder / name).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        record: dict[str, Any] = json.loads(content)
        defaults = {"timestamp": 0, "snapshot": 0, "targets": 0, "root": 0}
        return {"generation": 0, "slots": {}, **record, "floor": defaults | record.get("floor", {})}

    def _check_release(self, slot: str, ref: dict[str, Any]) -> None:
        version, digest = ref["version"], ref["digest"]
        try:
            content = (self._folder / "releases" / f"{version}-{digest}.json").read_bytes()
        except FileNotFoundError:
            self._say(f"the file of release {version} ({slot}) is missing")
            return
        if hashlib.sha256(content).hexdigest() != digest:
            self._say(f"the file of release {version} ({slot}) is damaged")
        elif set(json.loads(content)["documents"]) != set(self.published[version]):
            self._say(f"release {version} ({slot}) has other documents than were published")

    def _say(self, mistake: str) -> None:
        self._result.mistakes.append(f"after kill {self._result.kills}: {mistake}")


class Campaign:
    """Kills the agent of one vehicle, in the new folder `folder`, at moments that `seed` decides."""

    def __init__(self, folder: Path, seed: int, tell: Callable[[str], None]) -> None:
        self.result = Kills(seed)
        self._chance = random.Random(seed)
        self._tell = tell
        self._car = Car.make(folder, sources="", pushes=f"trial_s = {TRIAL_S}")
        self._broker = Broker(self._car.fleet, folder / "broker", port=self._car.broker_port)
        self._receiver = Receiver(self._car.fleet, self._broker.fleet_port, folder / "receiver.log")
        self._log = folder / "agent.log"
        self._verdict = Verdict(self._car.state / "pushes", self.result)
        self._bad: set[int] = set()

    def run(self, kills: int, most_s: float = math.inf) -> Kills:
        """Kill the agent `kills` times, or for `most_s`, let it end its last trial in peace, and judge."""
        deadline_s = time.monotonic() + most_s
        with ExitStack() as stack:
            stack.enter_context(self._broker)
            stack.enter_context(self._receiver.running_now())
            self._receiver.until_connected()
            for number in range(1, kills + 1):
                if time.monotonic() > deadline_s:
                    break
                self.result.kills = number
                # Sometimes the next start finds the release that the one before did not finish.
                if number == 1 or self._chance.random() < 0.6:
                    self._publish()
                self._kill_once()
                self._verdict.look()
                if number % 25 == 0 or number == kills:
                    self._tell(f"{number} kills: {dict(self.result.moments)}, {len(self.result.mistakes)} mistakes")
            self._end_in_peace()
            self._compare_receipts()
        return self.result

    def _agent(self, boot: str) -> Agent:
        command = [*ThisMachine().python("lab.faulty_agent"), "run", "--config", str(self._car.config)]
        return Agent(command, self._log, self._car.serve_port, environment={BOOT_ID: boot})

    def _publish(self) -> None:
        is_bad = self._chance.random() < 0.35
        documents = {"toggles.json": toggles("unusable") if is_bad else toggles(str(self.result.releases))}
        version = sign(self._car.fleet, documents)
        self._verdict.published[version] = documents
        self.result.releases += 1
        if is_bad:
            self._bad.add(version)

    def _kill_once(self) -> None:
        # Kills in one boot count as crashes, and those in several boots as power cuts.
        boot = str(self.result.kills) if self._chance.random() < 0.7 else "one boot"
        start = self._log.stat().st_size if self._log.exists() else 0
        agent = self._agent(boot)
        agent.start()
        try:
            phase = self._chance.random()
            if phase < 0.1:
                time.sleep(self._chance.uniform(0.0, FETCH_S))
            else:
                _wait(lambda: b'"link_online"' in _rest(self._log, start), "online", agent)
                if phase > 0.4:
                    deadline_s = time.monotonic() + VERIFY_S
                    while not _has_outcome(_rest(self._log, start)) and time.monotonic() < deadline_s:
                        time.sleep(0.02)
                time.sleep(self._chance.uniform(0.0, FETCH_S if phase <= 0.4 else OUTCOME_S))
        finally:
            agent.kill()
        self.result.moments[_moment(_rest(self._log, start))] += 1

    def _end_in_peace(self) -> None:
        agent = self._agent("last boot")
        with agent.running_now():
            agent.until_status(
                lambda status: (
                    status["link"]["state"] == "online"
                    and not status["pushes"]["in_trial"]
                    and not status["spool"]["waiting"]
                ),
                "delivered",
                PATIENCE_S,
            )
            self._verdict.look()
            newest = max(self._verdict.published)
            _wait(lambda: newest in self._verdict.tried | self._verdict.taken_back or self._looked(), "newest", agent)
            agent.until_status(lambda status: not status["pushes"]["in_trial"], "the last trial", PATIENCE_S)
            self._verdict.look()
            self._wait_for_receipts()
            agent.stop()

    def _looked(self) -> bool:
        self._verdict.look()
        return False

    def _expected(self) -> dict[str, set[int]]:
        # What was refused without a trial (none here) has another receipt.
        return {"push_reverted": self._verdict.taken_back, "push_confirmed": self._verdict.confirmed}

    def _wait_for_receipts(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while any(seen - self._receipts(kind) for kind, seen in self._expected().items()):
            if time.monotonic() > deadline_s:
                return
            time.sleep(1)

    def _compare_receipts(self) -> None:
        for kind, seen in self._expected().items():
            found = self._receipts(kind)
            self.result.receipts += len(found)
            self.result.outcomes[kind] = len(seen)
            for version in sorted(seen - found):
                self.result.mistakes.append(f"the lake has no {kind} of release {version}")
        applied = self._receipts("push_applied")
        self.result.outcomes["push_applied"] = len(self._verdict.tried)
        for version in sorted(self._verdict.tried - applied):
            self.result.mistakes.append(f"the lake has no push_applied of release {version}")
        for version in sorted(self._bad & self._receipts("push_confirmed")):
            self.result.mistakes.append(f"release {version}, which cannot be applied, was confirmed")

    def _receipts(self, kind: str) -> set[int]:
        try:
            rows = query(str(self._car.fleet.lake), f"SELECT fields FROM events WHERE kind = '{kind}'")
        except Permanent:
            return set()
        return {json.loads(row)["version"] for row in rows.column(0).to_pylist()}


def _rest(log: Path, start: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()


def _has_outcome(lines: bytes) -> bool:
    return any(mark in lines for mark in (b'"event": "push"', b'"release_unusable"'))


def _moment(lines: bytes) -> str:
    """Return what the agent was doing when its log ended."""
    for mark, moment in (
        (b'"result": "confirmed"', "after a passed trial"),
        (b'"result": "reverted"', "after falling back"),
        (b'"release_unusable"', "falling back"),
        (b'"result": "applied"', "on trial"),
        (b'"link_online"', "fetching, verifying or committing"),
        (b'"agent_ready"', "connecting"),
    ):
        if mark in lines:
            return moment
    return "starting"


def _wait(condition: Callable[[], object], what: str, agent: Agent) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        agent.check_alive()
        if time.monotonic() > deadline_s:
            raise Permanent(f"Timed out after {PATIENCE_S:.0f} s while waiting for: {what}; see {agent.log}")
        time.sleep(0.02)


def kill_one(argument: tuple[Path, int, int, float]) -> Kills:
    """Play a campaign in a folder with a seed, a number of kills and the most seconds."""
    folder, seed, kills, most_s = argument
    for attempt in range(TRIES):
        room = folder / f"try-{attempt}"
        room.mkdir(parents=True)
        campaign = Campaign(room, seed, lambda line: print(f"seed {seed}: {line}", flush=True))
        try:
            return campaign.run(kills, most_s)
        except Permanent:
            # Another program may have taken a free port before the broker could.
            if campaign.result.kills:
                raise
    raise Permanent(f"broker and receiver did not start in {folder}; see their logs there")
