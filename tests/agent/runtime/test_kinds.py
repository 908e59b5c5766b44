"""A new kind of documents is published, verified, validated and applied."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.errors import Permanent, Transient
from agent.formats.down.documents import KINDS, Documents
from agent.formats.down.evaluation import FlagNotFound
from agent.link.authorities import Authorities
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import Result
from agent.pushes.release import Question, Reason, Verdict
from agent.pushes.verifier import judge
from agent.runtime.apply import Applier
from agent.runtime.effects import Change, TogglesEffect
from agent.runtime.key_effects import AuthoritiesEffect, RecipientEffect
from agent.serve.current_flags import CurrentFlags
from agent.serve.flagd_file import FlagdFile
from agent.serve.toggles import ToggleService
from fleet.publishing.publish import Publication, publish
from tests.agent.pushes.greeting import WITH_GREETINGS
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, toggles
from tests.agent.runtime.test_apply import default_in
from tests.agent.serve.serving import TODAY
from tests.agent.telemetry.spool.depot import Depot


class Greetings:
    """Applies greetings: `written` simulates a file that the disk may refuse, `shown` is what the driver sees."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.written: list[str] = []
        self.is_full = False
        self.is_broken = False

    def prepare(self, documents: Documents) -> Change:
        if self.is_broken:
            raise Permanent("greetings cannot be prepared")
        return GreetingsChange(self, [document.value for document in documents["greeting"]])


class GreetingsChange:
    def __init__(self, greetings: Greetings, texts: list[str]) -> None:
        self.greetings = greetings
        self.texts = texts

    def write(self) -> None:
        if self.greetings.is_full:
            raise Transient("cannot write greetings")
        self.greetings.written = self.texts

    def withdraw(self) -> None:
        self.greetings.written = []

    async def switch(self) -> Mapping[str, object]:
        self.greetings.shown = self.texts
        return {"greetings": len(self.texts)}


class CampaignNames:
    """Applies campaigns without a collector, by keeping their names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def prepare(self, documents: Documents) -> Change:
        return CampaignNamesChange(self, [document.value.name for document in documents["campaign"]])


class CampaignNamesChange:
    def __init__(self, campaigns: CampaignNames, names: list[str]) -> None:
        self.campaigns = campaigns
        self.names = names

    def write(self) -> None:
        pass

    def withdraw(self) -> None:
        pass

    async def switch(self) -> Mapping[str, object]:
        self.campaigns.names = self.names
        return {}


async def examine_here(question: Question) -> Verdict:
    return judge(question, WITH_GREETINGS)


class Car:
    """A vehicle whose software accepts greetings as a kind of documents."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        (folder / "run").mkdir()
        self.depot = Depot(folder / "spool")
        self.pushes = Pushes.open(
            folder / "pushes", trusted_root=fleet.root, vehicle=VEHICLE, examine_bundle=examine_here
        )
        self.toggles = ToggleService(VEHICLE)
        self.flagd_file = FlagdFile(folder / "run")
        self.greetings = Greetings()
        self.campaigns = CampaignNames()
        effects = {
            "toggles": TogglesEffect(CurrentFlags(self.toggles, self.flagd_file, lambda: TODAY)),
            "campaign": self.campaigns,
            "greeting": self.greetings,
        }
        effects["authorities"] = AuthoritiesEffect(Authorities(folder / "identity", folder / "ca.crt.pem"))
        effects["recipient"] = RecipientEffect(self.depot.outbox)
        self.applier = Applier(self.pushes, effects, self.depot.outbox, kinds=WITH_GREETINGS)

    def publish(self, *texts: str, flags: bytes | None = None) -> None:
        files = []
        for number, text in enumerate(texts):
            files.append(("greeting", self.folder / f"{number}.txt"))
            files[-1][1].write_text(text)
        for kind, content in (("campaign", campaign("drive")), ("toggles", flags)):
            if content is not None:
                files.append((kind, self.folder / kind))
                files[-1][1].write_bytes(content)
        publish(self.fleet.folder, Publication(files=files), now=NOW, kinds=WITH_GREETINGS)

    def sync(self) -> bool:
        return asyncio.run(self.applier.offer(self.fleet.bundle()))


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    (tmp_path / "car").mkdir()
    return Car(fleet, tmp_path / "car")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


def test_a_new_kind_is_published_verified_validated_and_applied(car: Car) -> None:
    car.publish("hello Aria", "welcome to your Aria")
    assert car.sync()
    release = car.pushes.current()
    assert release is not None
    assert set(release.documents) == {"campaigns/drive.json", "greetings/hello.txt", "greetings/welcome.txt"}
    assert car.greetings.shown == car.greetings.written == ["hello Aria", "welcome to your Aria"]
    assert car.campaigns.names == ["drive"]
    assert car.applier.problem is None


def test_it_is_withdrawn_by_its_name(car: Car) -> None:
    car.publish("hello Aria", "welcome to your Aria")
    publish(car.fleet.folder, Publication(remove=[("greeting", "hello")]), now=NOW, kinds=WITH_GREETINGS)
    car.sync()
    assert car.greetings.shown == ["welcome to your Aria"]
    with pytest.raises(Permanent, match=r"greeting 'hello' cannot be removed, .* names of this kind: welcome"):
        publish(car.fleet.folder, Publication(remove=[("greeting", "hello")]), now=NOW, kinds=WITH_GREETINGS)


def test_it_is_refused_where_it_is_published_and_in_the_vehicle(car: Car) -> None:
    with pytest.raises(Permanent, match=r"0\.txt: a greeting is ASCII"):
        car.publish("grüß Gott")
    car.publish("hello Nova!")
    assert not car.sync()
    assert car.applier.refused == {str(Reason.INVALID): 1}
    assert car.greetings.shown == []


def test_a_vehicle_that_does_not_know_the_kind_takes_the_rest(car: Car, tmp_path: Path) -> None:
    car.publish("hello Aria", flags=toggles())
    older = Pushes.open(tmp_path / "older", trusted_root=car.fleet.root, vehicle=VEHICLE)
    assert asyncio.run(older.offer(car.fleet.bundle())).result is Result.APPLIED
    release = older.current()
    assert release is not None
    assert set(release.documents) == {"campaigns/drive.json", "toggles.json"}
    publish(car.fleet.folder, Publication(remove=[("campaign", "drive")]), now=NOW, kinds=KINDS)


@pytest.mark.parametrize("fault", ["is_full", "is_broken"])
def test_a_kind_that_cannot_take_effect_leaves_all_kinds_as_they_were(car: Car, fault: str) -> None:
    car.publish("hello Aria", flags=toggles(True))
    car.sync()
    setattr(car.greetings, fault, True)
    car.publish("hello again Aria", flags=toggles(False))
    car.sync()
    assert "greetings" in str(car.applier.problem)
    assert car.toggles.evaluate("new-navigation").value is True
    assert default_in(car.flagd_file.path) == "on"
    assert car.greetings.shown == car.greetings.written == ["hello Aria"]


def test_at_start_the_other_kinds_take_effect_although_the_disk_refuses_one(car: Car) -> None:
    car.greetings.written = ["of an earlier process"]
    car.greetings.is_full = True
    car.publish("hello Aria", flags=toggles(True))
    with pytest.raises(FlagNotFound):
        car.toggles.evaluate("new-navigation")
    car.sync()
    assert car.toggles.evaluate("new-navigation").value is True
    assert default_in(car.flagd_file.path) == "on"
    assert (car.greetings.shown, car.greetings.written) == (["hello Aria"], [])
    assert car.applier.problem == "cannot write greetings"
