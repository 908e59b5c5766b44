"""The memory of the agent and of its children, which holds the device key, is read by nobody else."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.car import Car

pytestmark = pytest.mark.integration

# Agent and app run as the same user, without capabilities.  CAP_SYS_PTRACE and CAP_PERFMON would read any process.
AS_APP = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
WITH_CORES = ("bash", "-c", 'ulimit -c unlimited; exec "$@"', "bash")
READ_MEMORY = """
import ctypes, os, sys

process = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
for file in ("environ", "maps", "mem"):
    try:
        with open(f"/proc/{process}/{file}", "rb") as opened:
            if file == "mem":
                opened.seek(stack)
            if file == "maps":
                stack = next(int(line.split(b"-")[0], 16) for line in opened if b"[stack]" in line)
            elif opened.read(1):
                print(file)
    except (PermissionError, StopIteration):
        pass
if libc.ptrace(16, int(process), None, None) == 0:  # PTRACE_ATTACH
    os.waitpid(int(process), 0)
    libc.ptrace(17, int(process), None, None)  # PTRACE_DETACH
    print("ptrace")
"""


def what_an_app_reads(pid: int) -> list[str]:
    """Return what a program of the same user, without a capability to trace, gets of the process `pid`."""
    command = [*AS_APP, sys.executable, "-c", READ_MEMORY, str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def started(command: Sequence[str], folder: Path, line: bytes = b"") -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose core may have any size, in `folder`, and wait until its output has `line`."""
    with subprocess.Popen(
        [*AS_APP, *WITH_CORES, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd=folder,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while line and line not in (said := process.stdout.readline()):
                assert said, f"the program ended without {line!r}"
            yield process
        finally:
            process.kill()


@contextmanager
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    car = Car.make(tmp_path)
    with started([sys.executable, "-m", "agent", "run", "--config", str(car.config)], tmp_path, b"agent_ready") as run:
        yield run


@contextmanager
def verifier(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with started([sys.executable, "-m", "agent.pushes.verifier"], tmp_path) as process:
        until_it_reads(process.pid, "pipe")  # the process waits for its question
        yield process


@contextmanager
def compiler(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = tmp_path / "agent.toml"
    os.mkfifo(config)
    with started([sys.executable, "-m", "agent.settings.plans", str(config)], tmp_path) as process:
        until_it_reads(process.pid, "fifo")
        yield process


@contextmanager
def anything_else(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with started([sys.executable, "-uc", "print('ready'); input()"], tmp_path, b"ready") as process:
        yield process


def until_it_reads(pid: int, kind: str) -> None:
    """Wait until a process sleeps in reading a pipe, or in opening a named one."""
    wanted = re.compile("pipe" if kind == "pipe" else "fifo|wait_for_partner")
    for _ in range(400):
        if wanted.search(Path(f"/proc/{pid}/wchan").read_text()):
            return
        signal.sigtimedwait([], 0.05)
    pytest.fail(f"the process does not read its {kind}")


PROCESSES = {"the agent": agent, "the verifier of pushes": verifier, "the compiler of databases": compiler}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.attack(
    "9",
    "an app reads the memory of a program that holds the device key",
    how="An app opens the memory of agent, verifier and compiler.",
)
def test_no_app_reads_the_memory_of(name: str, tmp_path: Path) -> None:
    if AS_APP and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: apt-get install util-linux")
    with anything_else(tmp_path) as process:
        if "mem" not in what_an_app_reads(process.pid):
            pytest.skip("the kernel lets no program read the memory of another one")
    with PROCESSES[name](tmp_path) as process:
        assert what_an_app_reads(process.pid) == []


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.attack(
    "9",
    "the watchdog aborts a program that holds the device key",
    how="SIGABRT is sent to agent, verifier and compiler.",
    before="a core with the device key",
)
def test_no_crash_and_no_watchdog_leaves_a_core_of(name: str, tmp_path: Path) -> None:
    with anything_else(tmp_path) as process:
        if not leaves_core(process, tmp_path):
            pytest.skip("this machine writes no cores")
    with PROCESSES[name](tmp_path) as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
        assert not leaves_core(process, tmp_path)


def leaves_core(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """End a process as systemd's watchdog does, and return whether the kernel wrote its memory to `folder`."""
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    assert os.WTERMSIG(status) == signal.SIGABRT
    cores = list(folder.glob("core*"))
    for core in cores:
        core.unlink()
    return os.WCOREDUMP(status) or bool(cores)
