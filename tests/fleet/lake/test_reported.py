"""What the fleet concludes from receipts is what the vehicle has in force, in whatever order the receipts arrive."""

import random
import uuid
from pathlib import Path

import pytest

from agent.formats.up.columns import Event
from agent.pushes import trial
from agent.pushes.trial import Ref, Slots
from fleet.lake.location import Location
from fleet.lake.reported import Receipt, agents_of, receipts_since, reported
from tests.fleet.lake.receipts import Arrivals, batch_of, receipt

CAR = "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11"


def heard(tmp_path: Path, *events: Event) -> tuple[int, bool, tuple[int, str] | None]:
    """Return release, trial and refusal of a vehicle that sent `events`, each in a batch of its own."""
    arrivals = Arrivals(str(tmp_path))
    for event in events:
        arrivals.land((CAR, [event]))
    found = reported(Location(str(tmp_path)))[CAR]
    refused = found.refused
    return found.release, found.on_trial, None if refused is None else (refused.version, refused.reason)


def test_a_lake_without_tables_has_heard_nothing(tmp_path: Path) -> None:
    lake = Location(str(tmp_path))
    assert (reported(lake), receipts_since(lake, 1), agents_of(lake)) == ({}, [], {})


def test_a_vehicle_without_receipts_has_no_release(tmp_path: Path) -> None:
    assert heard(tmp_path, receipt("agent_started", "1.2")) == (0, False, None)
    assert agents_of(Location(str(tmp_path))) == {CAR: "1.2"}


def test_the_newest_report_of_the_agent_counts(tmp_path: Path) -> None:
    heard(tmp_path, receipt("agent_started", "1.10"), receipt("agent_started", "1.9"))
    assert reported(Location(str(tmp_path)))[CAR].agent == "1.9"


def test_a_release_on_trial_is_in_force(tmp_path: Path) -> None:
    assert heard(tmp_path, receipt("push_applied", 2)) == (2, True, None)


def test_a_release_that_was_taken_back_is_refused_and_the_one_before_is_in_force(tmp_path: Path) -> None:
    events = [receipt("push_applied", 2), receipt("push_confirmed", 2), receipt("push_applied", 3)]
    failed = receipt("push_reverted", 3, "unhealthy")
    assert heard(tmp_path, *events, failed) == (2, False, (3, "unhealthy"))


def test_a_later_success_ends_a_refusal(tmp_path: Path) -> None:
    events = [receipt("push_refused", 2, "invalid"), receipt("push_applied", 3), receipt("push_confirmed", 3)]
    assert heard(tmp_path, *events) == (3, False, None)


def test_an_untrusted_bundle_shows_until_the_next_success(tmp_path: Path) -> None:
    first = [receipt("push_applied", 2), receipt("push_confirmed", 2), receipt("push_refused", 0, "expired")]
    assert heard(tmp_path / "a", *first) == (2, False, (0, "expired"))
    assert heard(tmp_path / "b", *first, receipt("push_applied", 3)) == (3, True, None)


def test_a_vehicle_that_only_refused_has_no_release(tmp_path: Path) -> None:
    events = [receipt("push_refused", 0, "expired"), receipt("push_refused", 2, "invalid")]
    assert heard(tmp_path, *events) == (0, False, (2, "invalid"))


def test_receipts_count_from_a_version_on(tmp_path: Path) -> None:
    heard(tmp_path, receipt("push_applied", 2), receipt("push_applied", 3), receipt("push_reverted", 3, "unhealthy"))
    assert receipts_since(Location(str(tmp_path)), 3) == [Receipt(CAR, 3, True, False, "unhealthy")]


class Car:
    """Plays a vehicle by the agent's own table of releases (agent.pushes.trial), and notes its receipts."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.events: list[Event] = []

    def play(self, version: int, chance: random.Random) -> None:
        if chance.random() < 0.2:
            self.slots = trial.refuse(self.slots, version)
            self.events.append(receipt("push_refused", version, "invalid"))
            return
        self.slots = trial.commit(self.slots, Ref(version, ""), "boot")
        self.events.append(receipt("push_applied", version))
        ending = chance.choice(["confirmed", "confirmed", "fallen back", "reverted", "on trial"])
        if ending == "reverted":
            self.slots = trial.revert(self.slots)
            self.events.append(receipt("push_reverted", version, "unhealthy"))
        if ending in ("confirmed", "fallen back"):
            self.slots = trial.confirm(self.slots)
            self.events.append(receipt("push_confirmed", version))
        # A vehicle that falls back has the release before, unless it has just fallen back from that one.
        if ending == "fallen back" and self.slots.before is not None:
            self.slots = trial.fall_back(self.slots)
            self.events.append(receipt("push_reverted", version, "crashed"))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_receipts_of_any_history_give_the_release_in_force(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    cars = {str(uuid.UUID(int=chance.getrandbits(128))): Car() for _ in range(300)}
    for car in cars.values():
        for version in range(2, chance.randrange(3, 12)):
            car.play(version, chance)
    rows = [batch_of(name, n, [event]) for n, (name, event) in enumerate(_all(cars), 1)]
    chance.shuffle(rows)  # batches are sent again, so they arrive in any order
    Arrivals(str(tmp_path)).land_rows(rows)
    found = reported(Location(str(tmp_path)))
    for name, car in cars.items():
        in_force = car.slots.in_force
        expected = (0 if in_force is None else in_force.version, car.slots.trial is not None)
        assert (found[name].release, found[name].on_trial) == expected, car.events


def _all(cars: dict[str, Car]) -> list[tuple[str, Event]]:
    return [(name, event) for name, car in cars.items() for event in car.events]
