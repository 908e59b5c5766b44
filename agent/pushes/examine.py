"""Have a bundle examined by the verifier process.

Invariant: whatever the verifier does with a bundle (refuse it, crash, hang, print nonsense), the agent has a Verdict
in bounded time, and no process stays behind.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from agent.errors import Permanent, Transient
from agent.pushes.release import Question, Reason, Verdict

TIMEOUT_S: Final = 60.0
"""The verifier's limit of time.  Starting Python on a busy head unit takes seconds; the limit of CPU time is 30 s."""
_DETAIL_BYTES: Final = 500
# -I isolates the process from the environment and the user's folders, so neither can put another module in front.
VERIFIER: Final = (sys.executable, "-I", "-m", "agent.pushes.verifier")


async def examine(question: Question, *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = VERIFIER) -> Verdict:
    """Return the verifier's verdict.

    Raises: Transient where the machine failed (no process, disk full), Permanent where the vehicle's own trusted root
    is unusable.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise Transient(f"cannot start the verifier of pushes: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, complaint = await process.communicate(msgspec.json.encode(question))
    except TimeoutError:
        return Verdict(reason=Reason.TIMEOUT, detail=f"not verified within {timeout_s:g} s")
    finally:
        # A timeout and a cancellation both end here while the process still runs.
        if process.returncode is None:
            process.kill()
            await process.wait()
    detail = complaint.decode(errors="replace").strip()[-_DETAIL_BYTES:]
    match process.returncode:
        case os.EX_OK:
            return _read(output)
        case os.EX_TEMPFAIL:
            raise Transient(f"the verifier of pushes could not work: {detail}")
        case os.EX_CONFIG:
            raise Permanent(detail)
    return Verdict(reason=Reason.CRASHED, detail=f"verifier ended with status {process.returncode}: {detail}")


def _read(output: bytes) -> Verdict:
    try:
        return msgspec.json.decode(output, type=Verdict)
    except msgspec.DecodeError as error:
        return Verdict(reason=Reason.CRASHED, detail=f"verifier printed no verdict: {error}")
