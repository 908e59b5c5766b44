"""Each layer of confinement holds by itself what its documentation promises."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from agent.system import confinement
from agent.system.syscall_filter import AARCH64, X86_64
from tests.agent.system import intruder
from tests.agent.system.intruder import ATTEMPTS, prepared
from tests.systemd import service_filter

SECRET = ctypes.create_string_buffer(b"secret")
NUMBERS_OF = (X86_64, AARCH64)
FIRST = "no new privileges"  # Landlock and seccomp require it

FILES = {"open the device key", "open a new file", "list a folder", "open the agent's memory"}
NAMES = {"empty a file", "delete a file", "rename a file", "make a folder"}
SOCKETS = {"open a socket of TCP", "open a raw socket", "open a socket of CAN", "connect to a Unix socket"}
MEMORY = {"trace the agent", "read the agent's memory", "open the agent's memory"}
HOLDS = {
    "limits": FILES | SOCKETS | {"keep a file in memory"},
    "Landlock": FILES | NAMES | MEMORY | {"execute a program", "send the agent a signal"},
    "no capabilities": {"open a raw socket", "change its user", "raise its own limits"},
    "seccomp": set(ATTEMPTS),
}
LANDLOCK_SINCE = {"empty a file": 3, "send the agent a signal": 6}


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[str]:
    """Yield the targets of the intruder, as its argument."""
    (tmp_path / "device.key.pem").write_bytes(b"key")
    with prepared(tmp_path, tmp_path / "device.key.pem", SECRET) as prepared_targets:
        yield prepared_targets


def attempted(where: str, attempt: str, targets: str) -> str:
    """Return what became of an attempt: "done", the name of an error, or the name of the signal that ended it."""
    command = [sys.executable, "-I", intruder.__file__, where, attempt, targets]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode < 0:
        return signal.Signals(-ended.returncode).name
    return ended.stdout.strip() or f"{ended.returncode}: {ended.stderr}"


@cache
def landlock_version() -> int:
    try:
        return confinement.landlock_version()
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("layer", "attempt"), [(layer, attempt) for layer in HOLDS for attempt in ATTEMPTS if attempt in HOLDS[layer]]
)
def test_a_layer_alone_refuses_to(layer: str, attempt: str, targets: str) -> None:
    if layer == "Landlock" and landlock_version() < LANDLOCK_SINCE.get(attempt, 1):
        pytest.skip(f"this kernel has version {landlock_version()} of Landlock")
    if layer == "seccomp" and "seccomp" in lacking():
        pytest.skip(f"this kernel filters no system calls: {lacking()}")
    if attempted("nowhere", attempt, targets) != "done":
        pytest.skip("this machine refuses it to any process of this user")
    (Path(json.loads(targets)["folder"]) / "old").write_bytes(b"old")
    assert attempted(f"{FIRST},{layer}", attempt, targets) != "done"


@cache
def lacking() -> str:
    """Return the layers that a process on this machine lacks."""
    script = "from agent.system.confinement import confine; print(*confine())"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_layer_that_cannot_be_added_is_named_and_the_rest_is_still_done() -> None:
    """The kernel refuses these two calls to the process, as it does where an older unit of the service is installed."""
    script = f"""
import sys
sys.path.append({str(Path(service_filter.__file__).parent)!r})
import service_filter
from agent.system.confinement import confine
service_filter.install(set(service_filter.numbers()) - {{"capset", "landlock_create_ruleset"}})
missing = confine()
try:
    open("/etc/passwd")
except OSError as error:
    missing.append(error.strerror)
sys.stdout.write("\\n".join(missing))
"""
    if reason := service_filter.lacks():
        pytest.skip(reason)
    if "seccomp" in lacking():
        pytest.skip(f"this kernel filters no system calls: {lacking()}")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    landlock, capabilities, opening = ended.stdout.splitlines()
    assert landlock.startswith("Landlock (") and "Operation not permitted" in landlock
    assert capabilities.startswith("no capabilities (") and "Operation not permitted" in capabilities
    assert opening == "Operation not permitted"  # by seccomp; by the limits it would be "Too many open files"


def test_nothing_is_missing_where_the_kernel_has_landlock_and_seccomp() -> None:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or os.uname().machine not in NUMBERS_OF or not landlock_version():
        pytest.skip(f"this kernel lacks Landlock or seccomp, or the agent knows no numbers of it: {lacking()}")
    assert lacking() == "\n"
