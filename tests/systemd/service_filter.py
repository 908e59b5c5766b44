"""Runs a program under the filter of system calls that the service's unit asks systemd for.

    python tests/systemd/service_filter.py UNIT PROGRAM ARGUMENT...

systemd-analyze tells the names behind sets such as @system-service, and the kernel's header the numbers.
"""

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
REFUSED = 0x0005_0000 | 1  # SECCOMP_RET_ERRNO with EPERM, as SystemCallErrorNumber= of the unit
ALLOWED = 0x7FFF_0000


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def lacks() -> str:
    """Return what this machine lacks to play systemd's filter, or nothing."""
    if os.uname().machine != "x86_64" or not HEADER.exists():
        return f"only on x86-64, with {HEADER} (apt-get install linux-libc-dev)"
    return ""


def numbers() -> dict[str, int]:
    """Return the number of every system call of the kernel's header."""
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", HEADER.read_text())}


def names_of(word: str) -> set[str]:
    """Return the system calls of a set such as @process, or the one that is named."""
    if not word.startswith("@"):
        return {word}
    command = ["systemd-analyze", "syscall-filter", word]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    members = [line.split()[0] for line in lines if line.strip() and not line.strip().startswith("#")]
    return set().union(*map(names_of, members))


def allowed_by(unit: str) -> set[str]:
    """Return the names of the system calls that a unit allows: the first line allows, later lines add or take away."""
    allowed = names_of("@default")  # systemd.exec(5) allows this set wherever a list allows anything
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        found = set().union(*map(names_of, line.removeprefix("~").split()))
        allowed = allowed - found if line.startswith("~") else allowed | found
    return allowed


def install(names: set[str]) -> None:
    """Refuse all other system calls to this process, and to the programs that it starts."""
    known = numbers()
    program = [struct.pack("<HBBI", 0x20, 0, 0, 0)]
    for number in sorted(known[name] for name in names if name in known):
        program += [struct.pack("<HBBI", 0x15, 0, 1, number), struct.pack("<HBBI", 0x06, 0, 0, ALLOWED)]
    program.append(struct.pack("<HBBI", 0x06, 0, 0, REFUSED))
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.byref(Program(len(program), b"".join(program)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, pointer, 0, 0):  # no new privileges, then the filter
        raise OSError(ctypes.get_errno(), "the kernel refuses the filter")


if __name__ == "__main__":
    install(allowed_by(Path(sys.argv[1]).read_text()))
    os.execvp(sys.argv[2], sys.argv[2:])
