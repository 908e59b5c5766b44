"""Attacks on the documents of single vehicles: a running agent refuses each forged bin and list with a receipt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.pushes.test_own_documents import give
from tests.agent.pushes.world import campaign, toggles
from tests.attack_report import RecordAttack
from tests.attacks.bin_forgeries import BIN_FORGERIES
from tests.attacks.forgeries import Forgery, Scene
from tests.attacks.test_pushes import attack_with, played
from tests.attacks.victim import Victim

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Victim, Scene]]:
    """Run a vehicle that has applied two versions of a document of its own."""
    folder: Path = tmp_path_factory.mktemp("bins")
    victim = Victim.make(folder)
    fleet = victim.fleet
    revoked = fleet.signer("timestamp")
    with victim.broker, victim.receiving(), victim.running():
        fleet.publish(toggles(), campaign("drive"))
        for name in ("first", "second"):
            give(fleet, victim.vehicle.vehicle, campaign(name))
            victim.accept()
        (folder / "attacker").mkdir()
        yield victim, Scene(fleet, victim.vehicle, b"", revoked, folder / "attacker")


@pytest.mark.parametrize("forgery", played(BIN_FORGERIES, ("a bin of another vehicle",)))
def test_a_forged_bin_or_list_is_refused_with_a_receipt_and_changes_nothing(
    scene: tuple[Victim, Scene], forgery: Forgery, attack: RecordAttack
) -> None:
    attack_with(forgery, *scene, attack)
