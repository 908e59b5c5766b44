"""The filter of system calls says what its documentation says, on both architectures.

The tests run the program in an interpreter of their own, so they need neither the kernel nor the architecture.
"""

import os
import re
import struct
from pathlib import Path

import pytest

from agent.system.syscall_filter import AARCH64, ALLOWED, KILLED, NO_CODE, X86_64, build_filter

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
AUDIT = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}
BOTH = pytest.mark.parametrize("architecture", [X86_64, AARCH64])
HEADERS = {
    X86_64: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    AARCH64: Path("/usr/include/asm-generic/unistd.h"),
}
PROT_READ_WRITE, PROT_EXEC = 3, 4


def interpret(program: bytes, number: int, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a classic BPF program as the kernel does, over the `struct seccomp_data` of one system call."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, line = 0, 0
    while True:
        operation, if_true, if_false, k = code[line]
        line += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x15:
                line += if_true if accumulator == k else if_false
            case 0x35:
                line += if_true if accumulator >= k else if_false
            case 0x45:
                line += if_true if accumulator & k else if_false
            case 0x06:
                return int(k)
            case _:
                pytest.fail(f"the kernel would refuse the operation {operation:#x}")


def numbers(table: dict[str, tuple[int, int]] | dict[str, tuple[int, int | None]], architecture: str) -> set[int]:
    column = (X86_64, AARCH64).index(architecture)
    return {number for pair in table.values() if (number := pair[column]) is not None}


@BOTH
def test_every_number_gets_the_answer_of_its_table(architecture: str) -> None:
    program = build_filter(architecture)
    assert program is not None
    allowed, killed = numbers(ALLOWED, architecture), numbers(KILLED, architecture)
    checked = numbers(NO_CODE, architecture)
    for number in range(600):
        expected = ALLOW if number in allowed | checked else KILL if number in killed else EPERM
        assert interpret(program, number, AUDIT[architecture], (0, 4096, PROT_READ_WRITE)) == expected, number


@BOTH
@pytest.mark.parametrize("call", NO_CODE)
def test_no_memory_becomes_executable(architecture: str, call: str) -> None:
    program = build_filter(architecture)
    assert program is not None
    number = NO_CODE[call][(X86_64, AARCH64).index(architecture)]
    for protection in range(8):
        expected = EPERM if protection & PROT_EXEC else ALLOW
        assert interpret(program, number, AUDIT[architecture], (0, 4096, protection)) == expected
        # The upper half of the argument does not hide the lower one.
        assert interpret(program, number, AUDIT[architecture], (0, 4096, protection | 1 << 32)) == expected


@BOTH
def test_a_call_of_another_architecture_kills(architecture: str) -> None:
    program = build_filter(architecture)
    assert program is not None
    others = {0x40000003, 0x40000028, *AUDIT.values()} - {AUDIT[architecture]}  # i386, arm
    assert {interpret(program, 1, audit) for audit in others} == {KILL}


@BOTH
def test_a_call_by_the_x32_interface_kills(architecture: str) -> None:
    program = build_filter(architecture)
    assert program is not None
    for number in (0x40000000, 0x40000001, 0x400001FF, -1):
        assert interpret(program, number, AUDIT[architecture]) == KILL


@BOTH
def test_the_program_is_short_enough_for_the_kernel_and_always_returns(architecture: str) -> None:
    program = build_filter(architecture)
    assert program is not None
    code = list(struct.iter_unpack("<HBBI", program))
    assert len(code) <= 4096  # BPF_MAXINSNS
    for line, (operation, if_true, if_false, _) in enumerate(code):
        if operation & 7 == 5:  # a jump
            assert line + 1 + max(if_true, if_false) < len(code)
    assert code[-1][0] == 0x06


@BOTH
def test_the_numbers_are_those_of_the_kernels_header(architecture: str) -> None:
    header = HEADERS[architecture]
    if not header.exists():
        pytest.skip(f"{header} is missing: apt-get install linux-libc-dev")
    found = dict(re.findall(r"^#define __NR_?(?:3264_)?(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    column = (X86_64, AARCH64).index(architecture)
    for name, pair in (ALLOWED | NO_CODE | KILLED).items():
        number = pair[column]
        assert found.get(name) == (None if number is None else str(number)), name


def test_an_unknown_architecture_has_no_filter() -> None:
    assert build_filter("riscv64") is None


def test_this_machine_has_a_filter() -> None:
    if os.uname().machine not in AUDIT:
        pytest.skip(f"the agent has no numbers for {os.uname().machine}")
    assert build_filter(os.uname().machine)
