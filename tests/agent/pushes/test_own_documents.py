"""Test documents for single vehicles, which lie in hash bins, with the real repository and the real verifier."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from agent.errors import Permanent, Untrusted
from agent.formats.down.bundle import Versions, build_bundle, parse_bundle
from agent.formats.down.own_list import list_path, parse_list
from agent.pushes.receipts import PushOutcome, Result
from agent.pushes.release import Reason, Refused
from agent.pushes.trust import verify
from fleet.publishing import repository
from fleet.publishing.bins import bin_of, first_expiry
from fleet.publishing.freshness import keep_fresh
from fleet.publishing.own_documents import Change, publish_own
from tests.agent.pushes.test_large_documents import Car
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, question, toggles

OTHER = replace(VEHICLE, vehicle="11111111-2222-4333-8444-555555555555")
OWN = campaign("brake-test")
OWN_PATH = "campaigns/brake-test.json"


def give(fleet: Fleet, vehicle: str, *documents: bytes, flags: bytes | None = None, **more: Any) -> Versions:
    files: list[tuple[str, Path]] = []
    for number, document in enumerate(documents):
        files.append(("campaign", fleet.folder.root / f"own-{number}.json"))
        files[-1][1].write_bytes(document)
    if flags is not None:
        files.append(("toggles", fleet.folder.root / "own-toggles.json"))
        files[-1][1].write_bytes(flags)
    return publish_own(fleet.folder, {vehicle: Change(files, **more)}, now=NOW)


@pytest.fixture
def car(fleet: Fleet, tmp_path: Path) -> Car:
    fleet.enrol(OTHER)
    fleet.publish(toggles(), campaign())
    return Car(fleet, tmp_path / "car")


def update(car: Car) -> PushOutcome:
    outcome = car.sync()
    car.fetch()
    return car.sync() if outcome.result is Result.FETCHING else outcome


def test_a_vehicle_gets_its_own_documents_with_those_of_all_and_no_other_vehicle_does(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    assert update(car) == PushOutcome(Result.APPLIED, 3)
    assert car.documents == {"campaigns/drive.json": campaign(), "toggles.json": toggles(), OWN_PATH: OWN}
    release = verify(question(fleet, fleet.bundle(vehicle=OTHER), vehicle=OTHER)).release
    assert release is not None
    assert sorted(release.documents) == ["campaigns/drive.json", "toggles.json"]


def test_an_own_document_that_a_vehicle_would_refuse_beside_a_shared_one_is_not_signed(fleet: Fleet, car: Car) -> None:
    # The path of a document for some vehicles hides its name, so the own document does not take its place.
    fleet.publish(None, OWN, audience=({"brand": (VEHICLE.brand,)},))
    with pytest.raises(Permanent, match="brake-test"):
        give(fleet, VEHICLE.vehicle, OWN)


def test_a_dry_run_signs_no_bin_even_if_bins_are_due(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    before = sorted(fleet.folder.metadata.iterdir())
    file = fleet.folder.root / "own.json"
    file.write_bytes(campaign("second"))
    late = NOW + timedelta(days=repository.DOCUMENT_DAYS - 1)
    publish_own(fleet.folder, {VEHICLE.vehicle: Change([("campaign", file)])}, now=late, dry_run=True)
    assert sorted(fleet.folder.metadata.iterdir()) == before


def test_the_receiver_says_when_the_first_bin_expires(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    later = NOW + timedelta(days=60)
    fleet.publish(None, OWN, now=later)
    fresh = keep_fresh(fleet.folder, later)
    assert (fresh.file, first_expiry(fleet.folder, repository.read_state(fleet.folder.metadata))) == (
        "timestamp",
        NOW + timedelta(days=repository.DOCUMENT_DAYS),
    )


def test_the_bundle_of_a_vehicle_has_only_its_own_bin_and_names_no_vehicle(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    give(fleet, OTHER.vehicle, campaign("secret-of-other"))
    files = parse_bundle(fleet.bundle())
    bins = [name for name in files if "bin-" in name]
    found = bin_of(repository.read_state(fleet.folder.metadata), VEHICLE.vehicle)
    assert found is not None
    assert bins == [f"metadata/{found[1]}.{found[0]}.json"]
    text = "\n".join(f"{name}\n{content.decode()}" for name, content in files.items())
    assert VEHICLE.vehicle not in text
    assert OTHER.vehicle not in text
    assert "secret-of-other" not in text


def test_an_own_document_takes_the_place_of_the_shared_one_until_it_is_removed(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, flags=toggles(False))
    update(car)
    assert car.documents["toggles.json"] == toggles(False)
    give(fleet, VEHICLE.vehicle, remove=[("toggles", "toggles")])
    assert update(car) == PushOutcome(Result.APPLIED, 4)
    assert car.documents == {"campaigns/drive.json": campaign(), "toggles.json": toggles()}


def test_a_publication_for_all_leaves_own_documents_in_force(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    update(car)
    fleet.publish(toggles(False))
    assert update(car) == PushOutcome(Result.APPLIED, 4)
    assert car.documents == {"campaigns/drive.json": campaign(), "toggles.json": toggles(False), OWN_PATH: OWN}
    car.start()
    assert car.sync() == PushOutcome(Result.UNCHANGED, 4)


def test_thousands_of_vehicles_get_different_documents_in_one_publication(fleet: Fleet, car: Car) -> None:
    vehicles = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(60)]
    changes = {}
    for number, vehicle in enumerate(vehicles):
        fleet.enrol(replace(VEHICLE, vehicle=vehicle))
        file = fleet.folder.root / f"{vehicle}.json"
        file.write_bytes(campaign(f"own-{number}"))
        changes[vehicle] = Change([("campaign", file)])
    publish_own(fleet.folder, changes, now=NOW)
    for number in (0, 31, 59):
        vehicle = replace(VEHICLE, vehicle=vehicles[number])
        wanted = verify(question(fleet, fleet.bundle(vehicle=vehicle), vehicle=vehicle)).wanted
        assert [file.document_bytes for file in wanted] == [len(campaign(f"own-{number}"))]


def test_what_the_vehicle_would_refuse_is_not_signed(fleet: Fleet, car: Car) -> None:
    before = repository.read_state(fleet.folder.metadata).versions
    shared = next(path for path in fleet.folder.targets.rglob("*drive*")).read_bytes()
    for document, complaint in (
        (OWN.replace(b"periodMs", b"period"), "period"),
        (shared.replace(b'"drive"', b'"x y"'), ""),
    ):
        with pytest.raises(Permanent, match=f"Vehicle {VEHICLE.vehicle}.*{complaint}"):
            give(fleet, VEHICLE.vehicle, document)
    with pytest.raises(Permanent, match="not enrolled"):
        give(fleet, "22222222-2222-4333-8444-555555555555", OWN)
    with pytest.raises(Permanent, match="has no own campaign 'typo'"):
        give(fleet, VEHICLE.vehicle, remove=[("campaign", "typo")])
    assert repository.read_state(fleet.folder.metadata).versions == before


# ---- attacks on the bin


def refusal(fleet: Fleet, files: dict[str, bytes], **changes: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(question(fleet, files, **changes))
    return refused.value.reason


def bin_file(fleet: Fleet) -> str:
    return next(name for name in parse_bundle(fleet.bundle()) if "bin-" in name)


def changed(fleet: Fleet, change: Callable[[Metadata[Any]], object]) -> dict[str, bytes]:
    """Return the bundle with the vehicle's bin after `change`."""
    files = parse_bundle(fleet.bundle())
    metadata: Metadata[Any] = Metadata.from_bytes(files[bin_file(fleet)])
    change(metadata)
    return files | {bin_file(fleet): metadata.to_bytes()}


def test_a_bin_that_is_tampered_foreign_or_of_another_version_is_refused(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    stranger, genuine = CryptoSigner.generate_ed25519(), fleet.signer("targets")

    def empty(metadata: Metadata[Any]) -> None:
        metadata.signed.targets = {}

    def by_stranger(metadata: Metadata[Any]) -> None:
        metadata.sign(stranger)

    def unsigned(metadata: Metadata[Any]) -> None:
        metadata.signatures.clear()

    def other_version(metadata: Metadata[Any]) -> None:
        metadata.signed.version += 1
        metadata.sign(genuine)

    def expired(metadata: Metadata[Any]) -> None:
        metadata.signed.expires = NOW - timedelta(days=1)
        metadata.sign(genuine)

    assert refusal(fleet, changed(fleet, empty)) is Reason.TAMPERED
    assert refusal(fleet, changed(fleet, by_stranger)) is Reason.FOREIGN_KEY
    assert refusal(fleet, changed(fleet, unsigned)) is Reason.FOREIGN_KEY
    assert refusal(fleet, changed(fleet, other_version)) is Reason.MIX_AND_MATCH
    assert refusal(fleet, changed(fleet, expired)) is Reason.EXPIRED
    missing = parse_bundle(fleet.bundle())
    del missing[bin_file(fleet)]
    assert refusal(fleet, missing) is Reason.TRUNCATED


def test_the_bin_or_the_list_of_another_vehicle_does_not_pass_for_the_own_one(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    give(fleet, OTHER.vehicle, campaign("other"))
    own = parse_bundle(fleet.bundle())
    other = parse_bundle(fleet.bundle(vehicle=OTHER))
    other_bin = next(content for name, content in other.items() if "bin-" in name)
    own_list, other_list = (
        next(name for name in files if list_path(vehicle.vehicle).split("/")[1] in name)
        for files, vehicle in ((own, VEHICLE), (other, OTHER))
    )
    # The same key signs all bins, and both have version 1.
    assert refusal(fleet, own | {bin_file(fleet): other_bin}) is Reason.MIX_AND_MATCH
    assert refusal(fleet, own | {own_list: other[other_list]}) is Reason.TAMPERED


def test_a_bin_never_goes_back_even_if_the_stored_metadata_is_lost(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    give(fleet, VEHICLE.vehicle, campaign("second"))
    trusted = verify(question(fleet, fleet.bundle()))
    assert trusted.versions.bin == 2
    give(fleet, VEHICLE.vehicle, campaign("third"))
    files = parse_bundle(fleet.bundle())
    floor = msgspec.structs.replace(trusted.versions, bin=9)
    assert refusal(fleet, files, floor=floor) is Reason.ROLLBACK


def test_a_list_that_nests_deeply_is_malformed() -> None:
    with pytest.raises(Untrusted, match="malformed"):
        parse_list(b'{"targets": {"a": ' + b'{"a": ' * 3_000)


def test_a_snapshot_without_a_bin_that_was_seen_is_refused(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    trusted = verify(question(fleet, fleet.bundle()))
    state = repository.read_state(fleet.folder.metadata)
    targets = state.targets.targets
    repository.write_version(fleet.folder, state.versions, targets, {}, bins=None, now=NOW, expiry_days=90)
    files = parse_bundle(fleet.bundle())
    assert refusal(fleet, files, metadata=trusted.metadata) is Reason.MIX_AND_MATCH
    assert refusal(fleet, files, floor=trusted.versions) is Reason.ROLLBACK


def test_an_attack_on_the_bin_changes_nothing_on_the_disk(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    update(car)
    before = car.disk()
    give(fleet, VEHICLE.vehicle, campaign("second"))

    def empty(metadata: Metadata[Any]) -> None:
        metadata.signed.targets = {}

    outcome = asyncio.run(car.pushes.offer(build_bundle(changed(fleet, empty))))
    assert (outcome.result, outcome.reason) == (Result.REFUSED, Reason.TAMPERED)
    assert car.disk() == before
    assert update(car).result is Result.APPLIED


# ---- keys and expiry


def test_after_a_new_targets_key_the_next_publication_signs_all_bins_again(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    update(car)
    fleet.rotate_root(("root1", "root2"), replace_key="targets")
    fleet.publish(toggles(False))
    assert update(car).result is Result.APPLIED
    assert car.documents[OWN_PATH] == OWN


def test_a_renewal_signs_bins_again_before_they_expire(fleet: Fleet, car: Car) -> None:
    give(fleet, VEHICLE.vehicle, OWN)
    late = NOW + timedelta(days=repository.DOCUMENT_DAYS - 30)
    fleet.publish(now=late)
    found = bin_of(repository.read_state(fleet.folder.metadata), VEHICLE.vehicle)
    assert found is not None
    assert found[1] == 2
    files = parse_bundle(fleet.bundle())
    now_s = int((NOW + timedelta(days=repository.DOCUMENT_DAYS + 1)).timestamp())
    assert verify(question(fleet, files, now_s=now_s)).wanted != ()
    assert json.loads(files[bin_file(fleet)])["signed"]["version"] == 2
