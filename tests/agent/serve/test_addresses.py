"""Test that the agent listens where no other program can answer, or says why it does not, over real sockets."""

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.serve.addresses import PASSED, SOCKET, LoopbackPort, RuntimeSocket, address_of
from agent.serve.http import Server
from agent.serve.listeners import LISTENING_AGAIN, NOT_LISTENING, Listeners
from agent.system.descriptors import Descriptors
from agent.system.sd_notify import Notifier
from lab.process import PATIENCE_S
from lab.vehicle import ask
from tests.agent.serve.test_http import ROUTES

Said = list[tuple[str, Mapping[str, str]]]


def passing(descriptors: Mapping[str, int]) -> Descriptors:
    return Descriptors(Notifier({}), descriptors)


NOTHING_PASSED = passing({})


@pytest.fixture
def holder() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_user_who_holds_the_port_is_named(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        holder = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with holder:
        address = LoopbackPort(host, port_of(holder), NOTHING_PASSED)
        with pytest.raises(Transient, match=f"A program of the user {os.geteuid()} holds the port .*{port_of(holder)}"):
            address.open()


def test_a_port_that_is_bound_and_never_listened_on_is_another_programs_too() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Transient, match="Another program holds the port"):
            LoopbackPort("127.0.0.1", port_of(bound), NOTHING_PASSED).open()


def test_the_port_from_systemd_stays_open_when_the_server_ends(holder: socket.socket) -> None:
    descriptors = passing({PASSED: os.dup(holder.fileno()), "ring-160x8-can0": os.dup(holder.fileno())})
    address = LoopbackPort("127.0.0.1", 1, descriptors)  # the port of agent.toml does not count
    for _ in range(2):
        with address.open() as listener:
            assert address_of(listener) == f"127.0.0.1:{port_of(holder)}"
    assert descriptors.names() == (PASSED, "ring-160x8-can0")


def to_all_interfaces(_: Path) -> socket.socket:
    return socket.create_server(("0.0.0.0", 0))


def datagrams(_: Path) -> socket.socket:
    found = socket.socket(type=socket.SOCK_DGRAM)
    found.bind(("127.0.0.1", 0))
    return found


def not_listening(_: Path) -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found


def unix(folder: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.bind(str(folder / "any"))
    found.listen()
    return found


@pytest.mark.parametrize("make", [to_all_interfaces, datagrams, not_listening, unix])
def test_a_socket_from_systemd_that_is_no_port_of_loopback_is_not_served(
    make: Callable[[Path], socket.socket], tmp_path: Path
) -> None:
    with (
        make(tmp_path) as wrong,
        pytest.raises(Transient, match=r"must be a TCP port of loopback.*correct ListenStream="),
    ):
        LoopbackPort("127.0.0.1", 0, passing({PASSED: os.dup(wrong.fileno())})).open()


def test_every_user_may_connect_to_the_runtime_socket_and_none_finds_it_after_the_end(tmp_path: Path) -> None:
    before = os.umask(0o077)  # as in the service
    try:
        address = RuntimeSocket(tmp_path)
        with address.open():
            assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o666
        address.open().close()  # the file of an agent that was killed is replaced
        address.close()
        assert not (tmp_path / SOCKET).exists()
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("folder", "reason"), [("missing", "No such file"), ("x" * 120, "too long"), ("taken", "a directory")]
)
def test_a_runtime_folder_without_room_for_the_socket_is_named(tmp_path: Path, folder: str, reason: str) -> None:
    if folder != "missing":
        (tmp_path / folder / (SOCKET if folder == "taken" else "")).mkdir(parents=True)
    with pytest.raises(Transient, match=f"{reason}.*state.runtime_folder"):
        RuntimeSocket(tmp_path / folder).open()


def test_a_held_port_is_told_once_and_taken_over_when_it_is_free(tmp_path: Path, holder: socket.socket) -> None:
    port = port_of(holder)
    said: Said = []

    async def run() -> None:
        addresses = (RuntimeSocket(tmp_path), LoopbackPort("127.0.0.1", port, NOTHING_PASSED))

        def report(kind: str, fields: Mapping[str, str]) -> None:
            said.append((kind, fields))

        async with Listeners(Server(ROUTES), addresses, report, retry_s=0.01) as listeners:
            assert b"/nowhere" in await asyncio.to_thread(ask, tmp_path / SOCKET, "GET", "/nowhere")
            trying = asyncio.create_task(listeners.run())
            await asyncio.sleep(0.2)
            assert [each["problem"] is None for each in listeners.status()] == [True, False]
            holder.close()
            await asyncio.wait_for(trying, PATIENCE_S)
            assert [each["problem"] for each in listeners.status()] == [None, None]
            assert b"/nowhere" in await asyncio.to_thread(ask, port, "GET", "/nowhere")

    asyncio.run(run())
    assert [kind for kind, _ in said] == [NOT_LISTENING, LISTENING_AGAIN]
    assert "holds the port" in said[0][1]["reason"]
    assert not (tmp_path / SOCKET).exists()
