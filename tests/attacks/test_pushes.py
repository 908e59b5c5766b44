"""Each attack on pushes is refused by a running agent with a receipt of its own, and changes nothing."""

import os
from collections.abc import Iterator

import pytest

from agent.pushes.release import Reason
from fleet.publishing import repository
from tests.agent.pushes.world import NOW
from tests.attack_report import PUSHES, RecordAttack
from tests.attacks.bombs import BOMBS, Bomb
from tests.attacks.forgeries import FORGERIES, Forgery, Scene
from tests.attacks.victim import Victim, attacked

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ALL = "ATTACK_SECONDS" in os.environ
"""`make attacks` plays all attacks.  `make test` plays one bundle of some attacks, one for each way of refusing."""
SHORT = ("a pushed document is changed", "a push goes back in version", "another fleet pushes", "a push is cut short")


SHORT_BOMBS = ("signed toggles double their references", "signed settings name another broker")
COMPILE_S = 300.0
"""Where memory is slow, as under User Mode Linux, the compiler of databases meets its limit after minutes."""


def played(attacks: tuple[Forgery | Bomb, ...], short: tuple[str, ...]) -> list[object]:
    return [
        pytest.param(
            each, id=each.name, marks=pytest.mark.attack(PUSHES, each.name, how=each.how, receipt="push_refused")
        )
        for each in attacks
        if ALL or each.name in short
    ]


def attack_with(forgery: Forgery, victim: Victim, thief: Scene, record: RecordAttack) -> None:
    """Send the bundles of `forgery`, and require that each is refused for one of the forgery's reasons."""
    reasons = []
    for number, bundle in enumerate(forgery.make(thief)):
        if number == 0 or ALL:
            receipt = victim.refuse(bundle)
            reasons.append(receipt["reason"])
            assert receipt["version"] == 0
    record(receipt=f"push_refused: {', '.join(sorted(set(reasons)))}", figure={"bundles": len(reasons)})
    assert {Reason(reason) for reason in reasons} <= set(forgery.reasons)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Victim, Scene]]:
    with attacked(tmp_path_factory.mktemp("pushes")) as victim_and_scene:
        yield victim_and_scene


@pytest.mark.parametrize("forgery", played(FORGERIES, SHORT))
def test_a_bundle_that_is_not_trusted_is_refused_with_a_receipt_and_changes_nothing(
    scene: tuple[Victim, Scene], forgery: Forgery, attack: RecordAttack
) -> None:
    attack_with(forgery, *scene, attack)


@pytest.mark.parametrize("bomb", played(BOMBS, SHORT_BOMBS))
def test_a_signed_document_that_would_harm_is_refused_with_a_receipt_and_the_next_release_is_taken(
    scene: tuple[Victim, Scene], bomb: Bomb, attack: RecordAttack
) -> None:
    victim, thief = scene
    fleet = thief.fleet
    before = repository.read_state(fleet.folder.metadata).targets.targets
    fleet.sign_as_is(bomb.path, bomb.content)
    try:
        receipt = victim.refuse(victim.genuine(), genuine_keys=True, patience_s=COMPILE_S)
    finally:
        state = repository.read_state(fleet.folder.metadata)
        repository.write_version(fleet.folder, state.versions, before, {}, bins=None, now=NOW, expiry_days=90)
    victim.accept()
    attack(receipt=f"push_refused: {receipt['reason']}", figure={"detail": receipt["detail"][:120]})
    assert receipt["reason"] == Reason.INVALID
    assert bomb.path in receipt["detail"]
