"""Verify one bundle in a process of its own, `python -m agent.pushes.verifier`.

The process reads a Question from standard input and writes a Verdict to standard output (agent/pushes/release.py).  The
process holds no key.  Before it reads the first byte from outside, its memory and processor time are limited, and it
is confined: it cannot open a file or a socket, start a program, or read another process (agent/system/confinement.py
says what holds where).

The worst that a hostile bundle can achieve is a refusal.  A bundle that can run code in this process, through a fault
in a parser, can also forge its own verdict, which the agent believes.

| exit status | meaning |
|---|---|
| 0 | A verdict was written. |
| EX_CONFIG | The vehicle's own trusted root is unusable. |
| any other | The process crashed, so the bundle is refused. |
"""

import importlib
import os
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.documents import KINDS, RECIPIENT, Kind
from agent.formats.down.evaluation import import_evaluator
from agent.formats.down.recipient import parse_recipient
from agent.formats.up.recipient import SUITES, RecipientPrivateKey
from agent.pushes.lean_import import lean
from agent.pushes.release import Question, Reason, Refused, Verdict
from agent.pushes.validate import validate
from agent.system.confinement import confine
from agent.system.secrecy import forbid_dumps

with lean():
    from agent.pushes.trust import verify

_MEMORY_BYTES: Final = 512 << 20
"""The limit of address space; a normal run maps some 200 MB."""
_CPU_S: Final = 30
"""The limit of processor time; the slowest head unit needs a tenth of it."""
_LIMITS: Final = ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, _CPU_S))
_LATE: Final = ("_strptime", "tuf.api.serialization.json", "difflib", "cryptography.hazmat.backends.openssl.backend")
"""The modules that `datetime.strptime`, TUF, `agent.errors.nearest` and ECDSA keys import at first use."""


def judge(question: Question, kinds: Sequence[Kind] = KINDS) -> Verdict:
    """Verify the bundle of `question`, and validate its documents.

    Raises: Permanent if the vehicle's own trusted root is unusable.
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
        release=None if trusted.release is None else trusted.release.without_large(),
        wanted=trusted.wanted,
    )


def _import_everything() -> None:
    """Import what Python and the libraries import at first use, because a confined process reads no file."""
    for name in _LATE:
        importlib.import_module(name)
    import_evaluator()
    for suite in SUITES:
        # OpenSSL and `cryptography` load parts of themselves when the first key is read.
        parse_recipient(RecipientPrivateKey.generate(suite).public.to_json(), RECIPIENT.pattern)


def main(judge_question: Callable[[Question], Verdict] = judge) -> int:
    """Answer the question on standard input and return the exit status.

    Tests pass another `judge_question`, which runs in the confined process in place of `judge`.
    """
    for limit, value in _LIMITS:
        # A process may lower its hard limit but never raise it again, so a lower limit from outside stays.
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    forbid_dumps()
    _import_everything()
    unconfined = tuple(confine())
    # The confinement holds from here on, before the first byte from outside is read.
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        verdict = judge_question(question)
    except Permanent as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    sys.stdout.buffer.write(msgspec.json.encode(msgspec.structs.replace(verdict, unconfined=unconfined)))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
