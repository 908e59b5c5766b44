"""Feeds inputs to targets in separate processes, with limits of time and memory for each input.

Input n of a target is a function of (seed, target, n).  Each input is written to a file before it is read, so that an
input that kills the process can be found afterwards.  An input that fails is kept in a file named by its digest.
"""

import faulthandler
import hashlib
import logging
import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.targets import TARGETS, Target

LIMIT_S = 20.0  # of wall time for one input, some thousand times what it needs
MEMORY_BYTES = 2 * 1024**3  # of address space, in addition to that at the start of the process
CHUNK = 2_000


class Hang(BaseException):
    """An input took longer than LIMIT_S.  This is a BaseException, so that no reader can catch it."""


@dataclass
class Found:
    """Holds the results of a target.  `errors` counts its own errors by type, `crashes` describes all others."""

    inputs: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: "Found") -> None:
        self.inputs += other.inputs
        self.errors += other.errors
        self.crashes += other.crashes
        self.seconds += other.seconds


def chosen(names: Sequence[str]) -> list[Target]:
    """Return all targets, or the targets with the given names.  Raises: KeyError for an unknown name."""
    by_name = {target.name: target for target in TARGETS}
    return [by_name[name] for name in names] if names else list(TARGETS)


def share_out(targets: Sequence[Target], inputs: int) -> dict[str, int]:
    """Return how many of `inputs` each target gets by its share, but at least one."""
    total = sum(target.share for target in targets)
    return {target.name: max(1, round(inputs * target.share / total)) for target in targets}


def fuzz(targets: Sequence[Target], inputs: int, seed: int, folder: Path, jobs: int) -> dict[str, Found]:
    """Feed all inputs in `jobs` processes, and return the results.  Failing inputs are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {target.name: Found() for target in targets}
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # A million small files would wear out a disk.
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as scratch,
        ProcessPoolExecutor(jobs, initializer=_prepare, initargs=(folder, scratch)) as pool,
    ):
        chunks: dict[Future[Found], tuple[str, int]] = {}
        for name, count in share_out(targets, inputs).items():
            for start in range(0, count, CHUNK):
                task = pool.submit(_feed, name, seed, start, min(CHUNK, count - start), folder)
                chunks[task] = name, start
        for task in as_completed(chunks):
            name, start = chunks[task]
            try:
                found[name].add(task.result())
            except BrokenProcessPool:
                found[name].crashes.append(f"inputs from {start} on: a process ended; see current-* in {folder}")
    return found


def failure(target: Target, content: bytes) -> str | None:
    """Return a description of how `content` fails, or None.  Raises: the target's own errors."""
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        target.read(content)
    except target.errors:
        raise
    except Hang:
        return f"Hang: {_where()}"
    except Exception as error:  # noqa: BLE001  # Fuzzing looks for exactly these.
        return f"{type(error).__name__}: {error}; {_where()}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return None


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def _where() -> str:
    """Return the innermost lines of the exception that is being handled."""
    lines = [line.strip().replace("\n", " ") for line in traceback.format_exc().split("  File ")[1:]]
    return " <- ".join(reversed(lines[-3:]))


def _prepare(folder: Path, scratch: str) -> None:
    """Set the limits of a worker.  A loop in C that no exception can interrupt ends the worker with a trace.

    Temporary files of a worker lie in `scratch`, because a worker that is killed does not remove them.
    """
    tempfile.tempdir = scratch
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable()  # python-can logs a line for each damaged line.
    warnings.simplefilter("error", RuntimeWarning)  # A caller may have made numpy's warnings errors.
    faulthandler.enable((folder / f"{os.getpid()}.trace").open("w"))


def _feed(name: str, seed: int, start: int, count: int, folder: Path) -> Found:
    (target,) = chosen([name])
    found = Found()
    began = time.monotonic()
    current = folder / f"current-{os.getpid()}"
    with current.open("wb", buffering=0) as file, (folder / f"{os.getpid()}.trace").open("a") as trace:
        for number in range(start, start + count):
            content = target.make(random.Random(f"{seed}/{name}/{number}"))
            file.seek(0)
            file.truncate()
            file.write(content)
            if number % 50 == 0:
                faulthandler.dump_traceback_later(5 * LIMIT_S, exit=True, file=trace)
            found.inputs += 1
            try:
                reason = failure(target, content)
            except target.errors as error:
                found.errors[type(error).__name__] += 1
                continue
            if reason is not None:
                path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
                path.write_bytes(content)
                found.crashes.append(f"{path.name} (input {number}): {reason}")
    faulthandler.cancel_dump_traceback_later()
    current.unlink()
    found.seconds = time.monotonic() - began
    return found
