"""Runs a program with a wall clock that can be moved: `python -m lab.clock FILE MODULE ARGUMENTS`.

FILE holds the offset from the machine's clock in nanoseconds, as 8 bytes in little-endian order.  A write to FILE moves
the clock of the running program at once.

Only Python's time.time and time.time_ns move.  From these two functions, the project's programs take all wall-clock
times that they store, send or compare.  The monotonic clocks do not move.  OpenSSL and datetime.now keep the machine's
clock.  If OpenSSL's clock moved too, certificates could become invalid, and connections would end.
"""

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

_OFFSET = struct.Struct("<q")


def write_offset(file: Path, offset_ns: int) -> None:
    """Write the offset to `file`.  The clocks of all programs that run with this file move at once."""
    # The 8 bytes are written at once and unbuffered, so a program that maps the file never sees half of an offset.
    with file.open("r+b" if file.exists() else "w+b", buffering=0) as stream:
        stream.write(_OFFSET.pack(offset_ns))


def _follow(file: Path) -> None:
    with file.open("rb") as stream:
        shared = mmap.mmap(stream.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    true_s, true_ns = time.time, time.time_ns
    time.time = lambda: true_s() + _OFFSET.unpack_from(shared)[0] / 1e9
    time.time_ns = lambda: true_ns() + _OFFSET.unpack_from(shared)[0]


def main() -> None:
    """Replace Python's wall clock, then run the module as `python -m` does."""
    _, file, module, *arguments = sys.argv
    _follow(Path(file))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
