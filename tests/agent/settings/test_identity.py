"""A vehicle folder loads if its files fit together.  Every mix-up is one message that names the file."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.settings import identity
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.state.folder import FleetFolder
from tests.agent.car import Car

MODEL = Model("Aria", "One", "EU", 2026)


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def test_an_enrolled_folder_loads(car: Car) -> None:
    loaded = identity.load(car.identity)
    assert (loaded.attributes.brand, loaded.attributes.model_year) == ("Aria", 2026)
    assert loaded.certificate.public_key() == loaded.device_key.public_key()


@pytest.mark.parametrize("suite", ["X25519", "MLKEM768_X25519"])
def test_the_same_files_are_equal_and_another_enrolment_is_not(tmp_path: Path, suite: str) -> None:
    fleet = FleetFolder(tmp_path / "fleet")
    create_fleet(fleet, suite=suite, broker_names=(), now=datetime.now(UTC))  # type: ignore[arg-type]
    for name in ("one", "two"):
        enrol(fleet, tmp_path / name, MODEL, days=2, now=datetime.now(UTC))
    first = identity.load(tmp_path / "one")
    assert first == identity.load(tmp_path / "one")
    assert first != identity.load(tmp_path / "two")


def other_certificate(folder: Path, other: Path) -> None:
    shutil.copy(other / "device.crt.pem", folder)


def other_key(folder: Path, other: Path) -> None:
    shutil.copy(other / "device.key.pem", folder)


def other_root(folder: Path, _: Path) -> None:
    (folder / "root.json").write_text('{"signed": {"_type": "targets"}}')


def partition(folder: Path, _: Path) -> None:
    file = folder / "identity.toml"
    file.write_text(re.sub(r"partition = \d+", "partition = 16", file.read_text()))


def name(folder: Path, _: Path) -> None:
    file = folder / "identity.toml"
    file.write_text(re.sub(r'vehicle = ".*"', 'vehicle = "WVWZZZ1JZXW000001"', file.read_text()))


def missing(file: str) -> Callable[[Path, Path], None]:
    return lambda folder, _: (folder / file).unlink()


def garbage(file: str) -> Callable[[Path, Path], None]:
    return lambda folder, _: (folder / file).write_bytes(b"\xff garbage")


FILES = [
    identity.IDENTITY,
    identity.DEVICE_KEY,
    identity.DEVICE_CERTIFICATE,
    identity.AUTHORITY,
    identity.RECIPIENT,
    identity.ACKS,
    identity.ROOT,
]


@pytest.mark.parametrize(
    ("mistake", "file", "words"),
    [
        (other_certificate, identity.DEVICE_CERTIFICATE, "issued to"),
        (other_key, identity.DEVICE_KEY, "not the key of"),
        (other_root, identity.ROOT, "type 'targets'"),
        (partition, identity.IDENTITY, "partition 16"),
        (name, identity.IDENTITY, "not a pseudonym"),
        *((missing(file), file, "No such file") for file in FILES),
        *((garbage(file), file, "") for file in FILES),
    ],
)
def test_a_mix_up_names_the_file(car: Car, mistake: Callable[[Path, Path], None], file: str, words: str) -> None:
    other = car.folder / "other"
    enrol(car.fleet, other, MODEL, days=2, now=datetime.now(UTC))
    mistake(car.identity, other)
    with pytest.raises(Permanent) as caught:
        identity.load(car.identity)
    assert str(car.identity / file) in str(caught.value)
    assert words in str(caught.value)


def test_a_folder_within_the_folder_is_named_with_the_command_that_moves_the_files(tmp_path: Path, car: Car) -> None:
    nested = tmp_path / "etc" / "identity"
    nested.mkdir(parents=True)
    shutil.copytree(car.identity, nested / "car1")
    with pytest.raises(Permanent, match=f"mv {nested}/car1/\\* {nested}/"):
        identity.load(nested)


@pytest.mark.parametrize("unreadable", ["car1", ""])
def test_a_folder_that_this_user_may_not_look_into_has_a_remedy(
    tmp_path: Path, car: Car, unreadable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = tmp_path / "etc" / "identity"
    nested.mkdir(parents=True)
    shutil.copytree(car.identity, nested / "car1")
    stat, read = Path.stat, Path.read_bytes

    # Root may look into every folder, so the file system is asked in the place of a user who may not.
    def refuse(path: Path) -> None:
        if path.parent == nested / unreadable and path.name == identity.IDENTITY:
            raise PermissionError(13, "Permission denied", str(path))

    def stat_as_user(path: Path, **options: bool) -> object:
        refuse(path)
        return stat(path, **options)

    def read_as_user(path: Path) -> bytes:
        refuse(path)
        return read(path)

    monkeypatch.setattr(Path, "stat", stat_as_user)
    monkeypatch.setattr(Path, "read_bytes", read_as_user)
    remedy = f"mv {nested}/car1/\\* {nested}/" if unreadable else "systemd-tmpfiles --create headunit-agent.conf"
    with pytest.raises(Permanent, match=remedy):
        identity.load(nested)


def test_all_files_are_to_be_copied_again_and_not_the_folder(car: Car) -> None:
    (car.identity / "acks.pub.pem").unlink()
    with pytest.raises(Permanent) as caught:
        identity.load(car.identity)
    assert f"copy all files in the folder of `fleet enrol` again, to {car.identity}" in str(caught.value)
