"""`fleet status` compares what the fleet wants with what its vehicles report."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.lake.reported import Refusal, Reported
from fleet.lake.vehicles import Enrolled
from fleet.rollout.standing import Standing, State, needs_attention, summary_of
from tests.fleet.lake.receipts import receipt
from tests.fleet.rollout.rolled import FIRST, Rolled

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def standing(
    release: int = 3,
    *,
    trial: bool = False,
    refused: tuple[int, str] | None = None,
    revoked: bool = False,
    seen_days: float | None = 1,
    expires_days: float = 5_000,
) -> Standing:
    enrolled = Enrolled("Aria", "One", "DE", 2026, None, revoked, NOW + timedelta(days=expires_days))
    refusal = None if refused is None else Refusal(*refused, "detail", NOW)
    heard = None if seen_days is None else Reported(NOW - timedelta(days=seen_days), "1.0", release, trial, refusal)
    return Standing("6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11", 3, enrolled, heard)


@pytest.mark.parametrize(
    ("found", "state", "attention"),
    [
        (standing(), State.CURRENT, False),
        (standing(trial=True), State.ON_TRIAL, False),
        (standing(2), State.BEHIND, False),
        (standing(1, refused=(2, "invalid")), State.BEHIND, False),  # the release before was refused, not this one
        (standing(2, refused=(3, "invalid")), State.REFUSED, True),
        (standing(2, refused=(0, "expired")), State.REFUSED, True),
        (standing(seen_days=None), State.NEVER_SEEN, True),
        (standing(seen_days=31), State.CURRENT, True),
        (standing(expires_days=179), State.CURRENT, True),
        (standing(expires_days=-1), State.CURRENT, True),
        (standing(2, refused=(3, "invalid"), revoked=True), State.REVOKED, False),
    ],
)
def test_a_vehicle_has_one_state(found: Standing, state: State, attention: bool) -> None:
    assert found.state is state
    assert needs_attention(found, NOW) is attention


def test_the_summary_counts_every_vehicle_once() -> None:
    found = [
        standing(),
        standing(2, refused=(3, "invalid"), expires_days=-1),
        standing(seen_days=None, expires_days=100),
        standing(seen_days=40),
        standing(revoked=True),
    ]
    summary = summary_of(found, NOW)
    assert (summary.wanted, summary.vehicles) == (3, 4)
    assert summary.states == {State.CURRENT: 2, State.REFUSED: 1, State.NEVER_SEEN: 1, State.REVOKED: 1}
    assert (summary.releases, summary.reasons) == ({3: 2, 2: 1}, {"invalid": 1})
    assert (summary.expired, summary.expiring, summary.silent) == (1, 1, 1)


def test_the_command_shows_the_fleet_and_one_vehicle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rolled = Rolled(tmp_path)
    rolled.publish(FIRST)
    good, bad, trial = (vehicle.vehicle for vehicle in rolled.vehicles[:3])
    # A detail comes from outside, and a terminal must not obey it.
    failed = receipt("push_reverted", 2, "unhealthy\x1b[2J")
    rolled.report([good])
    rolled.arrivals.land(
        (bad, [receipt("agent_started", "0.1"), receipt("push_applied", 2), failed]),
        (trial, [receipt("push_applied", 2)]),
    )
    options = ["--fleet", str(rolled.folder.root), "--lake", rolled.lake.uri]
    assert main(["status", *options, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["wanted"], shown["enrolled"]) == (2, 60)
    assert shown["states"] == {"current": 1, "never_seen": 57, "on_trial": 1, "refused": 1}
    assert (shown["attention"], len(shown["vehicles"])) == (60, 20)  # the events of 2025 are long ago
    assert main(["status", *options, bad, "--json"]) == 0
    (vehicle,) = json.loads(capsys.readouterr().out)["vehicles"]
    assert (vehicle["vehicle"], vehicle["state"], vehicle["release"], vehicle["agent"]) == (bad, "refused", 0, "0.1")
    assert (vehicle["refused"]["version"], vehicle["refused"]["detail"]) == (2, "why unhealthy\x1b[2J")
    assert main(["status", *options, bad]) == 0
    text = capsys.readouterr().out
    assert "release 2: unhealthy" in text
    assert "\x1b" not in text
    assert main(["status", *options, "--all"]) == 0
    assert capsys.readouterr().out.count(" never_seen ") == 57
    assert main(["status", *options, "nobody"]) == 1
    assert "No vehicle nobody is enrolled" in capsys.readouterr().err


def test_the_commands_of_a_roll_out_work_step_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rolled = Rolled(tmp_path)
    file = rolled.file(FIRST)
    options = ["--fleet", str(rolled.folder.root), "--lake", rolled.lake.uri]

    def command(*words: str, status: int = 0) -> str:
        assert main(["rollout", *options, *words]) == status
        return "".join(capsys.readouterr())

    assert "A roll-out needs documents" in command("start", status=1)
    assert "There is no roll-out" in command("status", status=1)
    command("start", "--campaign", str(file), "--stages", "50,100", "--hold", "0s")
    assert "is held" not in command("step")
    assert "to come: 100 %" in command("status")
    command("pause")
    assert "is paused" in command("status")
    command("resume")
    assert json.loads(command("step", "--now", "--json"))["percent"] == 100.0
    assert "is done" in command("step", "--now")
    assert "is done" in command("run", "--every", "0.1")
    shutil.rmtree(rolled.lake.uri)  # the way back must not depend on the lake
    assert "is back" in command("back")
    assert "is back" in command("run", status=1)
    assert rolled.having(FIRST) == set()


def test_a_stage_that_adds_no_vehicle_is_announced_held_and_ended_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rolled = Rolled(tmp_path, vehicles=1)
    file = rolled.file(FIRST)
    options = ["--fleet", str(rolled.folder.root), "--lake", rolled.lake.uri]
    assert main(["rollout", *options, "start", "--campaign", str(file), "--stages", "0.0001,100", "--hold", "24h"]) == 0
    assert "These stages add no enrolled vehicle: 0.0001 %. Each is held" in capsys.readouterr().err
    assert main(["rollout", *options, "step"]) == 0
    shown = capsys.readouterr().out
    assert "(stage 0.0001 %, release 2)" in shown
    assert "The stage of 0.0001 % is held for 86,400 s more. It has added no vehicle" in shown
    assert rolled.having(FIRST) == set()
    assert main(["rollout", *options, "step", "--now"]) == 0
    shown = capsys.readouterr().out
    assert "(stage 100 %, release 3). The operator ended the stage of 0.0001 %." in shown
    assert rolled.having(FIRST) == rolled.all_names()
