"""Ask the kernel whether a network interface exists, is up, and carries CAN (netdevice(7))."""

import errno
import fcntl
import socket
import struct
from typing import Final

ARPHRD_CAN: Final = 280
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 1


def interface_up(interface: str) -> bool | None:
    """Return whether `interface` is up, or None if there is no interface of that name."""
    flags = _answer(interface, _SIOCGIFFLAGS)
    return None if flags is None else bool(flags & _IFF_UP)


def is_can(interface: str) -> bool | None:
    """Return whether `interface` is a CAN interface, or None if there is no interface of that name."""
    kind = _answer(interface, _SIOCGIFHWADDR)
    return None if kind is None else kind == ARPHRD_CAN


def _answer(interface: str, request: int) -> int | None:
    """Return the number that the kernel answers to `request` about `interface`; None if there is no such interface."""
    # Any socket will do, because netdevice(7) requests are about the interface, not about the socket.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            # struct ifreq: 16 bytes of name, then a union whose first two bytes hold flags or hardware type.
            answer = fcntl.ioctl(any_socket, request, struct.pack("16s24x", interface.encode()))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
    return int(struct.unpack_from("H", answer, 16)[0])
