"""Makes virtual CAN interfaces, and sends frames on them with can-utils."""

import functools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@functools.cache
def available() -> bool:
    """Return whether this process can make vcan interfaces.  The first call tries it; later calls repeat the answer."""
    if shutil.which("ip", path=SBIN) is None or shutil.which("cangen") is None:
        return False
    # The kernel may lack the module, or this user may lack the right.  Only an attempt shows whether it works.
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
    """Add a vcan interface for classic and FD frames.  Raises: subprocess.CalledProcessError."""
    ip("link", "add", name, "type", "vcan")
    # An interface takes CAN FD frames only with an MTU of 72 bytes.
    ip("link", "set", name, "mtu", "72")
    if up:
        ip("link", "set", name, "up")


def remove(name: str) -> None:
    """Remove the interface `name`.  Raises: subprocess.CalledProcessError."""
    ip("link", "del", name)


@contextmanager
def vcan(*names: str) -> Iterator[None]:
    """Add the interfaces `names` for a `with` block, and remove them afterwards."""
    for name in names:
        add(name)
    try:
        yield
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):  # The test may have removed the interface itself.
                remove(name)


def cangen(interface: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start cangen, which sends random frames on `interface`.  The caller ends the process."""
    return subprocess.Popen([_program("cangen"), interface, *arguments], stdout=subprocess.DEVNULL)


def canplayer(log: Path, buses: Sequence[str], *, timed: bool = False) -> subprocess.Popen[bytes]:
    """Start canplayer, which sends the frames that `log` holds for `buses`.  The caller ends the process.

    The frames of a bus go to the interface that has the name of the bus.  With `timed`, canplayer keeps to the times of
    the log; otherwise it sends as fast as possible.
    """
    how = ["-g", "5"] if timed else ["-t"]
    return subprocess.Popen([_program("canplayer"), *how, "-I", str(log), *(f"{bus}={bus}" for bus in buses)])


def counting_log(log: Path, bus: str, *, frames_per_s: float, seconds: float) -> int:
    """Write a log whose frames carry the numbers 0, 1, 2 and so on, and return the number of frames.

    Tests that need a steady stream of frames play this log with canplayer, which keeps to the times of the log even on
    a busy machine.  cangen would fall behind.
    """
    count = round(frames_per_s * seconds)
    with log.open("w") as file:
        for number in range(count):
            file.write(f"({1_000 + number / frames_per_s:.6f}) {bus} 123#{number.to_bytes(8, 'little').hex()}\n")
    return count


def _program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    assert found is not None, f"The program {name} is not installed. Install iproute2 and can-utils."
    return found
