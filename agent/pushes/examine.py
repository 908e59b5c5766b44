"""Run the verifier process on one bundle and read its verdict.

Invariant: whatever the verifier does with a bundle (refuse it, crash, hang, print nonsense), the agent gets a verdict
or an error in bounded time, and no process stays behind.
"""

import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
import structlog

from agent.errors import Permanent, Transient
from agent.pushes.release import Question, Reason, Verdict
from agent.system.child_process import ask

TIMEOUT_S: Final = 60.0
"""The time limit of the verifier process.

Starting Python takes seconds on a busy head unit, and the process may use 30 s of processor time.
"""
_OUTPUT_BYTES: Final = 32 << 20
"""The number of bytes that a verifier may write to its standard output, and to its standard error.

A verdict holds the documents of a release in base64.  The limit is six times what the documents of one bundle need.
Without a limit, a hostile bundle that runs code in the verifier could fill the agent's memory.
"""
_DETAIL_BYTES: Final = 500
# -I isolates the process from the environment and the user's folders, so neither can replace a module.
VERIFIER: Final = (sys.executable, "-I", "-m", "agent.pushes.verifier")

log = structlog.get_logger()


async def examine(question: Question, *, timeout_s: float = TIMEOUT_S, command: Sequence[str] = VERIFIER) -> Verdict:
    """Start the verifier process with `question` and return its verdict.

    The verdict refuses a bundle if the verifier crashes on the bundle or takes longer than `timeout_s`.

    Raises: Transient if no process can be started, Permanent if the vehicle's own trusted root is unusable.
    """
    try:
        status, output, complaint = await ask(
            command, msgspec.json.encode(question), timeout_s=timeout_s, most_bytes=_OUTPUT_BYTES
        )
    except TimeoutError:
        return Verdict(
            reason=Reason.TIMEOUT,
            detail=f"the verifier did not finish within {timeout_s:g} s; publish fewer or simpler documents",
        )
    except OSError as error:
        raise Transient(
            f"cannot start the verifier process of pushes: {error.strerror}; the fleet must send the push again"
        ) from error
    if len(output) > _OUTPUT_BYTES:
        return Verdict(
            reason=Reason.CRASHED, detail=f"the verifier wrote more than {_OUTPUT_BYTES} bytes; publish another bundle"
        )
    detail = complaint.decode(errors="replace").strip()[-_DETAIL_BYTES:]
    match status:
        case os.EX_OK:
            return _read(output)
        case os.EX_CONFIG:
            raise Permanent(detail)
    return Verdict(
        reason=Reason.CRASHED,
        detail=f"the verifier crashed on this bundle with status {status}; publish another one: {detail}",
    )


def _read(output: bytes) -> Verdict:
    try:
        verdict = msgspec.json.decode(output, type=Verdict)
    except msgspec.DecodeError as error:
        return Verdict(
            reason=Reason.CRASHED, detail=f"the verifier printed no verdict; publish another bundle: {error}"
        )
    if verdict.unconfined:
        _report(verdict.unconfined)
    return verdict


@lru_cache(maxsize=1)
def _report(unconfined: tuple[str, ...]) -> None:
    """Log the missing layers of confinement.  Only a change is logged, because most pushes miss the same layers."""
    log.info("verifier_less_confined", missing=unconfined)
