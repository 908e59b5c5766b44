"""Pushes to a running agent whose clock is wrong, whose files a power cut has emptied, or that was away for a year."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tuf.api.metadata import Metadata

from agent.pushes.store import Store
from fleet.state import keys
from fleet.state.folder import ROOT_KEYS
from lab.machine import ClockedMachine
from tests.agent.pushes.world import NOW, Fleet, campaign, toggles
from tests.attack_report import PUSHES, RecordAttack
from tests.attacks.forgeries import Scene, frozen
from tests.attacks.victim import FLAG, Victim

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

DAY_NS: Final = 86_400 * 10**9
TO_1970_NS: Final = -int(NOW.timestamp()) * 10**9
TO_2099_NS: Final = (2099 - NOW.year) * 365 * DAY_NS


@pytest.fixture
def machine(tmp_path: Path) -> ClockedMachine:
    return ClockedMachine(tmp_path / "clock")


@pytest.fixture
def victim(tmp_path: Path, machine: ClockedMachine) -> Iterator[Victim]:
    victim = Victim.make(tmp_path, machine)
    with victim.broker:
        yield victim


@pytest.mark.attack(
    PUSHES,
    "the clock of a vehicle is set to 2099",
    how="A genuine push comes while the clock shows 2099, and again when it is right.",
)
def test_a_clock_at_2099_refuses_genuine_pushes_only_as_long_as_it_is_wrong(
    victim: Victim, machine: ClockedMachine, attack: RecordAttack
) -> None:
    with victim.receiving(), victim.running() as agent:
        victim.fleet.publish(toggles())
        victim.accept()
        victim.fleet.publish(toggles(False))
        machine.move_clock(TO_2099_NS)
        before, receipts = victim.state(), len(victim.receipts())
        victim.offer(victim.genuine())
        agent.until(lambda: len(victim.receipts()) == receipts + 1, "the receipt of the refusal is in the lake", 100.0)
        receipt = victim.receipts()[-1]
        attack(receipt=f"push_refused: {receipt['reason']}", state_changed=victim.state() != before)
        assert receipt["reason"] == "expired"
        assert victim.state() == before
        machine.move_clock(0)
        victim.accept()
        assert agent.toggle(FLAG) is False


@pytest.mark.attack(
    PUSHES,
    "the clock of a vehicle is set to 1970",
    how="A push that expired months ago comes while the clock shows 1970, after which it has not expired.",
)
def test_a_clock_at_1970_makes_no_expired_push_valid(
    victim: Victim, machine: ClockedMachine, tmp_path: Path, attack: RecordAttack
) -> None:
    machine.move_clock(TO_1970_NS)
    with victim.receiving(), victim.running():
        victim.fleet.publish(toggles())
        victim.accept()
        scene = Scene(victim.fleet, victim.vehicle, b"", victim.fleet.signer("timestamp"), tmp_path / "attacker")
        (bundle,) = frozen(scene)
        receipt = victim.refuse(bundle)
        attack(receipt=f"push_refused: {receipt['reason']}")
        assert receipt["reason"] == "expired"


@pytest.mark.attack(
    PUSHES,
    "an older push comes after a power cut has emptied the files of pushes",
    how="Both copies of the record of pushes are emptied, and an older genuine bundle comes.",
)
def test_an_older_push_is_refused_although_the_files_of_pushes_are_emptied(
    victim: Victim, attack: RecordAttack
) -> None:
    with victim.receiving(), victim.running():
        victim.fleet.publish(toggles(False))
        victim.accept()
        older = victim.genuine()
        victim.fleet.publish(toggles())
        victim.accept()
    copies = list((victim.car.state / "pushes").glob("state.?"))
    assert len(copies) == 2
    for copy in copies:
        copy.write_bytes(b"")
    # Without a receiver, nothing tells the vehicle of the newest release before the older one comes.
    with victim.running() as agent:
        assert victim.pushes()["version"] == 0
        victim.offer(older)
        agent.until_status(lambda status: status["pushes"]["refused"], "the older push is refused", 100.0)
        assert victim.pushes()["version"] == 0
        with victim.receiving():
            victim.offer(victim.genuine())
            agent.until_status(lambda status: status["pushes"]["version"] == 3, "the newest release returns", 100.0)
            agent.until(victim.receipts, "the receipt is in the lake", 100.0)
        assert agent.toggle(FLAG) is True
    (receipt,) = victim.receipts()
    attack(receipt=f"push_refused: {receipt['reason']}")
    assert receipt["reason"] == "rollback"


def replace_root_key(fleet: Fleet, name: str, signed_by: tuple[str, ...]) -> None:
    """Write the next root, in which a new root key takes the place of the root key `name`."""
    version = max(int(path.name.split(".")[0]) for path in fleet.folder.metadata.glob("*.root.json"))
    metadata: Metadata[Any] = Metadata.from_file(str(fleet.folder.metadata / f"{version}.root.json"))
    root = metadata.signed
    root.version += 1
    root.revoke_key(fleet.signer(name).public_key.keyid, "root")
    keys.create_ed25519(fleet.folder.key(name))
    root.add_key(fleet.signer(name).public_key, "root")
    metadata.signatures.clear()
    for each in signed_by:
        metadata.sign(fleet.signer(each), append=True)
    metadata.to_file(str(fleet.folder.metadata / f"{root.version}.root.json"))


@pytest.mark.attack(
    PUSHES,
    "all keys are replaced while a vehicle is off for a year",
    how="Five roots replace all root keys, timestamp and targets; the vehicle must follow them (no attack).",
    receipt="push_applied",
)
def test_a_vehicle_that_was_off_for_a_year_follows_five_roots(
    victim: Victim, machine: ClockedMachine, attack: RecordAttack
) -> None:
    fleet = victim.fleet
    with victim.receiving():
        with victim.running():
            fleet.publish(toggles())
            victim.accept()
        for name in ROOT_KEYS:
            replace_root_key(fleet, name, tuple(other for other in ROOT_KEYS if other != name))
        fleet.rotate_root(("root1", "root3"), replace_key="timestamp")
        fleet.rotate_root(("root2", "root3"), replace_key="targets")
        fleet.publish(toggles(False), campaign("after"), now=NOW + timedelta(days=365))
        machine.move_clock(365 * DAY_NS)
        with victim.running() as agent:
            status = agent.until_status(lambda status: status["pushes"]["version"] == 3, "the new release", 100.0)
            assert status["pushes"]["refused"] == {}
            assert agent.toggle(FLAG) is False
    floor = Store.open(victim.car.state / "pushes").record.floor
    attack(figure={"roots_followed": floor.root - 1, "bundle_bytes": len(victim.genuine())})
    assert floor.root == 6
