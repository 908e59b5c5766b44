"""Runs a program with a wall clock that can be moved: `python -m lab.clock FILE MODULE ARGUMENTS`.

FILE holds the offset: nanoseconds, 8 bytes, little-endian.  A write there moves the clock of the running program at
once.  What moves is Python's time.time and time.time_ns, from which our programs take every time that they store, send
or compare.  What does not move: the validity of certificates (OpenSSL and datetime.now keep this machine's clock,
because another one would end all connections), the monotonic clocks, and the machine itself.
"""

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

_OFFSET = struct.Struct("<q")


def write_offset(file: Path, offset_ns: int) -> None:
    """Move the clock of the programs that follow `file`."""
    # One unbuffered write of 8 bytes: a reader that shares the page never sees half of an offset.
    with file.open("r+b" if file.exists() else "w+b", buffering=0) as stream:
        stream.write(_OFFSET.pack(offset_ns))


def _follow(file: Path) -> None:
    with file.open("rb") as stream:
        shared = mmap.mmap(stream.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + _OFFSET.unpack_from(shared)[0] / 1e9
    time.time_ns = lambda: true_ns() + _OFFSET.unpack_from(shared)[0]


def main() -> None:
    """Follow the file, then run the module as `python -m` does."""
    _, file, module, *arguments = sys.argv
    _follow(Path(file))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
