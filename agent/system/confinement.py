"""Confine a process that only computes, reads and writes descriptors that are open already, and ends.

A fault in a parser may let an intruder run code in such a process.  Five layers then keep the intruder in it.  Each
layer holds by itself, so a kernel without one of them still confines by the others:

1. No new privileges (Linux 3.5): no set-uid program gives privileges.  Landlock and seccomp require this layer.
2. Landlock (Linux 5.13 and newer, if it is not switched off): no file is opened, made, renamed or deleted; no program
   is executed; no other process is traced, and no memory of one is read.  Newer versions forbid more: emptying a file
   (6.2), TCP (6.7), and signals to other processes (6.12).
3. No capabilities (every Linux): no raw socket and no change of user, although the service has CAP_NET_RAW.
4. Limits (every Linux): no file, no socket and no file in memory is opened; no file grows.  A user other than root
   starts no process.
5. seccomp (Linux 3.17 and newer, on x86-64 and aarch64): only the system calls that computing needs.  This layer
   forbids all of the above.  It also forbids asking whether a file exists, changing the mode of a file, starting a
   thread, and making memory executable.

An intruder can still use the open descriptors and the memory of the process, and give a wrong answer.

Some containers and gVisor have no Landlock or no seccomp.  The unit of the service allows the calls that the layers
need (`SystemCallFilter=` in systemd/headunit-agent.service).  If a unit does not allow a call, the layer is reported
as missing.

Sources of the constants: <linux/prctl.h>, <linux/landlock.h>, <linux/capability.h>, <linux/seccomp.h>.
"""

import ctypes
import os
import resource
from collections.abc import Callable, Sequence
from typing import Final

from agent.system.libc import capset, prctl, syscall
from agent.system.syscall_filter import build_filter

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2

# Calls as new as these have the same numbers on all architectures.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Access to files that Landlock can forbid, by the version of Landlock that added it."""
_NETWORK_RIGHTS: Final = {4: 0b11}
"""bind(2) and connect(2) of TCP."""
_SCOPES: Final = {6: 0b11}
"""Abstract Unix sockets and signals, to processes that are confined less."""

_CAPABILITY_VERSION_3: Final = 0x20080522


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> Sequence[str]:
    """Confine this process by all layers, and return the layers that are missing, each with the reason.

    Everything must be imported first, because a confined process reads no file.  The process must have one thread: the
    layers hold for the calling thread, and for the threads that it starts.  No call undoes this one.
    """
    missing = []
    for name, layer in LAYERS.items():
        try:
            layer()
        except (OSError, ValueError) as error:  # ValueError: Python's error for a limit that may not be set
            missing.append(f"{name} ({error})")
    return missing


def forbid_new_privileges() -> None:
    """Keep programs that this process starts from gaining privileges.  Landlock and seccomp require this layer."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, to="forbid new privileges")


def forbid_files() -> None:
    """Forbid by Landlock whatever this kernel's version of Landlock can forbid, with no exception."""
    version = landlock_version()

    def known(rights: dict[int, int]) -> int:
        # A kernel refuses rights that it does not know.
        return sum(bits for since, bits in rights.items() if since <= version)

    ruleset = _Ruleset(known(_FILE_RIGHTS), known(_NETWORK_RIGHTS), known(_SCOPES))
    descriptor = syscall(_LANDLOCK_CREATE_RULESET, ruleset, ctypes.sizeof(ruleset), 0, to="make Landlock's rules")
    try:
        syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0, to="apply Landlock's rules")
    finally:
        os.close(descriptor)


def landlock_version() -> int:
    """Return the version of Landlock that this kernel has.  Raises: OSError if it has none, or if Landlock is off."""
    return syscall(_LANDLOCK_CREATE_RULESET, 0, 0, _LANDLOCK_VERSION, to="tell its version of Landlock")


def drop_capabilities() -> None:
    """Give up all capabilities, because the agent's service has CAP_NET_RAW, which permits raw sockets."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    none = (_Capabilities * 2)()
    capset(header, none, to="drop capabilities")


def forbid_descriptors() -> None:
    """Forbid new descriptors, the growth of files, and new processes, by resource limits."""
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))


def filter_system_calls() -> None:
    """Refuse all system calls that computing does not need (see `agent/system/syscall_filter.py`)."""
    machine, bits = os.uname().machine, 8 * ctypes.sizeof(ctypes.c_void_p)
    # On a 64-bit kernel, a 32-bit program makes its system calls by other numbers, so the filter would kill it.
    program = build_filter(machine) if bits == 64 else None
    if program is None:
        raise OSError(f"the agent has no numbers of system calls for {machine} with {bits} bits")
    # This calls prctl(2) and not seccomp(2).  Older versions of the service's unit allow prctl, and the C library has a
    # function for it.
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _Program(len(program) // 8, program), to="filter system calls")


# The order matters.  Landlock and seccomp require the first layer.  Landlock needs a descriptor, which the limits would
# forbid.  The filter of system calls forbids the calls of all other layers.
LAYERS: Final[dict[str, Callable[[], None]]] = {
    "no new privileges": forbid_new_privileges,
    "Landlock": forbid_files,
    "no capabilities": drop_capabilities,
    "limits": forbid_descriptors,
    "seccomp": filter_system_calls,
}
