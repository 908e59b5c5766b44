"""A revoked vehicle is on the broker's list, and off it again when it is taken back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.errors import Permanent
from fleet.__main__ import main
from fleet.admin.enrol import enrol, enrol_again, reissue
from fleet.admin.revocation import reinstate, revoke
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_certificate, read_p256, read_revocation_lists
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord
from tests.fleet.vehicles import DEMO

NOW = datetime.now(UTC)


@pytest.fixture
def record(fleet: FleetFolder, tmp_path: Path) -> VehicleRecord:
    return enrol(fleet, tmp_path / "car", DEMO, days=9, now=NOW)


def listed(fleet: FleetFolder) -> set[int]:
    authority = read_certificate(fleet.ca_certificate)
    (found,) = read_revocation_lists(fleet.broker.revocation_list)
    assert found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert found.next_update_utc == authority.not_valid_after_utc
    return {each.serial_number for each in found}


def serial(record: VehicleRecord) -> int:
    return x509.load_pem_x509_certificate(record.certificate_pem.encode()).serial_number


def test_a_new_fleet_has_an_empty_list(fleet: FleetFolder) -> None:
    assert listed(fleet) == set()


def test_a_revoked_vehicle_is_listed_with_all_its_certificates_until_it_is_taken_back(
    fleet: FleetFolder, record: VehicleRecord
) -> None:
    newer = reissue(fleet, record.vehicle, days=20, now=NOW)
    assert revoke(fleet, record.vehicle, NOW).revoked
    assert listed(fleet) == {serial(record), serial(newer)}
    assert not reinstate(fleet, record.vehicle, NOW).revoked
    assert listed(fleet) == set()


def test_without_the_authoritys_key_the_vehicle_is_revoked_all_the_same_and_the_message_says_what_is_left(
    fleet: FleetFolder, record: VehicleRecord
) -> None:
    key = fleet.key("ca.key").rename(fleet.root / "safe.pem")
    with pytest.raises(Permanent, match=r"Receivers refuse .* the broker still lets it connect"):
        revoke(fleet, record.vehicle, NOW)
    assert Registry(fleet.vehicles).require(record.vehicle).revoked
    key.rename(fleet.key("ca.key"))
    revoke(fleet, record.vehicle, NOW)
    assert listed(fleet) == {serial(record)}


def test_the_old_head_unit_is_locked_out_and_the_new_one_keeps_the_pseudonym(
    fleet: FleetFolder, record: VehicleRecord, tmp_path: Path
) -> None:
    again = enrol_again(fleet, record.vehicle, tmp_path / "new", days=9, now=NOW)
    assert (again.vehicle, again.attributes) == (record.vehicle, record.attributes)
    assert listed(fleet) == {serial(record)}
    found = Registry(fleet.vehicles).find(record.vehicle)
    assert found is not None
    assert found[1] == (read_p256(tmp_path / "new" / "device.key.pem").public_key(),)
    revoke(fleet, record.vehicle, NOW)
    reinstate(fleet, record.vehicle, NOW)
    assert listed(fleet) == {serial(record)}  # the old head unit never comes back


def test_a_vehicle_whose_certificate_expired_gets_a_new_one_for_its_key(
    fleet: FleetFolder, record: VehicleRecord
) -> None:
    later = NOW + timedelta(days=730)
    newer = reissue(fleet, record.vehicle, days=100, now=later)
    certificate = newer.certificates[0]
    assert certificate.not_valid_after_utc > later
    assert certificate.public_key() == record.device_keys()[0]
    revoke(fleet, record.vehicle, later)
    with pytest.raises(Permanent, match="reinstate"):
        reissue(fleet, record.vehicle, days=100, now=later)


def test_the_commands_do_it(fleet: FleetFolder, record: VehicleRecord, tmp_path: Path) -> None:
    where = ["--fleet", str(fleet.root)]
    assert main(["revoke", record.vehicle, *where]) == 0
    assert listed(fleet) == {serial(record)}
    assert main(["keys", "reinstate", record.vehicle, *where]) == 0
    assert listed(fleet) == set()
    assert main(["keys", "reissue", record.vehicle, "--out", str(tmp_path / "device.crt.pem"), *where]) == 0
    assert read_certificate(tmp_path / "device.crt.pem").public_key() == record.device_keys()[0]
    assert main(["keys", "reenrol", record.vehicle, "--out", str(tmp_path / "new"), *where]) == 0
    assert (tmp_path / "new" / "identity.toml").exists()
    assert main(["keys", "reenrol", "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11", "--out", "x", *where]) == 1
