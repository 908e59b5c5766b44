"""Test what a release changes in the running agent, with a real fleet, the real verifier and a real spool."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from agent.errors import Permanent, Transient
from agent.formats.down.bundle import build_bundle, parse_bundle
from agent.formats.down.campaign import parse_campaign
from agent.formats.down.documents import AUTHORITIES, RECIPIENT
from agent.formats.up.recipient import RecipientPrivateKey
from agent.link.authorities import Authorities
from agent.pushes.pushes import Pushes
from agent.pushes.readings import Readings
from agent.pushes.trial import CRASHES
from agent.runtime.apply import Applier, make_applier
from agent.runtime.configuration import CampaignFile
from agent.runtime.key_effects import AuthoritiesEffect, RecipientEffect
from agent.runtime.trials import Trials
from agent.serve.current_flags import CurrentFlags
from agent.serve.flagd_file import FLAGD_FILE, FlagdFile
from agent.serve.toggles import ToggleService
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.collector import Collector, Limits
from agent.telemetry.collect.signal_tables import SignalTables
from tests.agent.pushes.world import VEHICLE, Fleet, campaign, toggles
from tests.agent.serve.serving import TODAY
from tests.agent.telemetry.spool.depot import Depot

LOCAL = (CampaignFile("local.json", parse_campaign(campaign("local"), "local.json")),)


class FileOnFullDisk(FlagdFile):
    """A flagd file on a disk that may be full.  Content that is already on the disk needs no space."""

    is_full = False

    def write(self, definition: bytes | None) -> None:
        if self.is_full and not (self.path.exists() and self.path.read_bytes() == definition):
            raise Transient(f"cannot write {self.path}: No space left on device")
        super().write(definition)


class Car:
    """Holds the objects that a push reaches.  A second `start` simulates a restart of the agent."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.depot = Depot(folder / "spool")
        (folder / "run").mkdir()
        self.start()

    def start(self) -> None:
        self.pushes = Pushes.open(self.folder / "pushes", trusted_root=self.fleet.root, vehicle=VEHICLE)
        self.toggles = ToggleService(VEHICLE)
        limits = Limits(10**9, 10**10, 1_000, 10**6)
        self.collector = Collector(SignalTables(("can0",), {}), self.depot.outbox, MachineClock(), limits)
        self.flagd_file = FileOnFullDisk(self.folder / "run")
        self.flags = CurrentFlags(self.toggles, self.flagd_file, lambda: TODAY)
        self.authorities = Authorities(self.folder / "identity", self.folder / "ca.crt.pem")
        self.others = {
            AUTHORITIES.name: AuthoritiesEffect(self.authorities),
            RECIPIENT.name: RecipientEffect(self.depot.outbox),
        }
        self.applier = self.new_applier()
        self.readings = Readings()
        self.reconnected = 0
        self.ended: list[int] = []
        self.trials = Trials(self.pushes, self.applier, self.read, self.reconnect, end_process=self.ended.append)

    async def read(self) -> Readings:
        return msgspec.structs.replace(self.readings, at_s=time.monotonic())

    def reconnect(self) -> None:
        self.reconnected += 1

    def new_applier(self, mark: str = "") -> Applier:
        return make_applier(
            self.pushes, self.flags, self.collector, self.depot.outbox, local=LOCAL, mark=mark, others=self.others
        )

    @property
    def campaigns(self) -> list[str]:
        return [each.name for each in self.collector.campaigns]

    @property
    def flag(self) -> object:
        return self.toggles.evaluate("new-navigation").value

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [dict(event.fields) for event in self.depot.events(kind)]


def default_in(file: Path) -> Any:
    return json.loads(file.read_text())["flags"]["new-navigation"]["defaultVariant"]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    (tmp_path / "car").mkdir()
    return Car(fleet, tmp_path / "car")


def test_without_a_release_the_local_campaigns_hold(car: Car) -> None:
    asyncio.run(car.applier.start())
    assert (car.applier.version, car.campaigns, car.toggles.keys) == (0, ["local"], ())
    (event,) = car.events("campaigns_in_force")
    assert event["campaigns"].startswith("local@")
    assert json.loads((car.folder / "run" / FLAGD_FILE).read_text()) == {"flags": {}}


def test_a_release_is_in_force_as_a_whole_and_one_receipt_says_so(fleet: Fleet, car: Car) -> None:
    async def drive() -> None:
        await car.applier.start()
        fleet.publish(toggles(), campaign("pushed"))
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    assert (car.applier.version, car.campaigns, car.flag, car.applier.in_trial) == (2, ["pushed"], True, True)
    assert default_in(car.folder / "run" / FLAGD_FILE) == "on"
    assert car.events("push_applied") == [{"version": 2}]
    assert [event["campaigns"].partition("@")[0] for event in car.events("campaigns_in_force")] == ["local", "pushed"]


def test_the_event_about_very_many_campaigns_fits_the_smallest_batch(fleet: Fleet, car: Car) -> None:
    async def drive() -> None:
        await car.applier.start()
        fleet.publish(toggles(), *(campaign(f"campaign-{n}") for n in range(150)))
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    *_, event = car.events("campaigns_in_force")
    assert event["campaigns"].startswith("campaign-0@")
    assert len(event["campaigns"]) == 2_000


def test_a_release_without_campaigns_leaves_the_local_ones(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())
    asyncio.run(car.applier.offer(fleet.bundle()))
    assert (car.applier.version, car.campaigns, car.flag) == (2, ["local"], True)


def test_a_refused_push_changes_nothing_and_one_receipt_says_why(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), campaign("pushed"))
    genuine = fleet.bundle()
    forged = {name: content.replace(b"new-navi", b"old-navi") for name, content in parse_bundle(genuine).items()}

    async def drive() -> None:
        await car.applier.start()
        await car.applier.offer(build_bundle(forged))
        await car.applier.offer(b"no bundle at all")

    asyncio.run(drive())
    assert (car.applier.version, car.campaigns, car.toggles.keys) == (0, ["local"], ())
    assert car.applier.refused == {"tampered": 1, "malformed": 1}
    assert [event["reason"] for event in car.events("push_refused")] == ["tampered", "malformed"]
    assert len(car.events("campaigns_in_force")) == 1


def test_the_vehicle_seals_to_the_pushed_key_and_returns_to_its_own_when_the_release_fails(
    fleet: Fleet, car: Car
) -> None:
    key = RecipientPrivateKey.generate("MLKEM768_X25519").public
    enrolled = car.depot.outbox.sealer.recipient

    async def drive() -> None:
        await car.applier.start()
        fleet.sign_as_is(RECIPIENT.pattern, key.to_json())
        await car.applier.offer(fleet.bundle())
        assert car.depot.outbox.sealer.recipient.raw == key.raw
        outcome = await car.pushes.fail_trial("the test takes it back")
        assert outcome is not None
        await car.applier.settle(outcome)

    asyncio.run(drive())
    assert car.depot.outbox.sealer.recipient.raw == enrolled.raw
    assert car.applier.version == 0


def test_a_malformed_sealing_key_is_refused_with_a_receipt_although_it_is_signed(fleet: Fleet, car: Car) -> None:
    enrolled = car.depot.outbox.sealer.recipient

    async def drive() -> None:
        await car.applier.start()
        fleet.sign_as_is(RECIPIENT.pattern, b'{"suite": "X25519"}')
        await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    assert (car.applier.version, car.depot.outbox.sealer.recipient) == (0, enrolled)
    (event,) = car.events("push_refused")
    assert event["reason"] == "invalid"
    assert "recipient.json" in event["detail"]


def test_what_brings_nothing_new_has_no_receipt(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), campaign("pushed"))

    async def drive() -> None:
        for _ in range(3):
            await car.applier.offer(fleet.bundle())

    asyncio.run(drive())
    assert len(car.events("push_applied")) == 1
    assert len(car.events("campaigns_in_force")) == 1


def test_a_release_that_does_well_is_confirmed(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles())

    async def drive() -> None:
        await car.applier.offer(fleet.bundle())
        watching = asyncio.create_task(car.trials.watch(0.05, poll_s=0.01))
        async with asyncio.timeout(10):
            while car.applier.in_trial:
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(drive())
    assert (car.applier.version, car.flag) == (2, True)


def test_a_release_that_does_harm_goes_back_to_the_last_good_one(fleet: Fleet, car: Car) -> None:
    async def drive() -> None:
        fleet.publish(toggles(True), campaign("good"))
        await car.applier.offer(fleet.bundle())
        assert await car.pushes.confirm_trial() is not None
        fleet.publish(toggles(False), campaign("harmful"))
        await car.applier.offer(fleet.bundle())
        assert (car.applier.version, car.campaigns, car.flag) == (3, ["good", "harmful"], False)
        car.applier.problem = "the agent cannot work with it"
        watching = asyncio.create_task(car.trials.watch(60, poll_s=0.01))
        async with asyncio.timeout(10):
            while car.applier.problem:
                await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(drive())
    assert (car.applier.version, car.campaigns, car.flag) == (2, ["good"], True)
    assert [event["version"] for event in car.events("push_applied")] == [2, 3]
    assert [(event["version"], event["reason"]) for event in car.events("push_reverted")] == [(3, "unhealthy")]


def test_a_release_that_keeps_crashing_the_agent_is_given_up_at_start(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), campaign("pushed"))
    asyncio.run(car.applier.offer(fleet.bundle()))
    for _ in range(CRASHES + 1):
        assert car.campaigns == ["pushed"]
        car.start()
        asyncio.run(car.applier.start())
        if not car.applier.in_trial:
            break
    assert (car.applier.version, car.campaigns, car.toggles.keys) == (0, ["local"], ())
    assert [event["version"] for event in car.events("push_reverted")] == [2]


def test_changed_local_campaigns_take_effect_unless_the_fleet_has_pushed_some(fleet: Fleet, car: Car) -> None:
    other = (CampaignFile("other.json", parse_campaign(campaign("other"), "other.json")),)

    async def drive() -> None:
        await car.applier.start()
        await car.applier.replace_local(other)
        assert car.campaigns == ["other"]
        fleet.publish(None, campaign("pushed"))
        await car.applier.offer(fleet.bundle())
        with capture_logs() as said:
            await car.applier.replace_local(LOCAL)
            await car.applier.replace_local(LOCAL)
        assert car.campaigns == ["pushed"]
        # The second reload changes nothing, so the log does not say again that edited files have no effect.
        assert [line["event"] for line in said].count("local_campaigns_not_in_force") == 1

    asyncio.run(drive())


def test_the_campaigns_of_a_replay_have_names_of_their_own(fleet: Fleet, car: Car) -> None:
    long = "a" * 100
    marked = car.new_applier(mark="replay:")

    async def drive() -> None:
        await marked.start()
        assert car.campaigns == ["replay:local"]
        fleet.publish(None, campaign("pushed"), campaign(long), campaign(f"{long[:-1]}b"))
        await marked.offer(fleet.bundle())

    asyncio.run(drive())
    assert "replay:pushed" in car.campaigns
    assert len(set(car.campaigns)) == 3
    assert all(name.startswith("replay:") and len(name) <= 100 for name in car.campaigns)


def test_a_suspended_campaign_is_not_named_as_in_force(car: Car) -> None:
    suspended = parse_campaign(campaign("later").replace(b'{"name"', b'{"status": "SUSPENDED", "name"', 1), "later")
    asyncio.run(car.applier.replace_local((*LOCAL, CampaignFile("later.json", suspended))))
    (event,) = car.events("campaigns_in_force")
    assert event["campaigns"].count("@") == 1


def test_a_release_whose_flagd_file_cannot_be_written_leaves_everything_as_it_was(fleet: Fleet, car: Car) -> None:
    async def drive() -> None:
        await car.applier.start()
        fleet.publish(toggles(True), campaign("good"))
        await car.applier.offer(fleet.bundle())
        assert await car.pushes.confirm_trial() is not None
        car.flagd_file.is_full = True
        fleet.publish(toggles(False), campaign("new"))
        await car.applier.offer(fleet.bundle())
        assert car.applier.problem is not None
        assert "cannot write" in car.applier.problem
        assert (car.campaigns, car.flag, default_in(file)) == (["good"], True, "on")
        assert car.applier.version == 3  # the release is on trial and does not do well
        watching = asyncio.create_task(car.trials.watch(60, poll_s=0.01))
        async with asyncio.timeout(10):
            while car.applier.problem:
                await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait({watching})

    file = car.folder / "run" / FLAGD_FILE
    asyncio.run(drive())
    assert (car.applier.version, car.campaigns, car.flag, default_in(file)) == (2, ["good"], True, "on")
    assert [(event["version"], event["reason"]) for event in car.events("push_reverted")] == [(3, "unhealthy")]


def test_at_start_a_full_runtime_folder_keeps_neither_toggles_nor_campaigns_from_the_car(
    fleet: Fleet, car: Car
) -> None:
    fleet.publish(toggles(), campaign("pushed"))
    asyncio.run(car.applier.offer(fleet.bundle()))
    car.start()
    file = car.folder / "run" / FLAGD_FILE
    file.write_text("flags of an earlier release")
    car.flagd_file.is_full = True
    asyncio.run(car.applier.start())
    assert (car.flag, car.campaigns, file.exists()) == (True, ["pushed"], False)
    assert car.applier.problem is not None
    assert "No space left" in car.applier.problem


def test_a_release_that_started_without_its_flagd_file_is_reverted_in_everything_else(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), campaign("pushed"))
    asyncio.run(car.applier.offer(fleet.bundle()))
    car.start()
    (car.folder / "run" / FLAGD_FILE).unlink()
    car.flagd_file.is_full = True

    async def drive() -> None:
        await car.applier.start()
        watching = asyncio.create_task(car.trials.watch(60, poll_s=0.01))
        async with asyncio.timeout(10):
            while car.campaigns != ["local"]:
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait({watching})

    asyncio.run(drive())
    assert (car.applier.version, car.campaigns, car.toggles.keys) == (0, ["local"], ())


def test_an_unusable_trusted_root_is_survived(fleet: Fleet, car: Car) -> None:
    car.pushes = Pushes.open(car.folder / "pushes", trusted_root=b"{}", vehicle=VEHICLE)
    applier = car.new_applier()
    fleet.publish(toggles())
    with pytest.raises(Permanent, match=r"root\.json"):
        asyncio.run(car.pushes.offer(fleet.bundle()))
    asyncio.run(applier.offer(fleet.bundle()))
    assert applier.version == 0
