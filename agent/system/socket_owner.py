"""Asks the kernel which user owns the other end of a connection on this machine, by TCP or by a Unix socket.

TCP does not say which user is at the other end of a connection, but the kernel does, by sock_diag(7).  One question
costs some 20 µs, however many connections there are; the lists in /proc/net would cost milliseconds.
"""

import socket
import struct
from asyncio.trsock import TransportSocket
from typing import Final

from agent.errors import Transient

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_QUESTION: Final = struct.Struct("=BBBxI")  # struct inet_diag_req_v2: family, protocol, extensions, states
_ENDS: Final = struct.Struct("!HH16s16s12s")  # struct inet_diag_sockid: ports, addresses, and an interface and cookie
_ANSWER: Final = struct.Struct("=4x48x12xII")  # struct inet_diag_msg: user, inode
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST: Final = 1  # NLM_F_REQUEST
_ANY: Final = bytes(4) + b"\xff" * 8  # any interface, and INET_DIAG_NOCOOKIE twice
_ALL_STATES: Final = 0xFFFFFFFF
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: process, user, group


def local_peer_user(connection: TransportSocket | socket.socket) -> int:
    """Return the user id of the process at the other end of a connection by a Unix socket.  Raises: OSError."""
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def peer_user(family: int, here: tuple[str, int], peer: tuple[str, int]) -> int:
    """Return the user id of the process that owns the end `peer` of a connection whose other end is `here`.

    `family` is AF_INET or AF_INET6; each end is an address and a port of this machine.

    Raises: Transient if the peer has closed its end, or the kernel cannot answer.
    """
    ends = _ENDS.pack(peer[1], here[1], socket.inet_pton(family, peer[0]), socket.inet_pton(family, here[0]), _ANY)
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + ends
    header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
            kernel.setblocking(False)  # the kernel answers while it takes the question
            kernel.sendto(header + question, (0, 0))
            answer = kernel.recv(4096)
    except OSError as error:
        raise Transient(f"The kernel does not say which user owns {peer[0]}:{peer[1]}: {error.strerror}.") from error
    if len(answer) < _HEADER.size + _ANSWER.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        raise Transient(f"The kernel knows no owner of {peer[0]}:{peer[1]}; the connection may have ended.")
    user, _ = _ANSWER.unpack_from(answer, _HEADER.size)
    return int(user)
