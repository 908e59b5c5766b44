"""Test that no app, and no number of held connections, keeps other apps from the loopback server."""

import asyncio
import multiprocessing
import os
import socket
import time
from asyncio.trsock import TransportSocket

import pytest

from agent.serve.connections import CONNECTIONS
from agent.serve.http import Request, Response, Route
from agent.serve.toggles import ToggleService
from tests.agent.serve.serving import Served, serving
from tests.agent.serve.test_http import ROUTES, post, talk
from tests.agent.serve.test_toggles import CAR

HALF = post("/echo", b"hello")[:-2]
Held = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


async def hold(server: Served, sent: bytes, count: int = CONNECTIONS) -> Held:
    """Open connections, send `sent` on each, and keep them open."""
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]
    for _, writer in held:
        writer.write(sent)
    await asyncio.sleep(0.05)
    return held


async def ended(held: Held) -> int:
    """Count the connections that the server has closed, and close all."""
    await asyncio.sleep(0.05)
    count = sum(reader.at_eof() or reader.exception() is not None for reader, _ in held)
    for _, writer in held:
        writer.transport.abort()
    return count


@pytest.mark.parametrize("sent", [b"", HALF, post("/echo")], ids=["silent", "half-a-request", "idle-after-an-answer"])
def test_held_connections_shut_nobody_out(sent: bytes) -> None:
    async def run() -> None:
        async with serving(ROUTES) as server:
            held = await hold(server, sent)
            started_s = time.monotonic()
            for _ in range(10):
                assert b"200 OK" in await talk(server, post("/echo"))
            assert time.monotonic() - started_s < 1.0
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(run())


def test_the_user_with_the_most_connections_makes_room_for_others() -> None:
    patient_ports: set[int] = set()

    def owner(connection: TransportSocket) -> int:
        return 1 if connection.getpeername()[1] in patient_ports else 2

    async def run() -> None:
        async with serving(ROUTES, owner=owner) as server:
            patient = []  # the oldest, and so the first to go if users did not count
            for _ in range(8):
                client = socket.socket()
                client.bind(("127.0.0.1", 0))
                patient_ports.add(client.getsockname()[1])
                client.connect(("127.0.0.1", server.port))
                patient.append(await asyncio.open_connection(sock=client))
            greedy = await hold(server, HALF, 5 * CONNECTIONS)
            assert await ended(greedy) == 4 * CONNECTIONS + 8
            assert await ended(patient) == 0

    asyncio.run(run())


def test_a_connection_that_waits_for_its_answer_is_not_closed_for_others() -> None:

    async def slow(_: Request) -> Response:
        await asyncio.sleep(0.5)
        return Response(200, b"late")

    async def run() -> None:
        async with serving((*ROUTES, Route("GET", "/slow", slow))) as server:
            waiting = asyncio.create_task(
                talk(server, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", end=False)
            )
            await asyncio.sleep(0.1)
            held = await hold(server, HALF, 2 * CONNECTIONS)
            for _, writer in held:
                writer.transport.abort()
            assert (await waiting).endswith(b"late")

    asyncio.run(run())


def test_an_app_whose_requests_all_wait_for_answers_does_not_shut_out_the_app_of_another_user() -> None:
    late_ports: set[int] = set()
    answer = asyncio.Event()

    async def slow(_: Request) -> Response:
        await answer.wait()
        return Response(200, b"late")

    def owner(connection: TransportSocket) -> int:
        return 1 if connection.getpeername()[1] in late_ports else 2

    async def run() -> None:
        async with serving((*ROUTES, Route("GET", "/slow", slow)), owner=owner) as server:
            greedy = await hold(server, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            more = await hold(server, b"", 1)  # no room: an app does not displace its own answers
            assert await ended(more) == 1
            client = socket.socket()
            client.bind(("127.0.0.1", 0))
            late_ports.add(client.getsockname()[1])
            client.connect(("127.0.0.1", server.port))
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(post("/echo", b"mine"))
            assert b"mine" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            writer.close()
            assert await ended(greedy) == 1

    asyncio.run(run())


def test_an_app_that_holds_all_event_streams_does_not_shut_out_the_app_of_another_user() -> None:
    late_ports: set[int] = set()

    def owner(connection: TransportSocket) -> int:
        return 1 if connection.getpeername()[1] in late_ports else 2

    async def run() -> None:
        async with serving((*ROUTES, *ToggleService(CAR).routes), owner=owner) as server:
            greedy = await hold(server, b"GET /ofrep/v1/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert all([(await reader.readline()).startswith(b"HTTP/1.1 200") for reader, _ in greedy])
            client = socket.socket()
            client.bind(("127.0.0.1", 0))
            late_ports.add(client.getsockname()[1])
            client.connect(("127.0.0.1", server.port))
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(post("/echo", b"mine"))
            assert b"mine" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            writer.close()
            await ended(greedy)

    asyncio.run(run())


def crowd(port: int) -> None:
    """Open connections all the time as another user, send half a request on each, and hold the latest 200."""
    os.setuid(65534)
    held: list[socket.socket] = []
    while True:
        connection = socket.socket()  # create_connection would import a codec, and this user may not read it
        connection.connect(("127.0.0.1", port))
        connection.sendall(HALF)
        held = [*held, connection][-200:]
        time.sleep(0.002)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_an_app_that_connects_all_the_time_does_not_cut_off_the_app_of_another_user() -> None:
    async def run() -> None:
        async with serving(ROUTES) as server:
            ((reader, writer),) = await hold(server, b"", 1)
            other = multiprocessing.get_context("fork").Process(target=crowd, args=(server.port,), daemon=True)
            other.start()
            try:
                for _ in range(10):
                    await asyncio.sleep(0.1)
                    writer.write(post("/echo", b"mine"))
                    assert b"mine" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            finally:
                assert other.is_alive()
                other.kill()
                other.join()
            writer.close()

    asyncio.run(run())
