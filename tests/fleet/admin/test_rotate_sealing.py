"""A rotation of the sealing key loses no batch: neither old ones nor new ones, wherever it is interrupted."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import Permanent, Untrusted
from agent.formats.up.recipient import RecipientPublicKey
from fleet.admin.enrol import enrol
from fleet.admin.rotate_authority import rotate_authority
from fleet.admin.rotate_sealing import rotate_sealing
from fleet.publishing import repository
from fleet.receiving.message import Message
from fleet.receiving.store import Store
from fleet.rollout.book import Book
from fleet.rollout.plan import Plan, Rollout, StageRecord
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient
from fleet.state.sealing_keys import SealingKeys, add_sealing_key, retired_files
from tests.fleet.vehicles import DEMO, Vehicle, numbers

NOW = datetime.now(UTC)


def published_key(fleet: FleetFolder) -> RecipientPublicKey | None:
    target = repository.read_state(fleet.metadata).targets.targets.get("recipient.json")
    if target is None:
        return None
    content = (fleet.targets / repository.stored_name(target)).read_bytes()
    return RecipientPublicKey.from_json(content, "recipient.json")


def test_a_running_receiver_stores_batches_of_both_keys_after_a_rotation(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    store.recover()
    rotated = rotate_sealing(fleet, suite="MLKEM768_X25519", now=NOW)
    switched = Vehicle(vehicle.folder, vehicle.name, vehicle.key, read_recipient(fleet).public, vehicle.acks_key)
    assert switched.recipient.key_id == rotated.key_id != rotated.before
    store.take_in([Message(vehicle.topic, vehicle.batch(1)), Message(vehicle.topic, switched.batch(2))])
    (answer,) = store.land()
    assert numbers(vehicle.verify(answer.payload).stored) == (1, 2)


def test_the_published_document_and_the_next_enrolment_have_the_new_key(fleet: FleetFolder, tmp_path: Path) -> None:
    key_id = rotate_sealing(fleet, suite=None, now=NOW).key_id
    found = published_key(fleet)
    assert found is not None
    assert found.key_id == key_id
    enrol(fleet, tmp_path / "car", DEMO, days=1, now=NOW)
    assert RecipientPublicKey.from_json((tmp_path / "car" / "hpke.pub.json").read_bytes(), "").key_id == key_id


def test_a_rotation_that_was_interrupted_before_it_published_is_completed_with_the_same_key(fleet: FleetFolder) -> None:
    made = add_sealing_key(fleet, "X25519")
    assert published_key(fleet) is None
    rotated = rotate_sealing(fleet, suite=None, now=NOW)
    assert (rotated.key_id, rotated.resumed) == (made.key_id, True)
    assert rotate_sealing(fleet, suite=None, now=NOW).key_id != made.key_id


def test_while_a_roll_out_publishes_the_same_document_nothing_is_rotated(fleet: FleetFolder) -> None:
    plan = Plan((10.0, 100.0), hold_s=1.0, limit_percent=1.0, need_percent=100.0)
    staged = {"recipient.json": "00", "authorities.pem": "00"}
    Book(fleet).write(Rollout("one", plan, staged, "", (), "", (StageRecord(10.0, 1),)))
    before = read_recipient(fleet).key_id
    with pytest.raises(Permanent, match=r"roll-out is publishing the document recipient\.json"):
        rotate_sealing(fleet, suite=None, now=NOW)
    with pytest.raises(Permanent, match=r"roll-out is publishing the document authorities\.pem"):
        rotate_authority(fleet, now=NOW)
    assert (read_recipient(fleet).key_id, retired_files(fleet)) == (before, [])


def test_every_earlier_key_stays(fleet: FleetFolder) -> None:
    ids = [read_recipient(fleet).key_id, *(rotate_sealing(fleet, suite=None, now=NOW).key_id for _ in range(3))]
    keys = SealingKeys(fleet)
    assert [keys.find(key_id).key_id for key_id in ids] == ids
    assert [path.stem for path in retired_files(fleet)] == [f"hpke-{key_id}" for key_id in ids[:-1]]


@pytest.mark.parametrize("key_id", ["0" * 16, "../ca.key", "", "\0", "x" * 1_000])
def test_a_key_that_the_fleet_lacks_is_a_refusal_and_never_a_path(fleet: FleetFolder, key_id: str) -> None:
    with pytest.raises(Untrusted, match="no such sealing key"):
        SealingKeys(fleet).find(key_id)


def test_a_damaged_earlier_key_costs_only_its_own_batches(fleet: FleetFolder) -> None:
    before = rotate_sealing(fleet, suite=None, now=NOW).before
    fleet.sealing_key(before).write_text("{}")
    keys = SealingKeys(fleet)
    with pytest.raises(Untrusted, match=f"hpke-{before}"):
        keys.find(before)
    fleet.hpke_private.write_text("{}")
    with pytest.raises(Permanent):
        SealingKeys(fleet)
