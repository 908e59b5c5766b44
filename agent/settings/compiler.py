"""Compile the pushed databases of one bus in a confined process, `python -I -m agent.settings.compiler`.

A database comes from outside, and a few bytes of it can demand any amount of memory or time.  The process therefore has
limits for both, and can do nothing but compute (agent/system/confinement.py).  The fleet compiles each database in this
way before it is signed, and each vehicle before it takes the release that has the database.

    agent --- Job (JSON on standard input) ---------------------> compiler
    agent <-- the content of a plan's file (can_dbc/cache.py) --- compiler

| exit status | meaning |
|---|---|
| 0 | The plan was written. |
| EX_DATAERR | The databases cannot be compiled; standard error says why. |
| any other | A limit ended the process, or it crashed. |
"""

import codecs
import contextlib
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import Permanent, Transient
from agent.formats.down.databases import PushedBus, PushedDatabase
from agent.system.child_process import ask
from agent.system.confinement import confine
from agent.system.secrecy import forbid_dumps
from can_dbc import database
from can_dbc.cache import MAX_BYTES, to_bytes
from can_dbc.compile import compile_plan
from can_dbc.errors import DatabaseError
from can_dbc.plan import Match

_NICENESS: Final = 10
"""Compiling can take a minute of a head unit's processor, and capture and delivery come first."""
_DETAIL_CHARS: Final = 500
_ENCODING: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_CERTAIN: Final = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
"""The encodings that `can_dbc.encodings` tries by itself."""
_SOURCE: Final = re.compile(r"^dbc/[^/]+/[^:]+: ")


class Limits(msgspec.Struct, frozen=True):
    """Holds the limits for compiling the databases of one bus.

    A database of 5 MB (5,900 messages, 47,000 signals) takes 4.6 s of processor time on a PC, and 140 MB of memory in
    less than 300 MiB of address space.  A slow head unit has a tenth of the speed.
    """

    memory_bytes: int = 320 << 20
    cpu_s: int = 120
    wall_s: float = 600.0


LIMITS: Final = Limits()


class Job(msgspec.Struct, frozen=True):
    """Holds the databases of one bus in their order, and how the message of a frame is found."""

    databases: tuple[PushedDatabase, ...]
    match: Match


async def compile_apart(bus: PushedBus, match: Match, limits: Limits = LIMITS) -> bytes:
    """Return the content of the plan's file for the databases of `bus`.

    Raises: Permanent naming the databases and the fault; Transient if no process can be started.
    """
    encodings = {each.encoding for each in bus.databases if each.encoding is not None}
    odd = next((each for each in sorted(encodings) if _ENCODING.fullmatch(each) is None), None)
    if odd is not None:
        raise Permanent(f"{bus.source}: encoding {odd!r:.60} is unknown; name one such as gbk or cp1251")
    command = (sys.executable, "-I", "-m", "agent.settings.compiler", str(limits.memory_bytes), str(limits.cpu_s))
    try:
        status, output, complaint = await ask(
            (*command, *sorted(encodings)),
            msgspec.json.encode(Job(bus.databases, match)),
            timeout_s=limits.wall_s,
            most_bytes=MAX_BYTES,
            # A process with several threads cannot be confined, and numpy would start one for each processor.
            environment={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    except TimeoutError:
        raise Permanent(f"{bus.source}: {_too_much(f'more than {limits.wall_s:g} s')}") from None
    except OSError as error:
        raise Transient(f"cannot start the compiler of databases: {error.strerror}; it is tried again") from error
    if len(output) > MAX_BYTES:
        raise Permanent(f"{bus.source}: {_too_much(f'more than {MAX_BYTES:,} bytes of plan')}")
    detail = complaint.decode(errors="replace").strip()
    match status:
        case os.EX_OK:
            return output
        case os.EX_DATAERR:
            raise Permanent(detail[:_DETAIL_CHARS] if _SOURCE.match(detail) else f"{bus.source}: {detail}")
        case _ if status == -signal.SIGXCPU:
            raise Permanent(f"{bus.source}: {_too_much(f'more than {limits.cpu_s} s of processor time')}")
        # The kernel ends the process if the service or the machine has no memory left.
        case _ if status == -signal.SIGKILL:
            raise Permanent(f"{bus.source}: {_too_much('more memory than there is')}")
    raise Permanent(
        f"{bus.source}: compiling the databases crashed with status {status}; publish another database: "
        f"{detail[-_DETAIL_CHARS:]}"
    )


def _too_much(what: str) -> str:
    return f"compiling the databases takes {what}; publish smaller or simpler databases"


def _compile(job: Job) -> bytes:
    loaded = [database.parse(each.content, "dbc", each.path, each.encoding) for each in job.databases]
    return to_bytes(compile_plan(loaded, job.match))


def main(arguments: list[str]) -> int:
    """Answer the job on standard input, and return the exit status.

    `arguments` are the limits of memory and processor time, and the encodings that the job names.
    """
    memory_bytes, cpu_s, *encodings = arguments
    # The unit of the service forbids the call, and starts the agent with a niceness of its own.
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    # If the machine or the service runs out of memory, this process ends, and not the agent.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    # At the soft limit of processor time, the kernel sends a signal that says why.  At the hard one, it kills.
    for limit, value, grace in ((resource.RLIMIT_AS, int(memory_bytes), 0), (resource.RLIMIT_CPU, int(cpu_s), 1)):
        # A process may lower its hard limit but never raise it again, so a lower limit from outside stays.
        present = resource.getrlimit(limit)[1]
        most = value + grace if present == resource.RLIM_INFINITY else min(value + grace, present)
        resource.setrlimit(limit, (min(value, most), most))
    forbid_dumps()
    # Python imports the module of an encoding at its first use, and a confined process reads no file.
    for name in (*_CERTAIN, *encodings):
        with contextlib.suppress(LookupError):
            codecs.lookup(name)
    confine()
    # The confinement holds from here on, before the first byte from outside is read.
    try:
        plan = _compile(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))
    except DatabaseError as error:
        sys.stderr.write(str(error))
        return os.EX_DATAERR
    except (OverflowError, ValueError) as error:
        sys.stderr.write(f"a number in the databases is NaN or exceeds 64 bits ({error}); correct it")
        return os.EX_DATAERR
    except (MemoryError, RecursionError) as error:
        what = "too many levels" if isinstance(error, RecursionError) else f"more than {int(memory_bytes) >> 20} MiB"
        sys.stderr.write(_too_much(what))
        return os.EX_DATAERR
    sys.stdout.buffer.write(plan)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
