"""A short form of `make trial`, with real broker, receiver and agent, and the tests of its verdict."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trial.drill import Drill, cases
from tests.trial.kills import Campaign, Kills, Verdict

pytestmark = pytest.mark.integration


@pytest.mark.timeout(600)  # four programs share a busy machine
def test_a_release_that_does_harm_is_undone_with_its_receipt_in_the_lake(tmp_path: Path) -> None:
    wanted = [case for case in cases(tmp_path) if case.name in ("crash", "stops decoding")]
    (tmp_path / "drill").mkdir()
    outcomes = Drill(tmp_path / "drill", print).run(wanted)
    assert [(outcome.name, outcome.mistakes) for outcome in outcomes] == [(case.name, []) for case in wanted]
    assert all(outcome.passed for outcome in outcomes)


@pytest.mark.timeout(600)
def test_kills_while_releases_are_taken_leave_a_whole_state_that_is_never_older(tmp_path: Path) -> None:
    result = Campaign(tmp_path, 1, print).run(8)
    assert result.mistakes == []
    assert result.receipts > 0


# ---- the verdict finds what it is for


def record(folder: Path, generation: int, version: int, **more: Any) -> None:
    """Write the state folder of a vehicle in which release `version` is in force."""
    release = json.dumps({"version": version, "documents": {"toggles.json": ""}}).encode()
    digest = hashlib.sha256(release).hexdigest()
    (folder / "releases").mkdir(exist_ok=True)
    (folder / "releases" / f"{version}-{digest}.json").write_bytes(release)
    floor = {"root": 1, "timestamp": 9, "snapshot": 9, "targets": 9}
    slots = {"current": {"version": version, "digest": digest}}
    content = json.dumps({"generation": generation, "floor": floor, "slots": slots} | more).encode()
    for name in ("state.a", "state.b"):
        (folder / name).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


@pytest.fixture
def verdict(tmp_path: Path) -> Verdict:
    found = Verdict(tmp_path, Kills(1))
    found.published = {version: {"toggles.json": b""} for version in range(10)}
    record(tmp_path, 5, 7)
    found.look()
    assert found._result.mistakes == []
    return found


def test_the_verdict_finds_an_older_record(verdict: Verdict, tmp_path: Path) -> None:
    record(tmp_path, 4, 7)
    verdict.look()
    assert verdict._result.mistakes == ["after kill 0: the record went back from generation 5 to 4"]


def test_the_verdict_finds_an_older_release_and_accepts_one_that_was_taken_back(
    verdict: Verdict, tmp_path: Path
) -> None:
    record(tmp_path, 6, 6)
    verdict.look()
    assert verdict._result.mistakes == ["after kill 0: release 6 is in force after 7, which was never taken back"]
    verdict._in_force = 7
    record(tmp_path, 7, 6)
    text = (tmp_path / "state.a").read_bytes().partition(b"\n")[2]
    slots = {**json.loads(text)["slots"], "refused": 7}
    record(tmp_path, 8, 6, slots=slots)
    verdict.look()
    assert len(verdict._result.mistakes) == 1


def test_the_verdict_finds_a_missing_a_damaged_and_a_foreign_release(verdict: Verdict, tmp_path: Path) -> None:
    (file,) = (tmp_path / "releases").iterdir()
    content = file.read_bytes()
    file.write_bytes(b"damaged")
    verdict.look()
    file.unlink()
    verdict.look()
    file.write_bytes(content)
    verdict.published[7] = {"campaigns/other.json": b""}
    verdict.look()
    assert verdict._result.mistakes == [
        "after kill 0: the file of release 7 (current) is damaged",
        "after kill 0: the file of release 7 (current) is missing",
        "after kill 0: release 7 (current) has other documents than were published",
    ]


def test_the_verdict_finds_that_no_copy_is_whole(verdict: Verdict, tmp_path: Path) -> None:
    for name in ("state.a", "state.b"):
        (tmp_path / name).write_bytes(b"cut off")
    verdict.look()
    assert verdict._result.mistakes == ["after kill 0: no copy of the record is whole"]
