"""A rotation of the authority goes step by step, and leaves no vehicle behind by mistake."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import Permanent
from fleet.admin.enrol import enrol, enrol_again, reissue
from fleet.admin.key_list import list_keys
from fleet.admin.revocation import revoke
from fleet.admin.rotate_authority import rotate_authority
from fleet.publishing import repository
from fleet.state.authorities import accepted_authorities, issuing_authority
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_certificate, read_certificates, read_revocation_lists
from tests.fleet.vehicles import DEMO, Vehicle

NOW = datetime.now(UTC)


def published(fleet: FleetFolder) -> bytes:
    target = repository.read_state(fleet.metadata).targets.targets["authorities.pem"]
    return (fleet.targets / repository.stored_name(target)).read_bytes()


def test_the_three_steps(fleet: FleetFolder, vehicle: Vehicle) -> None:
    old = read_certificate(fleet.ca_certificate)
    assert rotate_authority(fleet, now=NOW).name == "announced"
    issuing, new = accepted_authorities(fleet)
    assert issuing == old
    assert read_certificate(fleet.broker.certificate).issuer == old.subject
    assert published(fleet) == fleet.broker.authorities.read_bytes()

    step = rotate_authority(fleet, now=NOW)
    assert (step.name, step.waiting) == ("switched", 1)
    assert accepted_authorities(fleet) == read_certificates(fleet.broker.authorities) == [new, old]
    assert issuing_authority(fleet).certificate == read_certificate(fleet.ca_certificate) == new
    assert read_certificate(fleet.broker.certificate).issuer == old.subject

    with pytest.raises(Permanent, match="old authority are still in use in 1 vehicle, which"):
        rotate_authority(fleet, now=NOW)
    reissue(fleet, vehicle.name, days=9, now=NOW)
    assert rotate_authority(fleet, now=NOW).name == "finished"
    assert accepted_authorities(fleet) == [new]
    assert read_certificate(fleet.broker.certificate).issuer == new.subject
    assert [path.name for path in fleet.keys.glob("ca*")] == ["ca.key.pem"]
    assert "old" not in {line.name for line in list_keys(fleet, NOW).lines}
    assert rotate_authority(fleet, now=NOW).name == "announced"  # the next rotation


def test_each_accepted_authority_has_a_revocation_list_and_a_revoked_vehicle_is_on_the_right_one(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    rotate_authority(fleet, now=NOW)
    rotate_authority(fleet, now=NOW)
    young = enrol(fleet, tmp_path / "young", DEMO, days=9, now=NOW)
    revoke(fleet, vehicle.name, NOW)
    revoke(fleet, young.vehicle, NOW)
    lists = read_revocation_lists(fleet.broker.revocation_list)
    assert [each.issuer for each in lists] == [each.subject for each in accepted_authorities(fleet)]
    assert [[each.serial_number for each in one] for one in lists] == [
        [young.certificates[0].serial_number],
        [read_certificate(vehicle.folder / "device.crt.pem").serial_number],
    ]


def test_a_vehicle_that_is_enrolled_during_a_rotation_trusts_both_authorities(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    rotate_authority(fleet, now=NOW)
    enrol_again(fleet, vehicle.name, tmp_path / "again", days=9, now=NOW)
    assert (tmp_path / "again" / "ca.crt.pem").read_bytes() == fleet.broker.authorities.read_bytes()


def test_a_power_cut_in_the_switch_leaves_a_certificate_with_its_key(fleet: FleetFolder) -> None:
    rotate_authority(fleet, now=NOW)
    before = fleet.key("ca.key").read_bytes()
    rotate_authority(fleet, now=NOW)
    fleet.key("ca.key").write_bytes(before)  # the power failed after the certificate was written, and before the key
    assert issuing_authority(fleet).key.public_key() == read_certificate(fleet.ca_certificate).public_key()


def test_without_the_authoritys_key_nothing_changes(fleet: FleetFolder) -> None:
    fleet.key("ca.key").unlink()
    with pytest.raises(Permanent, match="authority"):
        rotate_authority(fleet, now=NOW)
    assert len(accepted_authorities(fleet)) == 1
