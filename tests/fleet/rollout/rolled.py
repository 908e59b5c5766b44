"""A fleet of some vehicles for tests of roll-outs, whose time and receipts the test decides."""

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.formats.down.audience import Attributes
from agent.pushes.trust import verify
from agent.pushes.validate import validate
from fleet.lake.location import Location
from fleet.publishing.publish import Publication, publish
from fleet.publishing.repository import read_state
from fleet.rollout.book import Book, documents_in_rollout
from fleet.rollout.plan import Plan, Rollout
from fleet.rollout.rollouts import Request, Rollouts
from fleet.state.registry import Registry
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, question
from tests.fleet.lake.receipts import Arrivals, receipt

VEHICLES = 60
START_S = NOW.timestamp()
STAGES = (10.0, 50.0, 100.0)
FIRST, NEW, OTHER = campaign("drive", 1_000), campaign("drive", 2_000), campaign("other", 5_000)


class Rolled:
    """Holds the fleet, its lake and its roll-outs.  `clock_s` is the time, which a test moves."""

    def __init__(self, folder: Path, vehicles: int = VEHICLES) -> None:
        self.fleet = Fleet(folder / "fleet")
        self.folder = self.fleet.folder
        self.folder.ca_certificate.touch()
        self.lake = Location(str(folder / "lake"))
        self.arrivals = Arrivals(self.lake.uri)
        self.clock_s = START_S
        self.documents = folder
        self.vehicles = [VEHICLE] + [
            Attributes(str(uuid.UUID(int=number << 64)), "Aria", "One", "DE" if number % 2 else "FR", 2026)
            for number in range(1, vehicles)
        ]
        for vehicle in self.vehicles[1:]:
            self.fleet.enrol(vehicle)
        self.rollouts = Rollouts(self.folder, self.lake, lambda: self.clock_s)

    @property
    def version(self) -> int:
        return read_state(self.folder.metadata).versions.targets

    @property
    def stored(self) -> Rollout:
        return Book(self.folder).require()

    def publish(self, *documents: bytes) -> None:
        files = [("campaign", self.file(document)) for document in documents]
        publish(self.folder, Publication(files=files, staged=documents_in_rollout(self.folder)), now=NOW)

    def start(self, document: bytes = NEW, audience: str = "", stages: tuple[float, ...] = STAGES) -> Rollout:
        plan = Plan(stages, hold_s=100.0, limit_percent=0.5, need_percent=100.0)
        return self.rollouts.start(Request([("campaign", self.file(document))], audience, plan))

    def file(self, document: bytes) -> Path:
        file = self.documents / f"{json.loads(document)['name']}.json"
        file.write_bytes(document)
        return file

    def contents(self, vehicle: Attributes) -> list[bytes]:
        """Return the documents that `vehicle` gets now, verified and checked by the code of the vehicle."""
        asked = msgspec.structs.replace(question(self.fleet, self.fleet.bundle(vehicle=vehicle)), vehicle=vehicle)
        release = verify(asked).release
        assert release is not None
        validate(release, vehicle)
        return sorted(release.documents.values())

    def having(self, content: bytes) -> set[str]:
        """Return the vehicles that get `content`; each vehicle must get one content of the document at most."""
        found = set()
        for vehicle in self.vehicles:
            contents = self.contents(vehicle)
            names = [json.loads(each)["name"] for each in contents]
            assert len(names) == len(set(names)), names
            if content in contents:
                found.add(vehicle.vehicle)
        return found

    def report(self, vehicles: Iterable[str], *, failed: Iterable[str] = ()) -> None:
        """Let vehicles report the newest release: those in `failed` take it back, and the others confirm it."""
        bad = set(failed)
        events = {
            name: receipt("push_reverted", self.version, "unhealthy")
            if name in bad
            else receipt("push_confirmed", self.version)
            for name in (*vehicles, *bad)
        }
        self.arrivals.land(*((name, [receipt("push_applied", self.version), event]) for name, event in events.items()))

    def all_names(self) -> set[str]:
        return {vehicle.vehicle for vehicle in self.vehicles}

    def registry(self) -> Registry:
        return Registry(self.folder.vehicles)
