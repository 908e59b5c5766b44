"""Test which files an answer to a vehicle holds.  tests/agent/pushes tests whether a vehicle accepts them."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agent.errors import Permanent
from agent.formats import topics
from agent.formats.down.bundle import TIMESTAMP, SyncRequest, Versions, build_request, have, parse_bundle
from agent.formats.down.chunks import ChunkName, build_chunk_request, parse_chunk
from agent.pushes.trust import verify
from fleet.publishing.repository import read_state, stored_name
from fleet.publishing.sync import Bundles, answer
from fleet.state.registry import Registry
from tests.agent.pushes.world import VEHICLE, Fleet, campaign, noisy_campaign, question, toggles


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path / "fleet")
    fleet.publish(toggles(), campaign())
    return fleet


def names(fleet: Fleet, held: Versions, applied: int = 0, refused: int = 0, *documents: bytes) -> list[str]:
    held_documents = tuple(have(document) for document in documents)
    request = SyncRequest(VEHICLE.vehicle, held, applied, refused, held_documents)
    files = parse_bundle(Bundles(fleet.folder).answer(request))
    return sorted(name.rsplit(".", 2)[-2] if name.startswith("targets/") else name for name in files)


CURRENT = Versions(1, 2, 2, 2)
METADATA = ["metadata/2.snapshot.json", "metadata/2.targets.json", TIMESTAMP]


def test_a_vehicle_from_the_factory_gets_everything(fleet: Fleet) -> None:
    assert names(fleet, Versions()) == ["drive", *METADATA, "toggles"]


def test_who_is_up_to_date_gets_the_timestamp(fleet: Fleet) -> None:
    assert names(fleet, CURRENT, 2) == [TIMESTAMP]


def test_who_refused_the_current_version_is_not_sent_it_again(fleet: Fleet) -> None:
    assert names(fleet, CURRENT, 1, 2) == [TIMESTAMP]


def test_documents_that_are_held_are_left_out(fleet: Fleet) -> None:
    assert names(fleet, Versions(1, 1, 1, 1), 1, 0, toggles()) == ["drive", *METADATA]


def test_roots_since_the_one_held_are_all_sent(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.rotate_root(("root1", "root2"))
    assert names(fleet, Versions(2, 2, 2, 2), 2) == ["metadata/3.root.json", "metadata/4.root.json", TIMESTAMP]


def test_a_vehicle_ahead_of_a_restored_repository_is_told_what_there_is(fleet: Fleet) -> None:
    assert names(fleet, Versions(1, 9, 9, 9), 9) == ["drive", *METADATA, "toggles"]


def test_a_damaged_repository_is_named(fleet: Fleet) -> None:
    for file in fleet.folder.targets.glob("*.json"):
        file.unlink()
    with pytest.raises(Permanent, match="restore the repository"):
        names(fleet, Versions())


OTHER = replace(VEHICLE, vehicle="11111111-2222-4333-8444-555555555555", brand="Nova")


def test_a_bundle_has_no_document_of_other_vehicles_and_names_none_of_them(fleet: Fleet) -> None:
    fleet.enrol(OTHER)
    fleet.publish(None, campaign("all"))
    fleet.publish(None, campaign(f"brake-test-of-{OTHER.vehicle}"), audience=({"vehicle": (OTHER.vehicle,)},))
    fleet.publish(None, campaign("nova-only"), audience=({"brand": ("Nova",)},))
    fleet.publish(None, campaign("both"), audience=({"vehicle": (OTHER.vehicle, VEHICLE.vehicle)},))
    own = verify(question(fleet, fleet.bundle())).release
    other = verify(question(fleet, fleet.bundle(vehicle=OTHER), vehicle=OTHER)).release
    assert own is not None
    assert other is not None
    named = [
        sorted(json.loads(text).get("name", "toggles") for text in each.documents.values()) for each in (own, other)
    ]
    assert named == [
        ["all", "both", "drive", "toggles"],
        ["all", "both", f"brake-test-of-{OTHER.vehicle}", "drive", "nova-only", "toggles"],
    ]
    for vehicle, strangers in ((VEHICLE, (OTHER.vehicle, "brake-test", "nova-only")), (OTHER, (VEHICLE.vehicle,))):
        files = parse_bundle(fleet.bundle(vehicle=vehicle))
        text = "\n".join(f"{name}\n{content.decode()}" for name, content in files.items())
        assert [each for each in strangers if each in text] == []


def test_two_documents_do_not_show_that_they_are_for_the_same_vehicle(fleet: Fleet) -> None:
    fleet.publish(None, campaign("a"), campaign("b"), audience=({"vehicle": (OTHER.vehicle,)},))
    targets = read_state(fleet.folder.metadata).targets.targets.values()
    digests = [target.custom["audience"]["vehicle"] for target in targets if target.custom]
    assert len(digests) == 2
    assert digests[0] != digests[1]


def test_a_vehicle_that_is_not_enrolled_or_revoked_gets_no_answer(fleet: Fleet) -> None:
    topic, request = topics.sync(OTHER.vehicle), build_request(SyncRequest(OTHER.vehicle, Versions()))
    assert respond(fleet, topic, request) == []
    fleet.enrol(OTHER)
    assert len(respond(fleet, topic, request)) == 1
    record = Registry(fleet.folder.vehicles).read(OTHER.vehicle)
    assert record is not None
    Registry(fleet.folder.vehicles).add(msgspec.structs.replace(record, revoked=True))
    assert respond(fleet, topic, request) == []


def test_the_software_that_a_vehicle_reports_decides_and_is_noted_beside_its_record(fleet: Fleet) -> None:
    fleet.publish(None, campaign("new-only"), audience=({"software": ("4.2",)},))
    registry = Registry(fleet.folder.vehicles)

    def documents(software: str) -> int:
        request = SyncRequest(VEHICLE.vehicle, Versions(), software=software)
        files = parse_bundle(Bundles(fleet.folder).answer(request))
        return sum(name.startswith("targets/") for name in files)

    assert [documents(software) for software in ("", "4.1", "4.2", "")] == [2, 2, 3, 3]
    record = registry.read(VEHICLE.vehicle)
    assert record is not None
    assert record.software == "4.2"
    registry.add(msgspec.structs.replace(record, revoked=True))
    registry.note_software(VEHICLE.vehicle, "4.3")
    record = registry.read(VEHICLE.vehicle)
    assert record is not None
    assert (record.software, record.revoked) == ("4.3", True)


class Recorder:
    """A connection that keeps published messages, with the signature of the real one."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> int:
        self.published.append((topic, payload))
        return 0


def respond(fleet: Fleet, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
    recorder = Recorder()
    asyncio.run(answer(recorder, topic, payload, Bundles(fleet.folder)))  # type: ignore[arg-type]
    return recorder.published


def test_the_answer_goes_to_the_vehicle_that_asked(fleet: Fleet) -> None:
    request = SyncRequest(VEHICLE.vehicle, Versions())
    published = respond(fleet, topics.sync(VEHICLE.vehicle), build_request(request))
    assert published == [(topics.push(VEHICLE.vehicle), Bundles(fleet.folder).answer(request))]


@pytest.mark.parametrize(
    ("topic", "vehicle"),
    [
        (topics.sync(VEHICLE.vehicle), "11111111-2222-4333-8444-555555555555"),
        ("hu/v1/sync/somebody", VEHICLE.vehicle),
    ],
)
def test_nobody_is_answered_in_anothers_name(fleet: Fleet, topic: str, vehicle: str) -> None:
    assert respond(fleet, topic, build_request(SyncRequest(vehicle, Versions()))) == []


def test_garbage_is_not_answered(fleet: Fleet) -> None:
    assert respond(fleet, topics.sync(VEHICLE.vehicle), b"\xff" * 50) == []


def test_chunks_go_to_the_vehicle_that_asked_for_them_and_to_no_other_name(fleet: Fleet) -> None:
    fleet.publish(None, noisy_campaign("large", 120_000))
    target = next(t for t in read_state(fleet.folder.metadata).targets.targets.values() if "large" in t.path)
    names = [ChunkName(target.hashes["sha256"], index) for index in (1, 0, 7)]
    payload = build_chunk_request(VEHICLE.vehicle, names)
    published = respond(fleet, topics.fetch(VEHICLE.vehicle), payload)
    assert {topic for topic, _ in published} == {topics.chunk(VEHICLE.vehicle)}
    chunks = [parse_chunk(payload) for _, payload in published]
    assert [chunk.name for chunk in chunks] == names[:2]
    stored = (fleet.folder.targets / stored_name(target)).read_bytes()
    assert chunks[1].content + chunks[0].content == stored
    assert respond(fleet, topics.fetch(OTHER.vehicle), payload) == []
    assert respond(fleet, topics.fetch(VEHICLE.vehicle), b"\xff" * 50) == []
