"""Build the program by which the kernel filters the system calls of a process that only computes.  Pure.

The process may use memory, read and write the descriptors that it has, ask for the time, handle signals, and end.

| system call | answer of the kernel |
|---|---|
| of `ALLOWED` | It is carried out. |
| of `NO_CODE` | It is carried out, unless it would make memory executable; then it fails with EPERM. |
| of `KILLED` | The whole process is killed, because only an intruder makes it. |
| of another architecture (32 bits, x32) | The whole process is killed, because its numbers mean other calls. |
| any other, `open` for example | It fails with EPERM, so that honest code gets an error that names the file. |

The program is a list of classic BPF instructions.  The kernel runs it at each system call, over `struct seccomp_data`:

    offset  0   u32  number of the system call
    offset  4   u32  architecture
    offset 16   u64  arguments, each with its lower half first

Sources of the constants: <linux/seccomp.h>, <linux/filter.h>, <linux/bpf_common.h>, <linux/audit.h>; the numbers of the
system calls are from <asm/unistd_64.h> for x86-64 and from <asm-generic/unistd.h> for aarch64.
"""

import struct
from typing import Final

ALLOWED: Final = {
    # name: (x86-64, aarch64)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
NO_CODE: Final = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Calls whose third argument says whether the memory is executable."""
KILLED: Final = {
    # Other programs and threads.  A thread is refused as well, because aarch64 has one call for both.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    # The memory of other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # The network, and other programs by sockets.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    # Interfaces that would make calls past this filter, or reach deep into the kernel.
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
}

X86_64: Final = "x86_64"
AARCH64: Final = "aarch64"
_AUDIT: Final = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}
_COLUMN: Final = {X86_64: 0, AARCH64: 1}
_X32_BIT: Final = 0x4000_0000
"""x86-64 numbers with this bit call the kernel by the x32 interface, past the numbers of this file."""

_ALLOW: Final = 0x7FFF_0000
_KILL_PROCESS: Final = 0x8000_0000
_EPERM: Final = 0x0005_0000 | 1  # SECCOMP_RET_ERRNO with errno 1

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS: load the 32 bits at an offset
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_BITS: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K

_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_THIRD_ARGUMENT: Final = 16 + 2 * 8
_PROT_EXEC: Final = 4

_Instruction = tuple[int, int, int, int]
"""An operation, how many instructions to skip if its comparison is true or false, and the operand."""


def build_filter(architecture: str) -> bytes | None:
    """Return the program for `architecture` (as `os.uname().machine` names it), or None if this file lacks it."""
    if architecture not in _AUDIT:
        return None
    column = _COLUMN[architecture]
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _AUDIT[architecture]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for table, rule in (
        (ALLOWED, [(_RETURN, 0, 0, _ALLOW)]),
        (KILLED, [(_RETURN, 0, 0, _KILL_PROCESS)]),
        (
            NO_CODE,
            [
                (_LOAD, 0, 0, _THIRD_ARGUMENT),
                (_IF_BITS, 1, 0, _PROT_EXEC),
                (_RETURN, 0, 0, _ALLOW),
                (_RETURN, 0, 0, _EPERM),
            ],
        ),
    ):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                # Every rule ends with a return.  The number is therefore still loaded where the next rule compares it.
                program += [(_IF_EQUAL, 0, len(rule), number), *rule]
    program.append((_RETURN, 0, 0, _EPERM))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
