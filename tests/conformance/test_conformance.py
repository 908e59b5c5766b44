"""The vehicle's client of pushes plays every case of the public TUF conformance suite as it should.

Here the verifier runs in the process of the test; `make conformance` starts it as a vehicle does.
"""

import json
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError

from agent.formats.down.bundle import Versions, parse_bundle
from agent.pushes.release import Question, Verdict
from agent.pushes.verifier import judge
from tests.conformance.case import Case, Deviation, Intent, World
from tests.conformance.repository import ONLINE
from tests.conformance.table import CASES


async def examine(question: Question) -> Verdict:
    return judge(question)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_vehicle_meets_the_case_or_differs_by_intent(case: Case, tmp_path: Path) -> None:
    row = case.run(tmp_path, examine)
    wanted = "as expected" if case.intent is None else "not played" if case.play is None else "differs"
    assert row.result == wanted, row.deviations


async def believe(question: Question) -> Verdict:
    """Take the newest metadata of a bundle, without looking at a signature, a version or a date."""
    newest: dict[str, tuple[int, bytes]] = {}
    for name, content in parse_bundle(question.bundle).items():
        if name.startswith("metadata/"):
            signed = json.loads(content)["signed"]
            newest[signed["_type"]] = max(newest.get(signed["_type"], (0, b"")), (signed["version"], content))
    versions = {role: version for role, (version, _) in newest.items()}
    metadata = {f"{role}.json": content for role, (_, content) in newest.items()}
    return Verdict(versions=Versions(**versions), metadata=metadata)


def test_a_client_that_believes_everything_fails_the_cases_of_attacks(tmp_path: Path) -> None:
    played = [case for case in CASES if case.play]
    failed = [case.name for number, case in enumerate(played) if fails(case, tmp_path / str(number))]
    assert len(failed) > 30
    for attack in ("unsigned_metadata[targets]", "timestamp_version_rollback", "timestamp_expired", "duplicate_keys"):
        assert any(attack in name for name in failed), attack


def fails(case: Case, folder: Path) -> bool:
    try:
        return case.run(folder, believe).result == "fails"
    except (AssertionError, KeyError, RepositoryError):
        return True  # the client keeps what it must not keep, or a file that cannot be read


def test_no_case_is_listed_twice() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 100


def broken(world: World) -> None:
    world.init()
    world.repository.publish(*ONLINE)
    world.expect_refused()  # although the bundle is genuine


def test_a_case_in_which_a_bad_update_is_accepted_fails_whatever_its_intent(tmp_path: Path) -> None:
    for intent in (None, *Intent):
        row = Case("broken", broken, intent).run(tmp_path / str(intent), examine)
        assert row.result == "fails"
        assert Deviation.ACCEPTS_BAD.value in row.deviations[0]
