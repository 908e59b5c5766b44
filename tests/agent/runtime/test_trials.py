"""Test how a trial is watched, with a real fleet, the real verifier and a real spool, and readings from the test."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.formats.down.documents import AUTHORITIES, RECIPIENT
from agent.formats.up.columns import Event
from agent.formats.up.recipient import RecipientPrivateKey
from agent.pushes.health import ANSWER
from agent.pushes.pushes import Pushes
from agent.pushes.readings import Readings
from agent.pushes.store import Store
from agent.runtime.loop_watch import STALL_LOOKS, LoopWatch
from agent.runtime.trials import HOLD
from tests.agent.pushes.world import VEHICLE, Fleet, campaign, toggles
from tests.agent.runtime.test_apply import Car

GOOD = Readings(feeding=True, online=True, connections=1, memory_bytes=70_000_000, decoding={"can0": (100, 0)})
LOOK_S = 0.02
MORE = msgspec.structs.replace(GOOD, decoding={"can0": (200, 0)})


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    (tmp_path / "car").mkdir()
    return Car(fleet, tmp_path / "car")


def push(fleet: Fleet, car: Car, *campaigns: bytes) -> None:
    async def drive() -> None:
        car.readings = GOOD
        await car.applier.start()
        fleet.publish(toggles(), *campaigns)
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    assert car.applier.in_trial


def watch(car: Car, until: Callable[[], object], trial_s: float = 0.05) -> None:
    async def drive() -> None:
        watching = asyncio.create_task(car.trials.watch(trial_s, poll_s=0.005))
        async with asyncio.timeout(20):
            while not until():
                await asyncio.sleep(0.005)
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(drive())


def polls(car: Car, count: int) -> Callable[[], bool]:
    """Return a function that tells whether the vital signs have been read `count` times from now on."""
    read = car.trials._read
    left = [count]

    async def counted() -> Readings:
        left[0] -= 1
        return await read()

    car.trials._read = counted
    return lambda: left[0] <= 0


def test_a_trial_of_a_sealing_key_gives_a_parked_car_something_to_be_acknowledged(
    fleet: Fleet, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The batch is sealed to the pushed key, so the events are read before they are sealed.
    queued: list[Event] = []
    monkeypatch.setattr(car.depot.outbox, "add_event", queued.append)

    async def drive() -> None:
        car.readings = GOOD
        await car.applier.start()
        fleet.sign_as_is(RECIPIENT.pattern, RecipientPrivateKey.generate("MLKEM768_X25519").public.to_json())
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    watch(car, lambda: car.trials.waits_for)
    assert car.trials.waits_for == (ANSWER,)
    assert [event.fields for event in queued if event.kind == "trial_begun"] == [{"version": car.applier.version}]


def test_a_confirmed_trial_has_a_receipt_with_the_figures(fleet: Fleet, car: Car) -> None:
    push(fleet, car)
    watch(car, lambda: car.events("push_confirmed"))
    (receipt,) = car.events("push_confirmed")
    assert (receipt["version"], receipt["memory_mb"], receipt["lost"]) == (2, 70.0, 0)


def test_new_campaigns_are_confirmed_only_when_frames_have_come(fleet: Fleet, car: Car) -> None:
    push(fleet, car, campaign("new"))
    watch(car, polls(car, 20))
    assert (car.applier.in_trial, car.trials.waits_for) == (True, ("frames",))
    car.readings = MORE
    watch(car, lambda: not car.applier.in_trial)
    assert car.campaigns == ["new"]
    assert car.events("push_reverted") == []


def test_memory_that_stays_too_large_takes_the_release_back_and_the_receipt_names_the_bound(
    fleet: Fleet, car: Car
) -> None:
    push(fleet, car, campaign("leaking"))
    watch(car, polls(car, 2), trial_s=60)
    car.readings = msgspec.structs.replace(MORE, memory_bytes=200_000_000)
    watch(car, lambda: car.events("push_reverted"), trial_s=60)
    assert car.campaigns == ["local"]
    (receipt,) = car.events("push_reverted")
    assert (receipt["reason"], receipt["bound"], receipt["memory_mb"]) == ("unhealthy", "memory", 200.0)
    assert receipt["detail"].startswith("memory grew by 130 MB")


def test_a_short_peak_breaks_no_bound(fleet: Fleet, car: Car) -> None:
    push(fleet, car)
    watch(car, polls(car, 2), trial_s=60)
    for _ in range(3):
        car.readings = msgspec.structs.replace(MORE, memory_bytes=200_000_000)
        watch(car, polls(car, HOLD - 1), trial_s=60)
        car.readings = MORE
        watch(car, polls(car, 1), trial_s=60)
    assert car.applier.in_trial


def test_a_hanging_agent_ends_itself_after_the_release_is_taken_back_on_the_disk(fleet: Fleet, car: Car) -> None:
    push(fleet, car, campaign("hanging"))
    watch(car, polls(car, 2), trial_s=60)
    car.readings = msgspec.structs.replace(MORE, stuck_s=70.0)
    watch(car, lambda: car.ended, trial_s=60)
    assert car.ended == [1]
    record = Store.open(car.folder / "pushes").record
    assert (record.slots.trial, record.slots.refused) == (None, 2)


def stand_still(car: Car, seconds: float) -> list[int]:
    """Let the event loop stand still under its watch, and return the statuses with which the process was ended."""
    ended: list[int] = []

    async def run() -> None:
        async with LoopWatch(car.pushes, look_s=LOOK_S, end_process=ended.append).running():
            await asyncio.sleep(LOOK_S)
            time.sleep(seconds)  # noqa: ASYNC251  # the loop must hang
            await asyncio.sleep(LOOK_S)

    asyncio.run(run())
    return ended


def test_a_release_on_trial_that_lets_the_event_loop_hang_is_taken_back_on_the_disk(fleet: Fleet, car: Car) -> None:
    push(fleet, car)
    assert stand_still(car, 5 * STALL_LOOKS * LOOK_S) == [1]
    record = Store.open(car.folder / "pushes").record
    assert (record.slots.trial, record.slots.refused) == (None, 2)
    car.start()
    asyncio.run(car.applier.start())
    (receipt,) = car.events("push_reverted")
    assert (receipt["reason"], receipt["bound"]) == ("unhealthy", "progress")
    assert receipt["detail"].startswith("the agent hung for ")


def test_a_short_stall_and_one_without_a_trial_end_no_process(fleet: Fleet, car: Car) -> None:
    push(fleet, car)
    assert stand_still(car, STALL_LOOKS * LOOK_S / 4) == []
    assert car.applier.in_trial
    watch(car, lambda: not car.applier.in_trial)
    assert stand_still(car, 5 * STALL_LOOKS * LOOK_S) == []


def test_a_receipt_that_a_crash_cut_off_is_sent_at_the_next_start(fleet: Fleet, car: Car) -> None:
    push(fleet, car)
    pushes = Pushes.open(car.folder / "pushes", trusted_root=fleet.root, vehicle=VEHICLE)

    async def end() -> None:
        assert await pushes.fail_trial("the test takes it back") is not None

    asyncio.run(end())
    assert car.events("push_reverted") == []
    car.start()
    asyncio.run(car.applier.start())
    assert [event["detail"] for event in car.events("push_reverted")] == ["the test takes it back"]
    assert Store.open(car.folder / "pushes").record.receipts == ()
    car.start()
    asyncio.run(car.applier.start())
    assert len(car.events("push_reverted")) == 1


def test_pushed_authorities_are_tried_at_once_and_taken_back_if_only_the_earlier_ones_connect(
    fleet: Fleet, car: Car, tmp_path: Path
) -> None:
    async def drive() -> None:
        car.readings = GOOD
        await car.applier.start()
        fleet.sign_as_is(AUTHORITIES.pattern, authority(tmp_path))
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    assert car.authorities.following is not None
    car.readings = msgspec.structs.replace(GOOD, earlier_authorities=True)
    watch(car, polls(car, 20))
    assert (car.reconnected, car.applier.in_trial, car.trials.waits_for) == (1, True, ("link",))
    car.readings = msgspec.structs.replace(car.readings, online=False)
    watch(car, polls(car, 20))
    assert car.applier.in_trial, "an offline car was judged"
    for connections in (2, 3):
        car.readings = msgspec.structs.replace(GOOD, earlier_authorities=True, connections=connections)
        watch(car, polls(car, 5))
    watch(car, lambda: car.events("push_reverted"))
    assert [event["bound"] for event in car.events("push_reverted")] == ["link"]
    assert car.authorities.following is None


def authority(folder: Path) -> bytes:
    from datetime import UTC, datetime

    from fleet.admin.create import create_fleet
    from fleet.state.folder import FleetFolder

    other = FleetFolder(folder / "other")
    create_fleet(other, suite="X25519", broker_names=(), now=datetime.now(UTC))
    return other.ca_certificate.read_bytes()
