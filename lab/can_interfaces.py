"""Virtual CAN interfaces, and traffic on them from can-utils."""

import functools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@functools.cache
def available() -> bool:
    """Return whether this machine (or this User Mode Linux) makes vcan interfaces for us."""
    if shutil.which("ip", path=SBIN) is None or shutil.which("cangen") is None:
        return False
    # The kernel may lack the module, or this user the right; trying is the only sure way to know.
    try:
        add("vcanprobe")
    except subprocess.CalledProcessError:
        return False
    remove("vcanprobe")
    return True


def ip(*arguments: str) -> None:
    """Run the `ip` command.  Raises: subprocess.CalledProcessError."""
    subprocess.run([_program("ip"), *arguments], check=True, capture_output=True)


def add(name: str, *, up: bool = True) -> None:
    """Add a vcan interface that takes classic and FD frames."""
    ip("link", "add", name, "type", "vcan")
    # An MTU of 72 bytes is what makes an interface take CAN FD frames.
    ip("link", "set", name, "mtu", "72")
    if up:
        ip("link", "set", name, "up")


def remove(name: str) -> None:
    """Remove an interface."""
    ip("link", "del", name)


@contextmanager
def vcan(*names: str) -> Iterator[None]:
    """Keep the interfaces `names` up for a `with` block."""
    for name in names:
        add(name)
    try:
        yield
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):  # The test removed it.
                remove(name)


def cangen(interface: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a generator of frames; the caller ends it."""
    return subprocess.Popen([_program("cangen"), interface, *arguments], stdout=subprocess.DEVNULL)


def canplayer(log: Path, buses: Sequence[str], *, timed: bool = False) -> subprocess.Popen[bytes]:
    """Start playing `log`, by its times or as fast as possible; the names of its buses are interfaces."""
    how = ["-g", "5"] if timed else ["-t"]
    return subprocess.Popen([_program("canplayer"), *how, "-I", str(log), *(f"{bus}={bus}" for bus in buses)])


def counting_log(log: Path, bus: str, *, frames_per_s: float, seconds: float) -> int:
    """Write a log of frames that count up, and return their number.

    Unlike cangen, canplayer keeps to the times of its log on a busy machine as well.
    """
    count = round(frames_per_s * seconds)
    with log.open("w") as file:
        for number in range(count):
            file.write(f"({1_000 + number / frames_per_s:.6f}) {bus} 123#{number.to_bytes(8, 'little').hex()}\n")
    return count


def _program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    assert found is not None, f"{name} is not installed"
    return found
