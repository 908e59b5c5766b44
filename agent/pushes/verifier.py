"""Verify one bundle in a process of its own, `python -m agent.pushes.verifier`.

The process reads a Question from standard input and writes a Verdict to standard output (agent/pushes/release.py).  The
process holds no key, opens no socket and keeps no file.  Its memory, processor time and file sizes are limited.  The
worst that a hostile bundle can achieve is a refusal.

| exit status | meaning |
|---|---|
| 0 | A verdict was written. |
| EX_TEMPFAIL | The machine failed (disk full); try again. |
| EX_CONFIG | The vehicle's own trusted root is unusable. |
| any other | The process crashed, so the bundle is refused. |
"""

import os
import resource
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.documents import KINDS, Kind
from agent.pushes.release import Question, Reason, Refused, Verdict
from agent.pushes.trust import verify
from agent.pushes.validate import validate
from agent.system.secrecy import forbid_dumps

_MEMORY_BYTES: Final = 512 << 20
"""The limit of address space; a normal run maps some 200 MB."""
_CPU_S: Final = 30
"""The limit of processor time; the slowest head unit needs a tenth of it."""
_FILE_BYTES: Final = 8 << 20
"""The size limit of each file that the process writes: twice that of the largest target file."""
_LIMITS: Final = (
    (resource.RLIMIT_AS, _MEMORY_BYTES),
    (resource.RLIMIT_CPU, _CPU_S),
    (resource.RLIMIT_FSIZE, _FILE_BYTES),
)


def judge(question: Question, kinds: Sequence[Kind] = KINDS) -> Verdict:
    """Verify the bundle of `question`, and validate its documents.

    Raises: Permanent if the vehicle's own trusted root is unusable, OSError if temporary files cannot be written.
    """
    try:
        trusted = verify(question, kinds)
    except Refused as refused:
        return Verdict(reason=refused.reason, detail=refused.detail)
    reason, detail = None, ""
    if trusted.release is not None:
        try:
            validate(trusted.release, question.vehicle, kinds)
        except Permanent as error:
            # The signatures are genuine, so the metadata is kept and the version is not offered again.
            reason, detail = Reason.INVALID, str(error)
    return Verdict(
        reason=reason,
        detail=detail,
        versions=trusted.versions,
        metadata=trusted.metadata,
        signed_at_s=trusted.signed_at_s,
        release=trusted.release,
    )


def main() -> int:
    """Answer the question on standard input and return the exit status."""
    for limit, value in _LIMITS:
        # A process may lower its hard limit but never raise it again, so a lower limit from outside stays.
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    forbid_dumps()
    # The limits hold from here on, before the first byte from outside is read.
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        verdict = judge(question)
    except Permanent as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_TEMPFAIL
    sys.stdout.buffer.write(msgspec.json.encode(verdict))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
