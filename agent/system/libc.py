"""Call functions of the C library that Python does not offer, and turn their failures into OSError."""

import ctypes
import os
from typing import Any, Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

Argument = int | ctypes.Structure | ctypes.Array[Any]
"""A number, or a structure that is passed by its address."""


def prctl(option: int, *arguments: Argument, to: str) -> None:
    """Change a property of this thread (prctl(2)).  `to` completes the message "the kernel refuses to ...".

    Raises: OSError if the kernel refuses.
    """
    # The kernel refuses some options if an unused argument is not 0.
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _check(_LIBC.prctl(option, *map(_word, padded)), to)


def capset(header: ctypes.Structure, data: ctypes.Array[Any], *, to: str) -> None:
    """Set the capabilities of this thread (capset(2)).

    Raises: OSError if the kernel refuses.
    """
    _check(_LIBC.capset(_word(header), _word(data)), to)


def syscall(number: int, *arguments: Argument, to: str) -> int:
    """Make a system call for which the C library has no function, and return its result.

    Raises: OSError if the kernel refuses.
    """
    return _check(_LIBC.syscall(ctypes.c_long(number), *map(_word, arguments)), to)


def _word(argument: Argument) -> ctypes.c_ulong:
    # A plain int would be passed as a C int, and the upper half of the register would be undefined.
    return ctypes.c_ulong(argument if isinstance(argument, int) else ctypes.addressof(argument))


def _check(result: int, to: str) -> int:
    if result >= 0:
        return result
    code = ctypes.get_errno()
    raise OSError(code, f"the kernel refuses to {to}: {os.strerror(code)}")
