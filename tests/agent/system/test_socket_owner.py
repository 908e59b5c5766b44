"""Test who owns the other end of a connection, with real sockets."""

import os
import socket

import pytest

from agent.errors import Transient
from agent.system.socket_owner import local_peer_user, peer_user


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_of_this_process_belongs_to_its_user_until_it_ends(family: int, host: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        server.listen()
        client = socket.create_connection(server.getsockname()[:2])
        with server.accept()[0] as accepted:
            ends = accepted.getsockname()[:2], accepted.getpeername()[:2]
            assert peer_user(family, *ends) == os.getuid()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # end without TIME_WAIT
            client.close()
            with pytest.raises(Transient, match="may have ended"):
                peer_user(family, *ends)


def test_the_peer_of_a_unix_socket_is_named_without_a_question_to_the_kernels_tables() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert local_peer_user(here) == os.getuid()
