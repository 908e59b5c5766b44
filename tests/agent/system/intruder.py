"""Tries what an intruder would try in the verifier of pushes.  This program runs on its own, not in pytest:

    python -I tests/agent/system/intruder.py WHERE ATTEMPT TARGETS

WHERE is "verifier" for the real verifier, whose judge is replaced by the attempt (as a fault in a parser would do), or
the names of layers of confinement, with commas, or "nowhere".  The outcome is "done" or the name of the error.  The
verifier returns it as the detail of its verdict, and otherwise it is printed.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
PTRACE_DETACH = 17


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Targets:
    """Holds what the intruder is after: files, a socket, and a secret in the memory of its parent."""

    def __init__(self, key: str, folder: str, server: str, address: int) -> None:
        self.key = Path(key)
        self.folder = Path(folder)
        self.server = server
        self.address = address
        self.parent = os.getppid()


@contextmanager
def prepared(folder: Path, key: Path, secret: "ctypes.Array[ctypes.c_char]") -> Iterator[str]:
    """Make what the intruder is after, for a `with` block, and yield it as the argument TARGETS."""
    (folder / "old").write_bytes(b"old")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "server"))
        server.listen()
        targets = {"key": key, "folder": folder, "server": folder / "server", "address": ctypes.addressof(secret)}
        yield json.dumps(targets, default=str)


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def connect(to: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(to.server)


def fork(_: Targets) -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def execute(_: Targets) -> None:
    os.execv("/bin/echo", ["echo", "done"])


def trace(to: Targets) -> None:
    check(LIBC.ptrace(PTRACE_SEIZE, to.parent, None, None))


def read_memory(to: Targets) -> None:
    found = ctypes.create_string_buffer(6)
    here, there = Vector(ctypes.addressof(found), 6), Vector(to.address, 6)
    check(LIBC.process_vm_readv(to.parent, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))
    assert found.raw == b"secret"


def read_memory_file(to: Targets) -> None:
    with Path(f"/proc/{to.parent}/mem").open("rb", buffering=0) as memory:
        memory.seek(to.address)
        assert memory.read(6) == b"secret"


def start_thread(_: Targets) -> None:
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EPERM, str(error)) from error
    thread.join()


def raise_limits(_: Targets) -> None:
    now = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now + 1, now + 1))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from error


ATTEMPTS: dict[str, Callable[[Targets], Any]] = {
    "open the device key": lambda to: to.key.read_bytes(),
    "open a new file": lambda to: (to.folder / "new").write_bytes(b"new"),
    "empty a file": lambda to: os.truncate(to.folder / "old", 0),
    "delete a file": lambda to: (to.folder / "old").unlink(),
    "rename a file": lambda to: (to.folder / "old").rename(to.folder / "renamed"),
    "make a folder": lambda to: (to.folder / "made").mkdir(),
    "change the mode of a file": lambda to: (to.folder / "old").chmod(0o777),
    "list a folder": lambda to: list(to.folder.iterdir()),
    "ask for a file": lambda to: to.key.stat(),
    "keep a file in memory": lambda to: os.memfd_create("new"),
    "open a socket of TCP": lambda to: socket.socket(socket.AF_INET).close(),
    "open a raw socket": lambda to: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "open a socket of CAN": lambda to: socket.socket(socket.AF_CAN, socket.SOCK_RAW).close(),
    "connect to a Unix socket": connect,
    "fork": fork,
    "start a thread": start_thread,
    "execute a program": execute,
    "run a program": lambda to: subprocess.run(["/bin/true"], check=True),
    "trace the agent": trace,
    "read the agent's memory": read_memory,
    "open the agent's memory": read_memory_file,
    "send the agent a signal": lambda to: os.kill(to.parent, 0),
    "ask for the agent's limits": lambda to: resource.prlimit(to.parent, resource.RLIMIT_NOFILE),
    "raise its own limits": raise_limits,
    "change its user": lambda to: os.setuid(65_534),
    "make memory executable": lambda to: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
}


def outcome(attempt: str, targets: Targets) -> str:
    try:
        ATTEMPTS[attempt](targets)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def main(where: str, attempt: str, targets: str) -> int:
    to = Targets(**json.loads(targets))
    if where == "verifier":
        from agent.pushes import verifier
        from agent.pushes.release import Verdict

        return verifier.main(lambda _: Verdict(detail=outcome(attempt, to)))
    if where != "nowhere":
        from agent.system.confinement import LAYERS

        for layer in where.split(","):
            LAYERS[layer]()
    print(outcome(attempt, to))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
