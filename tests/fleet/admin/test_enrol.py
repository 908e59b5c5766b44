"""Test how a fleet is created and a vehicle is enrolled, and what is refused."""

import json
import ssl
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.topics import is_vehicle, partition_of
from agent.formats.up.recipient import RecipientPublicKey
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, read_p256, read_recipient
from fleet.state.registry import Registry
from tests.fleet.vehicles import DEMO, make_fleet

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> FleetFolder:
    return make_fleet(tmp_path_factory.mktemp("fleet") / "state")


def test_private_files_are_the_owners_alone(fleet: FleetFolder) -> None:
    private = [*fleet.keys.iterdir(), fleet.broker.key, fleet.receiver_key]
    assert {path.name for path in fleet.keys.iterdir()} == {
        *(f"{name}.pem" for name in ("root1", "root2", "root3", "targets", "snapshot", "timestamp", "acks", "ca.key")),
        "hpke.json",
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)
    assert fleet.root.stat().st_mode & 0o777 == fleet.keys.stat().st_mode & 0o777 == 0o700


def test_an_existing_fleet_is_never_overwritten(fleet: FleetFolder) -> None:
    before = fleet.hpke_private.read_bytes()
    with pytest.raises(Permanent, match="holds a fleet already"):
        create_fleet(fleet, suite="X25519", broker_names=(), now=NOW)
    assert fleet.hpke_private.read_bytes() == before


def test_the_default_suite_is_post_quantum_where_asked_for(tmp_path: Path) -> None:
    fleet = FleetFolder(tmp_path / "state")
    create_fleet(fleet, suite="MLKEM768_X25519", broker_names=("mqtt.example.com", "10.0.0.1"), now=NOW)
    assert read_recipient(fleet).suite == "MLKEM768_X25519"
    certificate = x509.load_pem_x509_certificate(fleet.broker.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "mqtt.example.com"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.0.0.1"]


def test_the_vehicle_folder_holds_all_and_only_what_the_vehicle_needs(fleet: FleetFolder, tmp_path: Path) -> None:
    record = enrol(fleet, tmp_path / "car", Model("Škoda", 'Q"7\\', "EU", 2026), days=10, now=NOW)
    car = tmp_path / "car"
    assert {path.name for path in car.iterdir()} == {
        "identity.toml",
        "device.key.pem",
        "device.crt.pem",
        "ca.crt.pem",
        "hpke.pub.json",
        "acks.pub.pem",
        "root.json",
    }
    assert tomllib.loads((car / "identity.toml").read_text()) == {
        "vehicle": record.vehicle,
        "brand": "Škoda",
        "model": 'Q"7\\',
        "market": "EU",
        "model_year": 2026,
        "partition": partition_of(record.vehicle),
        "fleet": "state",
    }
    assert is_vehicle(record.vehicle)
    certificate = x509.load_pem_x509_certificate((car / "device.crt.pem").read_bytes())
    assert certificate.subject.rfc4514_string() == f"CN={record.vehicle}"
    assert certificate.not_valid_after_utc == NOW.replace(microsecond=0) + timedelta(days=10)
    assert certificate.public_key() == read_p256(car / "device.key.pem").public_key()
    assert (
        RecipientPublicKey.from_json((car / "hpke.pub.json").read_bytes(), "x").key_id == read_recipient(fleet).key_id
    )
    acks = serialization.load_pem_public_key((car / "acks.pub.pem").read_bytes())
    assert acks == read_ed25519(fleet.key("acks")).public_key()
    assert json.loads((car / "root.json").read_bytes())["signed"]["version"] == 1
    context = ssl.create_default_context(cafile=car / "ca.crt.pem")
    context.load_cert_chain(car / "device.crt.pem", car / "device.key.pem")
    assert (car / "device.key.pem").stat().st_mode & 0o777 == 0o600


def test_with_a_signing_request_the_private_key_stays_in_the_device(fleet: FleetFolder, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    (tmp_path / "device.csr").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    record = enrol(fleet, tmp_path / "car", DEMO, days=10, now=NOW, csr=tmp_path / "device.csr")
    assert not (tmp_path / "car" / "device.key.pem").exists()
    found = Registry(fleet.vehicles).find(record.vehicle)
    assert found is not None
    assert found[1] == (key.public_key(),)


def test_a_folder_in_use_is_left_alone(fleet: FleetFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(Permanent, match="not an empty folder"):
        enrol(fleet, tmp_path, DEMO, days=1, now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_without_a_fleet_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="fleet init"):
        enrol(FleetFolder(tmp_path / "none"), tmp_path / "car", DEMO, days=1, now=NOW)


def test_text_that_would_break_the_identity_file_is_refused(fleet: FleetFolder, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="brand"):
        enrol(fleet, tmp_path / "car", Model("a\nb", "x", "EU", 2026), days=1, now=NOW)


def test_a_running_registry_sees_enrolment_revocation_and_removal(fleet: FleetFolder, tmp_path: Path) -> None:
    running = Registry(fleet.vehicles)
    record = enrol(fleet, tmp_path / "car", DEMO, days=1, now=NOW)
    found = running.find(record.vehicle)
    assert found is not None
    assert not found[0].revoked
    Registry(fleet.vehicles).revoke(record.vehicle)
    found = running.find(record.vehicle)
    assert found is not None
    assert found[0].revoked
    (fleet.vehicles / f"{record.vehicle}.json").unlink()
    assert running.find(record.vehicle) is None


@pytest.mark.parametrize("name", ["../keys/hpke", "", "x" * 300, "\0"])
def test_a_name_from_the_network_never_becomes_a_path(fleet: FleetFolder, name: str) -> None:
    assert Registry(fleet.vehicles).find(name) is None


def test_a_damaged_record_names_the_file(fleet: FleetFolder, tmp_path: Path) -> None:
    record = enrol(fleet, tmp_path / "car", DEMO, days=1, now=NOW)
    path = fleet.vehicles / f"{record.vehicle}.json"
    path.write_text('{"vehicle": 1}')
    with pytest.raises(Permanent, match=record.vehicle):
        Registry(fleet.vehicles).find(record.vehicle)
    path.unlink()


def test_missing_and_foreign_keys_name_the_file(fleet: FleetFolder, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"nothing\.pem"):
        read_p256(tmp_path / "nothing.pem")
    with pytest.raises(Permanent, match="not an EC P-256"):
        read_p256(fleet.key("acks"))
    with pytest.raises(Permanent, match="not an Ed25519"):
        read_ed25519(fleet.key("ca.key"))
    (tmp_path / "rubbish.pem").write_text("rubbish")
    with pytest.raises(Permanent, match="not an unencrypted private key"):
        read_ed25519(tmp_path / "rubbish.pem")
