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
    """Whether this machine (or this User Mode Linux) makes vcan interfaces for us."""
    if shutil.which("ip", path=SBIN) is None or shutil.which("cangen") is None:
        return False
    try:
        add("vcanprobe")
    except subprocess.CalledProcessError:
        return False
    remove("vcanprobe")
    return True


def ip(*arguments: str) -> None:
    program = shutil.which("ip", path=SBIN)
    assert program is not None
    subprocess.run([program, *arguments], check=True, capture_output=True)


def add(name: str, *, up: bool = True) -> None:
    """A vcan interface that takes classic and FD frames."""
    ip("link", "add", name, "type", "vcan")
    ip("link", "set", name, "mtu", "72")
    if up:
        ip("link", "set", name, "up")


def remove(name: str) -> None:
    ip("link", "del", name)


@contextmanager
def vcan(*names: str) -> Iterator[None]:
    """The interfaces `names`, up; gone afterwards."""
    for name in names:
        add(name)
    try:
        yield
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):  # the test removed it
                remove(name)


def cangen(interface: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["cangen", interface, *arguments], stdout=subprocess.DEVNULL)


def canplayer(log: Path, buses: Sequence[str], *, timed: bool = False) -> subprocess.Popen[bytes]:
    """Plays `log`, by its times or as fast as it can; the log's bus names are interfaces."""
    how = ["-g", "5"] if timed else ["-t"]
    return subprocess.Popen(["canplayer", *how, "-I", str(log), *(f"{bus}={bus}" for bus in buses)])


def counting_log(log: Path, bus: str, *, frames_per_s: float, seconds: float) -> int:
    """Writes a log of frames that count up, for canplayer, which keeps to its times on a busy machine as well."""
    count = round(frames_per_s * seconds)
    with log.open("w") as file:
        for number in range(count):
            file.write(f"({1_000 + number / frames_per_s:.6f}) {bus} 123#{number.to_bytes(8, 'little').hex()}\n")
    return count
