"""Whatever the verifier process does, the agent gets a verdict and goes on."""

import asyncio
import resource
import sys
from collections.abc import Sequence

import pytest
import structlog.testing

from agent.errors import Permanent, Transient
from agent.pushes.examine import VERIFIER, examine
from agent.pushes.release import Reason, Verdict
from tests.agent.pushes.world import Fleet, question, toggles


def verdict(fleet: Fleet, command: Sequence[str] = VERIFIER, timeout_s: float = 30.0) -> Verdict:
    fleet.publish(toggles())
    return asyncio.run(examine(question(fleet, fleet.bundle()), timeout_s=timeout_s, command=command))


def child(script: str) -> Sequence[str]:
    return (sys.executable, "-c", script)


def test_a_verifier_that_hangs_is_killed(fleet: Fleet) -> None:
    assert verdict(fleet, child("import time; time.sleep(60)"), timeout_s=0.5).reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    "script", ["raise SystemExit(1)", "import os; os.abort()", "print('{')", 'print(\'{"reason": "fine"}\')', ""]
)
def test_a_verifier_that_crashes_or_talks_nonsense_counts_against_the_bundle(fleet: Fleet, script: str) -> None:
    assert verdict(fleet, child(script)).reason is Reason.CRASHED


def test_a_verifier_that_writes_without_end_is_killed_before_it_fills_the_memory(fleet: Fleet) -> None:
    for stream in ("stdout", "stderr"):
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = verdict(fleet, child(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"))
        assert answer.reason is Reason.CRASHED
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


def test_a_verifier_that_writes_and_hangs_is_killed(fleet: Fleet) -> None:
    slow = child("import sys, time\nwhile True: sys.stdout.write('x' * 1000); time.sleep(0.0001)")
    assert verdict(fleet, slow, timeout_s=1.0).reason is Reason.TIMEOUT


def test_a_verifier_that_cannot_be_started_is_transient(fleet: Fleet) -> None:
    with pytest.raises(Transient, match="cannot start"):
        verdict(fleet, ("/nonexistent",))


def test_a_broken_factory_root_is_named(fleet: Fleet) -> None:
    fleet.publish(toggles())
    with pytest.raises(Permanent, match="enrol the vehicle again"):
        asyncio.run(examine(question(fleet, fleet.bundle(), trusted_root=b"")))


def test_no_process_stays_behind_where_the_caller_is_cancelled(fleet: Fleet) -> None:
    fleet.publish(toggles())

    async def give_up() -> None:
        task = asyncio.create_task(
            examine(question(fleet, fleet.bundle()), command=child("import time; time.sleep(60)"))
        )
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(give_up(), 10))


def test_what_confines_the_verifier_less_is_logged_once(fleet: Fleet) -> None:
    missing = child("""print('{"unconfined": ["Landlock (not in this kernel)"]}')""")
    with structlog.testing.capture_logs() as logs:
        verdict(fleet, missing)
        verdict(fleet, missing)
    assert logs == [
        {"event": "verifier_less_confined", "log_level": "info", "missing": ("Landlock (not in this kernel)",)}
    ]
