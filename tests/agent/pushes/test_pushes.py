"""Test `Pushes` as a whole, with the real verifier process."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.down.bundle import build_bundle, parse_bundle, parse_request
from agent.pushes.health import HEALTHY, Breach, Health
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Question, Reason, Release, Verdict
from agent.pushes.store import Store
from agent.pushes.trial import CRASHES, LATER_CRASHES
from fleet.publishing.sync import Bundles
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, toggles

UNHEALTHY = Health(Breach("memory", "memory grew by 99 MB"), figures={"memory_mb": 150.0})


class Car:
    """A vehicle that can be switched off and on again."""

    def __init__(self, fleet: Fleet, path: Path) -> None:
        self.fleet = fleet
        self.path = path
        self.now_s: float | None = None
        self.start()

    def start(self) -> None:
        clock = {} if self.now_s is None else {"now_s": lambda: self.now_s or 0.0}
        self.pushes = Pushes.open(self.path, trusted_root=self.fleet.root, vehicle=VEHICLE, **clock)
        self.reverted_at_start = asyncio.run(self.pushes.begin())

    def sync(self) -> PushOutcome:
        request = parse_request(self.pushes.sync_request())
        return self.offer(Bundles(self.fleet.folder).answer(request))

    def offer(self, bundle: bytes) -> PushOutcome:
        return asyncio.run(self.pushes.offer(bundle))

    def confirm(self) -> None:
        assert asyncio.run(self.pushes.confirm_trial()) is not None

    def disk(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}

    @property
    def flags(self) -> bytes | None:
        release = self.pushes.current()
        return None if release is None else release.documents.get("toggles.json")


async def cannot_start(_: Question) -> Verdict:
    raise Transient("no process can be started")


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    return Car(fleet, tmp_path / "car")


def test_a_push_is_in_force_and_survives_a_restart(fleet: Fleet, car: Car) -> None:
    assert car.pushes.current() is None
    fleet.publish(toggles(), campaign())
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    expected = Release(2, {"campaigns/drive.json": campaign(), "toggles.json": toggles()})
    assert car.pushes.current() == expected
    car.start()
    assert car.pushes.current() == expected
    assert car.pushes.in_trial


def test_who_is_up_to_date_learns_so_without_the_verifier(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    car.pushes = Pushes.open(car.path, trusted_root=fleet.root, vehicle=VEHICLE, examine_bundle=cannot_start)
    assert car.sync() == PushOutcome(Result.UNCHANGED, 2)


def test_a_refused_bundle_changes_nothing_on_the_disk(fleet: Fleet, car: Car, tmp_path: Path) -> None:
    fleet.publish(toggles(False))
    old = fleet.bundle()
    fleet.publish(toggles())
    car.sync()
    fleet.publish(toggles(False), campaign())
    new = fleet.files()
    stranger = Fleet(tmp_path / "stranger")
    stranger.publish(toggles(False))
    before = car.disk()
    tampered = {name: content.replace(b"drive", b"evade") for name, content in new.items()}
    attacks = {
        Reason.ROLLBACK: old,
        Reason.FOREIGN_KEY: stranger.bundle(),
        Reason.TAMPERED: build_bundle(tampered),
        Reason.TRUNCATED: fleet.bundle()[:-1],
        Reason.MALFORMED: b"garbage",
        Reason.OVERSIZED: bytes(200_000),
    }
    for reason, bundle in attacks.items():
        outcome = car.offer(bundle)
        assert (outcome.result, outcome.reason) == (Result.REFUSED, reason), outcome.detail
        assert car.disk() == before
        assert car.flags == toggles()
    assert car.sync().result is Result.APPLIED


def test_an_old_push_stays_out_although_every_file_was_emptied(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(False))
    old = fleet.bundle()
    fleet.publish(toggles())
    car.sync()
    for path in car.disk():
        Path(path).write_bytes(b"")
    car.start()
    assert car.flags is None
    assert car.offer(old).reason is Reason.ROLLBACK
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.flags == toggles()


def test_a_damaged_release_is_fetched_again(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()
    next((car.path / "releases").iterdir()).write_bytes(b"")
    car.start()
    assert car.flags is None
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    assert car.flags == toggles()


def test_signed_documents_that_are_no_use_leave_the_last_known_good(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()
    fleet.sign_as_is("toggles.json", toggles().replace(b'"off": false', b'"off": 0'))
    outcome = car.sync()
    assert (outcome.result, outcome.version, outcome.reason) == (Result.REFUSED, 3, Reason.INVALID)
    assert "toggles.json: flag 'new-navigation'" in outcome.detail
    assert car.flags == toggles()
    car.start()
    assert car.flags == toggles()
    # The refused version is neither sent nor reported again.  The next good version is taken.
    assert not [name for name in parse_bundle(_answer(car)) if name.startswith("targets/")]
    assert car.sync().result is Result.UNCHANGED
    fleet.publish(toggles(False))
    assert car.sync() == PushOutcome(Result.APPLIED, 4)


def test_two_campaigns_of_one_name_are_refused_and_never_tried(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), campaign("good"))
    car.sync()
    car.confirm()
    fleet.sign_as_is("campaigns/other.json", campaign("good"))
    outcome = car.sync()
    assert (outcome.result, outcome.version, outcome.reason) == (Result.REFUSED, 3, Reason.INVALID)
    assert "campaign 'good' is also in campaigns/good.json; rename one" in outcome.detail
    assert not car.pushes.in_trial


def _answer(car: Car) -> bytes:
    return Bundles(car.fleet.folder).answer(parse_request(car.pushes.sync_request()))


def test_a_rule_that_never_ends_is_refused_and_the_agent_lives(fleet: Fleet, car: Car) -> None:
    doubling = {"reduce": [list(range(64)), {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "xx"]}
    fleet.sign_as_is("toggles.json", toggles(targeting={"if": [{"==": [doubling, "y"]}, "on", "off"]}))
    outcome = car.sync()
    assert (outcome.result, outcome.reason) == (Result.REFUSED, Reason.INVALID)
    assert "flag 'new-navigation': the rule takes more than 100,000 operations" in outcome.detail
    assert car.pushes.current() is None


def test_an_unhealthy_release_is_taken_back(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()
    fleet.publish(toggles(False))
    car.sync()
    assert car.flags == toggles(False)
    outcome = asyncio.run(car.pushes.poll_trial(trial_s=600, health=UNHEALTHY))
    assert outcome is not None
    assert (outcome.result, outcome.version, outcome.reason) == (Result.REVERTED, 3, Reason.UNHEALTHY)
    assert (outcome.detail, outcome.figures) == ("memory grew by 99 MB", {"memory_mb": 150.0, "bound": "memory"})
    assert car.flags == toggles()
    assert car.sync().result is Result.UNCHANGED


def test_a_healthy_release_is_confirmed_after_its_trial(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    assert asyncio.run(car.pushes.poll_trial(trial_s=600, health=HEALTHY)) is None
    assert asyncio.run(car.pushes.poll_trial(trial_s=0, health=HEALTHY)) == PushOutcome(Result.CONFIRMED, 2)
    assert not car.pushes.in_trial


def test_a_release_that_crashes_the_agent_is_taken_back(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()
    fleet.publish(toggles(False))
    car.sync()
    for _ in range(CRASHES - 1):
        car.start()
        assert car.flags == toggles(False)
    car.start()
    assert car.flags == toggles()
    reverted = car.reverted_at_start
    assert reverted is not None
    assert (reverted.result, reverted.version) == (Result.REVERTED, 3)


def test_a_release_that_crashes_the_agent_after_its_trial_is_taken_back(fleet: Fleet, car: Car) -> None:
    for document in (toggles(), toggles(False)):
        fleet.publish(document)
        car.sync()
        car.confirm()
    for _ in range(LATER_CRASHES - 1):
        car.start()
        assert car.flags == toggles(False)
    car.start()
    assert car.flags == toggles()
    reverted = car.reverted_at_start
    assert reverted is not None
    assert (reverted.result, reverted.version) == (Result.REVERTED, 3)
    assert f"crashed {LATER_CRASHES} times" in reverted.detail
    assert car.sync().result is Result.UNCHANGED  # the version that was taken back is not offered again
    fleet.publish(toggles(), campaign())
    assert car.sync() == PushOutcome(Result.APPLIED, 4)


def test_after_a_long_run_earlier_crashes_do_not_count(fleet: Fleet, car: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()
    for _ in range(LATER_CRASHES - 1):
        car.start()
    asyncio.run(car.pushes.poll_trial(trial_s=30, health=HEALTHY))  # this start has not run for long
    assert Store.open(car.path).record.slots.crashes == LATER_CRASHES - 1
    monkeypatch.setattr("agent.pushes.trial.STEADY_S", 0.0)
    asyncio.run(car.pushes.poll_trial(trial_s=30, health=HEALTHY))
    assert Store.open(car.path).record.slots.crashes == 0
    car.start()  # The crash after a long run does not count, either.
    assert Store.open(car.path).record.slots.crashes == 0


def test_a_full_disk_stops_no_agent_whose_release_has_passed_its_trial(
    fleet: Fleet, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.publish(toggles())
    car.sync()
    car.confirm()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.pushes.store.write_file", full)
    car.start()
    assert car.flags == toggles()
    asyncio.run(car.pushes.close())  # nothing was recorded, so there is nothing to close


def test_starts_that_apply_nothing_and_clean_stops_leave_the_trial_alone(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    car.sync()
    for _ in range(CRASHES + 1):
        asyncio.run(car.pushes.close())
        asyncio.run(car.pushes.close())  # a second call does nothing
        Pushes.open(car.path, trusted_root=fleet.root, vehicle=VEHICLE)  # a start that applies no release
        car.start()
        assert car.pushes.in_trial
    for _ in range(CRASHES - 1):
        car.start()
        assert car.pushes.in_trial
    car.start()
    assert (car.pushes.in_trial, car.flags) == (False, None)


def test_a_clock_at_1970_does_not_make_an_expired_push_fresh(fleet: Fleet, car: Car) -> None:
    car.now_s = 0.0
    car.start()
    fleet.publish(toggles())
    car.sync()
    fleet.publish(now=NOW + timedelta(days=3))
    assert car.sync() == PushOutcome(Result.UNCHANGED, 2)  # its signing time is from now on a lower bound of the clock
    fleet.publish(toggles(False), now=NOW, expiry_days=1)
    assert car.sync().reason is Reason.EXPIRED
    assert car.flags == toggles()


def test_the_steady_process_does_not_pay_for_tuf() -> None:
    script = "import sys, agent.pushes.pushes, agent.serve.toggles; sys.exit('tuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
