"""Test releases with large documents as a whole, with the real verifier process."""

import asyncio
import errno
import json
import os
import random
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.down.bundle import parse_bundle, parse_request
from agent.formats.down.chunks import CHUNK_BYTES, ChunkName, build_chunk, parse_chunk, parse_chunk_request
from agent.pushes import trust, unpack
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Reason, Refused
from agent.system import durable
from fleet.publishing import repository
from fleet.publishing.sync import Bundles
from fleet.publishing.targets import target_of
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, noisy_campaign, question, toggles

LARGE = noisy_campaign("large", 120_000)
OTHER = noisy_campaign("other", 105_000)
PATH, OTHER_PATH = "campaigns/large.json", "campaigns/other.json"


class Car:
    """A vehicle that asks the fleet without a broker."""

    def __init__(self, fleet: Fleet, path: Path) -> None:
        self.fleet = fleet
        self.path = path
        self.bundles = Bundles(fleet.folder)
        self.start()

    def start(self) -> None:
        self.pushes = Pushes.open(self.path, trusted_root=self.fleet.root, vehicle=VEHICLE)
        asyncio.run(self.pushes.begin())

    def sync(self) -> PushOutcome:
        return asyncio.run(self.pushes.offer(self.bundles.answer(parse_request(self.pushes.sync_request()))))

    def chunks(self) -> list[bytes]:
        """Return the fleet's answer to the next request for chunks."""
        request = self.pushes.chunks.request(self.pushes.chunks.missing())
        return self.bundles.chunks(parse_chunk_request(request))

    def take(self, payload: bytes) -> PushOutcome | ChunkName | None:
        return self.pushes.chunks.take(payload)

    def fetch(self) -> None:
        while self.pushes.chunks.missing():
            for payload in self.chunks():
                assert isinstance(self.take(payload), ChunkName)

    def disk(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}

    @property
    def documents(self) -> dict[str, bytes]:
        release = self.pushes.current()
        return {} if release is None else dict(release.documents)


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    return Car(fleet, tmp_path / "car")


def refusal(outcome: object) -> Reason | None:
    assert isinstance(outcome, PushOutcome)
    assert outcome.result is Result.REFUSED
    assert outcome.detail
    return outcome.reason


def test_a_large_document_is_fetched_in_chunks_and_in_force_with_the_small_ones(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), LARGE)
    assert not any("large" in name for name in parse_bundle(fleet.bundle()))
    assert car.sync() == PushOutcome(Result.FETCHING, 2)
    assert car.pushes.current() is None
    car.fetch()
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    expected = {"toggles.json": toggles(), PATH: LARGE}
    assert car.documents == expected
    car.start()
    assert car.documents == expected
    assert car.sync() == PushOutcome(Result.UNCHANGED, 2)


def test_what_arrived_is_kept_over_restarts_and_publications_and_only_the_rest_is_asked_for(
    fleet: Fleet, car: Car
) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    first, second = car.chunks()
    car.take(second)
    fleet.publish(toggles())
    car.start()
    assert [name.index for name in car.pushes.chunks.missing()] == [0]
    assert car.sync() == PushOutcome(Result.FETCHING, 3)
    assert car.chunks() == [first]
    car.take(first)
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.documents == {"toggles.json": toggles(), PATH: LARGE}


def test_a_held_large_document_is_not_fetched_again_for_the_next_release(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.fetch()
    car.sync()
    fleet.publish(toggles())
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.documents == {"toggles.json": toggles(), PATH: LARGE}


def test_chunks_of_two_documents_may_come_interleaved_and_in_any_order(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE, OTHER)
    car.sync()
    payloads = car.chunks()
    assert len({parse_chunk(payload).name.sha256 for payload in payloads}) == 2
    random.Random(1).shuffle(payloads)
    for payload in payloads:
        assert isinstance(car.take(payload), ChunkName)
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    assert car.documents == {PATH: LARGE, OTHER_PATH: OTHER}


def test_each_bad_chunk_is_refused_with_its_reason_and_changes_nothing(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    payload, last = car.chunks()
    chunk = parse_chunk(payload)
    assert isinstance(car.take(payload), ChunkName)
    before = car.disk()
    name, content = chunk.name, chunk.content
    bad = {
        Reason.MALFORMED: b"\xff" + payload,
        Reason.OVERSIZED: payload + bytes(CHUNK_BYTES),
        Reason.TRUNCATED: build_chunk(name, content[:-1]),
        Reason.TAMPERED: build_chunk(name, content[:-1] + bytes([content[-1] ^ 1])),
        Reason.UNWANTED: build_chunk(ChunkName(name.sha256, 2), content),
        Reason.DUPLICATE: payload,
    }
    assert {reason: refusal(car.take(each)) for reason, each in bad.items()} == {reason: reason for reason in bad}
    assert car.disk() == before
    assert isinstance(car.take(last), ChunkName)
    assert car.sync() == PushOutcome(Result.APPLIED, 2)


def test_chunks_without_end_have_one_receipt_of_each_reason_and_take_no_flash(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    before = car.disk()
    stray = [build_chunk(ChunkName(f"{number:064x}", number), bytes(CHUNK_BYTES)) for number in range(200)]
    outcomes = [car.take(payload) for payload in stray]
    assert refusal(outcomes[0]) is Reason.UNWANTED
    assert outcomes[1:] == [None] * 199
    assert car.pushes.chunks.refused == 200
    assert car.disk() == before


def test_a_chunk_that_the_flash_damaged_is_fetched_again_and_no_other(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.fetch()
    (file,) = car.path.glob("large/*/1")
    file.write_bytes(b"?" + file.read_bytes()[1:])
    assert car.sync() == PushOutcome(Result.FETCHING, 2)
    assert [name.index for name in car.pushes.chunks.missing()] == [1]
    car.fetch()
    assert car.sync() == PushOutcome(Result.APPLIED, 2)


def test_a_damaged_large_document_in_force_is_fetched_again(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.fetch()
    car.sync()
    asyncio.run(car.pushes.confirm_trial())
    (file,) = car.path.glob("large/*/0")
    file.unlink()
    car.start()
    assert car.pushes.current() is None
    assert car.sync() == PushOutcome(Result.FETCHING, 2)
    car.fetch()
    car.sync()
    assert car.documents == {PATH: LARGE}


def test_files_that_no_release_names_are_removed(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.take(car.chunks()[0])
    assert len(list(car.path.glob("large/*"))) == 1
    fleet.publish(None, noisy_campaign("large", 1_000))
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert list(car.path.glob("large/*")) == []
    assert car.pushes.chunks.missing() == []


def test_a_failed_trial_brings_back_the_large_documents_of_the_release_before(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.fetch()
    car.sync()
    asyncio.run(car.pushes.confirm_trial())
    fleet.publish(None, campaign("large"))
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    asyncio.run(car.pushes.fail_trial("for the test"))
    assert car.documents == {PATH: LARGE}


def test_a_vehicle_gets_no_chunk_of_a_document_for_others(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE, audience=({"brand": ("Nova",)},))
    (target,) = (path.name for path in fleet.folder.targets.rglob("*.json"))
    request = car.pushes.chunks.request([ChunkName(target.split(".")[0], 0)])
    assert car.bundles.chunks(parse_chunk_request(request)) == []
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    assert car.documents == {}


def test_large_documents_that_are_too_large_together_are_refused(
    fleet: Fleet, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.publish(None, LARGE, OTHER)
    monkeypatch.setattr(unpack, "PACKED_BYTES", 200_000)
    with pytest.raises(Refused, match="for this vehicle"):
        trust.verify(question(fleet, fleet.bundle()))


def test_a_damaged_large_document_in_force_is_fetched_again_when_the_next_release_needs_it(
    fleet: Fleet, car: Car
) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    car.fetch()
    car.sync()
    asyncio.run(car.pushes.confirm_trial())
    (file,) = car.path.glob("large/*/0")
    file.write_bytes(b"?" + file.read_bytes()[1:])
    fleet.publish(toggles())
    assert car.sync() == PushOutcome(Result.FETCHING, 3)
    # A chunk that is there but damaged must count as missing at once: nothing else would make the vehicle ask for it.
    assert [name.index for name in car.pushes.chunks.missing()] == [0]
    car.fetch()
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.documents == {"toggles.json": toggles(), PATH: LARGE}


def test_a_new_version_of_a_half_fetched_document_takes_its_place(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    first, late = car.chunks()
    car.take(first)
    newer = json.dumps(json.loads(OTHER) | {"name": "large"}).encode()
    fleet.publish(None, newer)
    assert car.sync() == PushOutcome(Result.FETCHING, 3)
    assert refusal(car.take(late)) is Reason.UNWANTED
    car.fetch()
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.documents == {PATH: newer}
    assert len(list(car.path.glob("large/*"))) == 1


def test_a_half_fetched_document_that_is_withdrawn_is_forgotten(fleet: Fleet, car: Car) -> None:
    fleet.publish(toggles(), LARGE)
    car.sync()
    car.take(car.chunks()[0])
    state = repository.read_state(fleet.folder.metadata)
    kept = {path: target for path, target in state.targets.targets.items() if path != PATH}
    repository.write_version(fleet.folder, state.versions, kept, {}, bins=None, now=NOW, expiry_days=90)
    assert car.chunks() == []
    assert car.sync() == PushOutcome(Result.APPLIED, 3)
    assert car.pushes.chunks.missing() == []
    assert car.documents == {"toggles.json": toggles()}
    assert list(car.path.glob("large/*")) == []


def test_documents_with_the_same_content_for_different_vehicles_are_sent_to_both(fleet: Fleet, car: Car) -> None:
    stored = [target_of(f"campaigns/{brand}.json", LARGE, ({"brand": (brand,)},)) for brand in (VEHICLE.brand, "Nova")]
    # The publisher refuses campaigns of the same name, but databases of two buses may well be equal.
    targets = {target.path: target for target, _ in stored}
    contents = {target.path: content for target, content in stored}
    state = repository.read_state(fleet.folder.metadata)
    repository.write_version(fleet.folder, state.versions, targets, contents, bins=None, now=NOW, expiry_days=90)
    car.sync()
    car.fetch()
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
    assert list(car.documents.values()) == [LARGE]


def test_large_documents_that_unpack_to_too_much_are_refused_before_a_chunk_is_fetched(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.publish(None, LARGE, OTHER)
    monkeypatch.setattr(unpack, "DOCUMENT_BYTES", len(LARGE) + len(OTHER))
    assert len(trust.verify(question(fleet, fleet.bundle())).wanted) == 2
    monkeypatch.setattr(unpack, "DOCUMENT_BYTES", len(LARGE) + len(OTHER) - 1)
    with pytest.raises(Refused, match="for this vehicle"):
        trust.verify(question(fleet, fleet.bundle()))


def test_a_large_document_above_the_limit_of_its_kind_is_refused_before_a_chunk_is_fetched(fleet: Fleet) -> None:
    fleet.sign_as_is(PATH, b" " * 2_000_000)
    with pytest.raises(Refused, match=f"{PATH} has 2000000 bytes unpacked") as refused:
        trust.verify(question(fleet, fleet.bundle()))
    assert refused.value.reason is Reason.OVERSIZED


def test_a_full_disk_during_a_fetch_loses_nothing_and_leaves_no_rest(fleet: Fleet, car: Car) -> None:
    fleet.publish(None, LARGE)
    car.sync()
    first, second = car.chunks()
    car.take(first)
    before = car.disk()

    class FullDisk(durable.Disk):
        def write_synced(self, path: Path, content: bytes, mode: int) -> None:
            path.write_bytes(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with durable.on(FullDisk()), pytest.raises(Transient, match="free some space"):
        car.take(second)
    assert car.disk() == before
    assert isinstance(car.take(second), ChunkName)
    assert car.sync() == PushOutcome(Result.APPLIED, 2)
