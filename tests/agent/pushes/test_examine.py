"""What the verifier process may do to the steady one: nothing."""

import asyncio
import sys

import pytest

from agent.errors import Permanent, Transient
from agent.pushes import examine
from agent.pushes.release import Reason, Verdict
from tests.agent.pushes.world import Fleet, question, toggles


def verdict(fleet: Fleet, timeout_s: float = 30.0) -> Verdict:
    fleet.publish(toggles())
    return asyncio.run(examine.examine(question(fleet, fleet.bundle()), timeout_s=timeout_s))


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(examine, "_COMMAND", (sys.executable, "-c", script))


def test_a_verifier_that_hangs_is_killed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import time; time.sleep(60)")
    assert verdict(fleet, timeout_s=0.5).reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    "script", ["raise SystemExit(1)", "import os; os.abort()", "print('{')", 'print(\'{"reason": "fine"}\')', ""]
)
def test_a_verifier_that_crashes_or_talks_nonsense_counts_against_the_bundle(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    child(monkeypatch, script)
    assert verdict(fleet).reason is Reason.CRASHED


def test_a_machine_without_room_is_asked_again_later(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import sys; sys.stderr.write('No space left on device'); sys.exit(75)")
    with pytest.raises(Transient, match="No space left"):
        verdict(fleet)


def test_a_verifier_that_cannot_be_started_is_transient(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "_COMMAND", ("/nonexistent",))
    with pytest.raises(Transient, match="cannot start"):
        verdict(fleet)


def test_a_broken_factory_root_is_named(fleet: Fleet) -> None:
    fleet.publish(toggles())
    with pytest.raises(Permanent, match="enrol the vehicle again"):
        asyncio.run(examine.examine(question(fleet, fleet.bundle(), trusted_root=b"")))


def test_no_process_stays_behind_when_nobody_waits_any_more(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import time; time.sleep(60)")
    fleet.publish(toggles())

    async def give_up() -> None:
        task = asyncio.create_task(examine.examine(question(fleet, fleet.bundle())))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(give_up(), 10))
