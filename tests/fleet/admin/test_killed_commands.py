"""A command that changes keys may be killed before any of its changes to the disk: running it again completes it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from fleet.__main__ import main
from fleet.admin.enrol import enrol
from fleet.publishing.repository import newest_root, read_state
from fleet.publishing.root_ceremony import Ceremony
from fleet.state.authorities import issuing_authority
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_certificate, read_certificates, read_recipient, read_revocation_lists
from fleet.state.registry import Registry
from fleet.state.sealing_keys import SealingKeys
from tests.fleet.kill_points import killed_before_each_change
from tests.fleet.publishing.test_root_ceremony import follow
from tests.fleet.vehicles import DEMO, Vehicle

NOW = datetime.now(UTC)


def killed(fleet: FleetFolder, tmp_path: Path, *words: str) -> list[FleetFolder]:
    return [FleetFolder(path) for path in killed_before_each_change(fleet.root, tmp_path / "killed", *words)]


def again(fleet: FleetFolder, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert main([*words, "--fleet", str(fleet.root), "--json"]) == 0, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def published(fleet: FleetFolder, path: str) -> bytes:
    (file,) = fleet.targets.glob(f"{read_state(fleet.metadata).targets.targets[path].hashes['sha256']}.{path}")
    return file.read_bytes()


def test_a_ceremony_import(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paper, signatures = str(tmp_path / "paper"), [str(tmp_path / name) for name in ("root1", "root3")]
    again(fleet, capsys, "keys", "root", "start", "--replace", "targets", "--replace", "timestamp", "--out", paper)
    for out in signatures:
        again(fleet, capsys, "keys", "root", "sign", paper, "--key", str(fleet.key(Path(out).name)), "--out", out)
    before = follow(fleet, vehicle)
    wanted = Ceremony.from_json(Path(paper).read_bytes(), paper).following.signed
    copies = killed(fleet, tmp_path, "keys", "root", "import", paper, *signatures)
    assert len(copies) > 10
    for copy in copies:
        again(copy, capsys, "keys", "root", "import", paper, *signatures)
        followed = follow(copy, vehicle, before)
        assert followed.versions.root == newest_root(copy.metadata) == wanted.version
        assert not list(copy.keys.glob("*.next-*"))


def test_a_rotation_of_the_sealing_key(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_recipient(fleet).key_id
    copies = killed(fleet, tmp_path, "keys", "rotate", "sealing")
    assert len(copies) > 10
    for copy in copies:
        # Whatever vehicles have heard so far can be opened, and so can what they sealed before.
        told = read_state(copy.metadata).targets.targets
        keys = SealingKeys(copy)
        assert keys.find(before).key_id == before
        if "recipient.json" in told:
            keys.find(json.loads(published(copy, "recipient.json"))["key_id"])
        key_id = again(copy, capsys, "keys", "rotate", "sealing")["key_id"]
        assert json.loads(published(copy, "recipient.json"))["key_id"] == key_id == read_recipient(copy).key_id
        assert follow(copy, vehicle).versions.targets > 1


@pytest.mark.parametrize("step", ["announced", "switched", "finished"])
def test_each_step_of_a_rotation_of_the_authority(
    fleet: FleetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    steps = ["announced", "switched", "finished"]
    for earlier in steps[: steps.index(step)]:
        assert again(fleet, capsys, "keys", "rotate", "authority")["step"] == earlier
    first = read_certificate(fleet.ca_certificate)
    copies = killed(fleet, tmp_path, "keys", "rotate", "authority")
    assert len(copies) > 10
    *unfinished, finished = copies
    for copy in unfinished:
        done = releases(copy) == releases(finished)
        taken = step if done else again(copy, capsys, "keys", "rotate", "authority")["step"]
        assert taken == step, f"killed before change {copy.root.name}"
        authority = issuing_authority(copy)  # finds the key of the certificate
        accepted = read_certificates(copy.authorities)
        assert accepted[0] == authority.certificate
        assert len(accepted) == (1 if step == "finished" else 2)
        assert {each.issuer for each in read_revocation_lists(copy.revocation_list)} == {
            each.subject for each in accepted
        }
        assert published(copy, "authorities.pem") == copy.authorities.read_bytes()
        assert (authority.certificate == first) is (step != "switched")
        enrol(copy, tmp_path / f"car-{copy.root.name}", DEMO, days=9, now=NOW)
        for later in steps[steps.index(step) + 1 :]:
            assert again(copy, capsys, "keys", "rotate", "authority", "--leave-behind")["step"] == later
        assert read_certificate(copy.broker_certificate).issuer == issuing_authority(copy).certificate.subject
        assert not list(copy.keys.glob("ca-*"))


def releases(fleet: FleetFolder) -> int:
    """Return how many releases the fleet has published."""
    return read_state(fleet.metadata).versions.targets


def test_the_renewal_of_the_receivers_certificate_never_uses_what_the_broker_cannot_know(
    fleet: FleetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = read_certificate(fleet.receiver_certificate)
    for copy in killed(fleet, tmp_path / "1", "keys", "renew", "receiver")[:-1]:
        listed = installed(copy)
        if not again(copy, capsys, "keys", "renew", "receiver")["in_use"]:
            listed = installed(copy)  # only now does the command ask for the list to be installed
        assert read_certificate(copy.receiver_certificate) in listed
    again(fleet, capsys, "keys", "renew", "receiver")
    for copy in killed(fleet, tmp_path / "2", "keys", "renew", "receiver")[:-1]:
        assert again(copy, capsys, "keys", "renew", "receiver")["in_use"]
        assert read_certificate(copy.receiver_certificate) != old
        assert old in installed(copy)  # receivers on other machines may still use it


def installed(fleet: FleetFolder) -> list[x509.Certificate]:
    return read_certificates(fleet.accepted_receivers)


def test_a_revocation_and_taking_back(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in killed(fleet, tmp_path / "1", "revoke", vehicle.name):
        assert main(["revoke", vehicle.name, "--fleet", str(copy.root)]) == 0
        assert Registry(copy.vehicles).require(vehicle.name).revoked
        assert serials(copy) == {Registry(copy.vehicles).require(vehicle.name).certificates[0].serial_number}
    assert main(["revoke", vehicle.name, "--fleet", str(fleet.root)]) == 0
    for copy in killed(fleet, tmp_path / "2", "keys", "reinstate", vehicle.name):
        again(copy, capsys, "keys", "reinstate", vehicle.name)
        assert not Registry(copy.vehicles).require(vehicle.name).revoked
        assert serials(copy) == set()


def serials(fleet: FleetFolder) -> set[int]:
    return {each.serial_number for one in read_revocation_lists(fleet.revocation_list) for each in one}
