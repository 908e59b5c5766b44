"""A new root is signed offline, replaces lost and stolen keys, and vehicles follow it."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.metadata import Metadata

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import SyncRequest, Versions
from agent.pushes.release import Question, Reason, Refused
from agent.pushes.trust import Trusted, verify
from fleet.__main__ import main
from fleet.publishing import repository
from fleet.publishing.freshness import keep_fresh
from fleet.publishing.publish import Publication, publish
from fleet.publishing.root_ceremony import Ceremony, import_signatures, sign, start
from fleet.publishing.root_keys import make_root_key
from fleet.publishing.sync import Bundles
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_ed25519, read_recipient, write_public
from tests.fleet.vehicles import Vehicle

NOW = datetime.now(UTC).replace(microsecond=0)


def follow(fleet: FleetFolder, vehicle: Vehicle, before: Trusted | None = None) -> Trusted:
    """Verify what the fleet sends to a vehicle that holds the result `before`, as the vehicle does."""
    held = Versions() if before is None else before.versions
    question = Question(
        bundle=Bundles(fleet).answer(SyncRequest(vehicle.name, held)),
        trusted_root=(vehicle.folder / "root.json").read_bytes(),
        metadata={} if before is None else before.metadata,
        contents=(),
        floor=held,
        settled=(),
        now_s=int(NOW.timestamp()),
        vehicle=Attributes(vehicle.name, "Demo", "Hatch", "EU", 2026),
    )
    return verify(question)


def hold(fleet: FleetFolder, ceremony: Ceremony, *names: str) -> Versions:
    return import_signatures(fleet, ceremony, [sign(ceremony, fleet.key(name)) for name in names], now=NOW)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_stolen_online_key_is_replaced_and_signs_nothing_any_more(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, role: str
) -> None:
    before = follow(fleet, vehicle)
    thief = FleetFolder(tmp_path / "thief")
    shutil.copytree(fleet.root, thief.root)
    hold(fleet, start(fleet, replace=[role], now=NOW), "root1", "root3")
    assert fleet.key(role).read_bytes() != thief.key(role).read_bytes()
    followed = follow(fleet, vehicle, before)
    assert followed.versions.root == 2
    # The thief takes over what was published meanwhile, except the root that does not name the stolen key.
    shutil.copytree(fleet.metadata, thief.metadata, dirs_exist_ok=True, ignore=shutil.ignore_patterns("2.root.json"))
    versions = repository.read_state(thief.metadata).versions
    repository.write_version(thief, versions, {}, {}, bins=None, now=NOW, expiry_days=9)
    with pytest.raises(Refused) as refused:
        follow(thief, vehicle, followed)
    assert refused.value.reason is Reason.FOREIGN_KEY


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_publisher_with_an_old_key_signs_nothing_that_vehicles_would_refuse(
    fleet: FleetFolder, tmp_path: Path, role: str
) -> None:
    document = tmp_path / "recipient.json"
    document.write_bytes(read_recipient(fleet).public.to_json())
    old = fleet.key(role).read_bytes()
    hold(fleet, start(fleet, replace=[role], now=NOW), "root1", "root3")
    files = {path: path.read_bytes() for path in fleet.metadata.iterdir()}
    fleet.key(role).write_bytes(old)  # restored from a backup of before the ceremony
    refused = rf"{role}.pem is not the key of {role} that root 2 names"
    with pytest.raises(Permanent, match=refused):
        publish(fleet, Publication(files=[("recipient", document)]), now=NOW)
    if role == "timestamp":
        with pytest.raises(Permanent, match=refused):
            keep_fresh(fleet, NOW + timedelta(days=80))
    assert {path: path.read_bytes() for path in fleet.metadata.iterdir()} == files


def test_one_root_key_cannot_take_two_places(fleet: FleetFolder, tmp_path: Path) -> None:
    """Two places of one key would count as one signature, so the loss of another key would end the fleet."""
    public = make_root_key(tmp_path / "new.pem")
    with pytest.raises(Permanent, match="is the key of root1 already"):
        start(fleet, root_keys={"root1": public, "root2": public}, now=NOW)
    write_public(tmp_path / "own.pub.pem", read_ed25519(fleet.key("root3")).public_key())
    with pytest.raises(Permanent, match="is the key of root3 already"):
        start(fleet, root_keys={"root2": tmp_path / "own.pub.pem"}, now=NOW)
    write_public(tmp_path / "online.pub.pem", read_ed25519(fleet.key("targets")).public_key())
    with pytest.raises(Permanent, match="is the key of targets already"):
        start(fleet, root_keys={"root2": tmp_path / "online.pub.pem"}, now=NOW)


def test_a_new_root_key_must_be_one_that_vehicles_verify(fleet: FleetFolder, tmp_path: Path) -> None:
    file = tmp_path / "p384.pub.pem"
    write_public(file, ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(Permanent, match="neither an Ed25519 key nor an EC P-256 key"):
        start(fleet, root_keys={"root2": file}, now=NOW)
    with pytest.raises(Permanent, match="not a public key in PEM"):
        start(fleet, root_keys={"root2": fleet.key("root1")}, now=NOW)  # the private half


def test_of_two_ceremonies_at_once_each_has_its_own_key_and_the_first_import_wins(
    fleet: FleetFolder, vehicle: Vehicle
) -> None:
    first, second = (start(fleet, replace=["targets"], now=NOW) for _ in range(2))
    assert first.following.signed.roles["targets"].keyids != second.following.signed.roles["targets"].keyids
    hold(fleet, second, "root1", "root2")
    with pytest.raises(Permanent, match=r"Another root 2 is published already. Start a new ceremony"):
        hold(fleet, first, "root1", "root2")
    assert follow(fleet, vehicle).versions.root == 2
    assert list(fleet.keys.glob("*.next-*")) == []


def test_a_lost_root_key_is_replaced_with_the_two_that_are_left(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    lost = fleet.key("root2")
    lost.unlink()
    public = make_root_key(tmp_path / "new.pem")
    hold(fleet, start(fleet, root_keys={"root2": public}, now=NOW), "root1", "root3")
    (tmp_path / "new.pem").rename(lost)
    hold(fleet, start(fleet, now=NOW), "root2", "root1")  # the new key signs the root after
    assert follow(fleet, vehicle).versions.root == 3


def test_a_vehicle_that_was_off_follows_five_rotations_of_all_root_keys_at_once(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    before = follow(fleet, vehicle)
    for turn in range(5):
        fresh = {name: make_root_key(tmp_path / f"{name}-{turn}.pem") for name in ("root1", "root2", "root3")}
        ceremony = start(fleet, replace=["timestamp"], root_keys=fresh, now=NOW)
        old = [sign(ceremony, fleet.key(name)) for name in ("root1", "root2")]
        new = [sign(ceremony, tmp_path / f"{name}-{turn}.pem") for name in ("root2", "root3")]
        import_signatures(fleet, ceremony, [*old, *new], now=NOW)
        for name in fresh:
            (tmp_path / f"{name}-{turn}.pem").rename(fleet.key(name))
    assert follow(fleet, vehicle, before).versions.root == 6


@pytest.mark.parametrize("names", [(), ("root1",), ("targets",)])
def test_too_few_signatures_publish_nothing(fleet: FleetFolder, names: tuple[str, ...]) -> None:
    ceremony = start(fleet, replace=["targets"], now=NOW)
    with pytest.raises(Permanent, match=r"lacks (1 signature|2 signatures) by|not a root key"):
        hold(fleet, ceremony, *names)
    assert repository.newest_root(fleet.metadata) == 1
    assert repository.read_state(fleet.metadata).versions == Versions(1, 1, 1, 1)


def test_a_root_that_was_altered_after_signing_is_refused(fleet: FleetFolder) -> None:
    ceremony = start(fleet, replace=["targets"], now=NOW)
    signatures = [sign(ceremony, fleet.key(name)) for name in ("root1", "root2")]
    ceremony.following.signed.expires += timedelta(days=1)
    with pytest.raises(Permanent, match="is for another ceremony, or is damaged"):
        import_signatures(fleet, ceremony, signatures, now=NOW)


def test_an_interrupted_import_is_completed_by_running_it_again(fleet: FleetFolder, vehicle: Vehicle) -> None:
    ceremony = start(fleet, replace=["snapshot", "targets"], now=NOW)
    signatures = [sign(ceremony, fleet.key(name)) for name in ("root1", "root2")]
    signed = Metadata(ceremony.following.signed, {each.keyid: each for each in signatures})
    (fleet.metadata / "2.root.json").write_bytes(signed.to_bytes())  # the power fails here
    import_signatures(fleet, ceremony, signatures, now=NOW)
    assert follow(fleet, vehicle).versions.root == 2
    with pytest.raises(Permanent, match="Start a new ceremony"):
        hold(fleet, another(ceremony), "root1", "root2")


def another(ceremony: Ceremony) -> Ceremony:
    """Return another ceremony for the same version of the root."""
    copy = Ceremony.from_json(ceremony.to_json(), "copy")
    copy.following.signed.expires += timedelta(days=1)
    return copy


def test_the_ceremony_says_what_it_changes_and_its_file_keeps_it(fleet: FleetFolder) -> None:
    ceremony = start(fleet, replace=["targets"], now=NOW)
    first, *others = ceremony.changes()
    assert first.startswith("root 1 becomes root 2, valid until 2041")
    assert [(line.split(":")[0], line.split(" is ")[1]) for line in others] == [
        ("targets", "removed"),
        ("targets", "added"),
    ]
    assert Ceremony.from_json(ceremony.to_json(), "x").payload == ceremony.payload
    with pytest.raises(Permanent, match="not a ceremony"):
        Ceremony.from_json(b"[]", "x")


def test_the_commands_hold_a_ceremony_and_signing_needs_no_fleet(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safe, here = tmp_path / "safe", ["--fleet", str(fleet.root), "--json"]
    safe.mkdir()
    for name in ("root1", "root2", "root3"):
        fleet.key(name).rename(safe / f"{name}.pem")
    paper = str(tmp_path / "ceremony.json")
    assert main(["keys", "root", "start", "--replace", "targets", "--out", paper, *here]) == 0
    signed = [str(tmp_path / f"{name}.sig") for name in ("root1", "root2")]
    for name, out in zip(("root1", "root2"), signed, strict=True):
        key = str(safe / f"{name}.pem")
        assert main(["keys", "root", "sign", paper, "--key", key, "--out", out, "--fleet", "/none", "--json"]) == 0
    assert main(["keys", "root", "import", paper, *signed, *here]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"root": 2, "targets": 2}
    assert follow(fleet, vehicle).versions.root == 2
    assert main(["keys", "root", "import", paper, *here]) == 1
