"""The vehicle's real verifier refuses each attack of the demonstration, for the reason that names the attack."""

import asyncio
from pathlib import Path

import msgspec

from agent.formats.down.bundle import parse_bundle
from agent.pushes.examine import examine
from agent.pushes.release import Reason
from lab.demo.attacks import NAMES, attacks, everything
from lab.demo.documents import toggles
from tests.agent.pushes.world import VEHICLE, Fleet, question


def published(fleet: Fleet, greeting: str) -> bytes:
    fleet.publish(msgspec.json.encode(toggles(greeting)))
    return everything(fleet.folder, VEHICLE.vehicle)


def test_each_attack_fails_the_verification_that_it_is_meant_to_fail(tmp_path: Path) -> None:
    ours, foreign = Fleet(tmp_path / "ours"), Fleet(tmp_path / "foreign")
    oldest = published(ours, "hello from the fleet")
    newest = published(ours, "hello again from the fleet")
    for greeting in ("one of the fleet", "two of the fleet", "three of the fleet"):
        strange = published(foreign, greeting)
    good = asyncio.run(examine(question(ours, newest)))
    assert good.reason is None
    for name, bundle in attacks(newest, oldest, strange).items():
        verdict = asyncio.run(examine(question(ours, bundle, floor=good.versions, metadata=good.metadata)))
        assert verdict.release is None
        assert (
            verdict.reason
            is {
                "tampered": Reason.TAMPERED,
                "rollback": Reason.ROLLBACK,
                "foreign_key": Reason.FOREIGN_KEY,
            }[name]
        ), name
    assert tuple(attacks(newest, oldest, strange)) == NAMES


def test_a_tampered_bundle_is_whole(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet")
    genuine = published(fleet, "hello from the fleet")
    before = parse_bundle(genuine)
    after = parse_bundle(attacks(genuine, genuine, genuine)["tampered"])
    assert before.keys() == after.keys()
    (name,) = [name for name in before if before[name] != after[name]]
    assert len(before[name]) == len(after[name])
