"""Having a bundle examined by the verifier process, from the steady process.

Invariant: whatever the verifier does with a bundle (refuse it, crash, hang, print nonsense) comes back as a Verdict in
bounded time, and no process stays behind.
"""

import asyncio
import os
import sys
from typing import Final

import msgspec

from agent.errors import Permanent, Transient
from agent.pushes.release import Question, Reason, Verdict

TIMEOUT_S: Final = 60.0  # a start of Python on a busy head unit takes seconds; the verifier's own limit is 30 s of CPU
_DETAIL_BYTES: Final = 500
_COMMAND: Final = (sys.executable, "-I", "-m", "agent.pushes.verifier")


async def examine(question: Question, *, timeout_s: float = TIMEOUT_S) -> Verdict:
    """The verifier's verdict.  Raises Transient where the machine failed it, Permanent where the trusted root is."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
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
