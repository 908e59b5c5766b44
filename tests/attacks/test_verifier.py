"""An intruder who runs code in the verifier of pushes, by a fault in a parser, gets nothing out of it."""

import asyncio
import ctypes
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.pushes.examine import examine
from agent.pushes.release import Question, Reason
from tests.agent.pushes.world import Fleet, question, toggles
from tests.agent.system import intruder
from tests.agent.system.intruder import ATTEMPTS, prepared
from tests.attack_report import RecordAttack

pytestmark = pytest.mark.integration

SECRET = ctypes.create_string_buffer(b"secret")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else oct(path.lstat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


async def tried(attempt: str, asked: Question, targets: str) -> str:
    """Return what the real verifier answers if its judge is replaced by the attempt."""
    verdict = await examine(asked, command=[sys.executable, "-I", intruder.__file__, "verifier", attempt, targets])
    if verdict.reason is Reason.CRASHED and f"status -{signal.SIGSYS}" in verdict.detail:
        return "killed by the kernel (SIGSYS)"
    return verdict.detail


@pytest.mark.attack(
    "10",
    "an intruder runs code in the verifier of pushes",
    how="Run code in the verifier, and try to get files, sockets, programs and other processes.",
)
def test_verifier(tmp_path: Path, attack: RecordAttack) -> None:
    fleet = Fleet(tmp_path / "fleet")
    fleet.publish(toggles())
    asked = question(fleet, fleet.bundle())
    genuine = asyncio.run(examine(asked))
    if genuine.unconfined:
        pytest.skip(f"this kernel confines the verifier less: {genuine.unconfined}")
    folder = tmp_path / "vehicle"
    folder.mkdir()
    key = folder / "device.key.pem"
    key.write_bytes(b"the device key")
    possible, answers = [], {}
    with prepared(folder, key, SECRET) as targets:
        before = contents(folder)
        for attempt in ATTEMPTS:
            answers[attempt] = asyncio.run(tried(attempt, asked, targets))
        unchanged = contents(folder) == before
        for attempt in ATTEMPTS:
            command = [sys.executable, "-I", intruder.__file__, "nowhere", attempt, targets]
            (folder / "old").write_bytes(b"old")
            if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "done":
                possible.append(attempt)
    succeeded = [attempt for attempt, answer in answers.items() if answer == "done" or "'done'" in answer]
    attack(figure={"attempts": len(answers), "succeeded": len(succeeded), "succeeded_unconfined": len(possible)})
    attack(receipt=", ".join(sorted(set(answers.values()))), state_changed=not unchanged)
    assert "open the device key" in possible
    assert succeeded == []
    assert {answer for answer in answers.values() if "SIGSYS" not in answer} <= {"EPERM", "EMFILE", "EACCES"}
    assert unchanged
    genuine = asyncio.run(examine(asked))
    assert genuine.reason is None
    assert genuine.release is not None
