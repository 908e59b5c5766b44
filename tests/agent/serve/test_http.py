"""Test the loopback server over real sockets, with well-behaved and misbehaving clients."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from agent.errors import Transient
from agent.serve import http
from agent.serve.http import BODY_BYTES, Request, Response, Route, json_response
from tests.agent.serve.serving import Served, serving

Client = Callable[[bytes], Awaitable[bytes]]


def echo(request: Request) -> Response:
    return json_response(200, {"path": request.path, "body": request.body.decode()})


def fail(request: Request) -> Response:
    raise Transient("the disk is full")


ROUTES = (Route("POST", "/echo", echo), Route("POST", "/below/*", echo), Route("GET", "/fail", fail))


def serve(work: Callable[[Served], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving(ROUTES) as server:
            await work(server)

    asyncio.run(run())


async def talk(server: Served, request: bytes, *, end: bool = True) -> bytes:
    """Send `request` and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    if end:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:  # the server closed without reading all our bytes
        return b""
    finally:
        writer.close()


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1:8016", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join((*lines, "", "")).encode() + body


def test_a_request_is_answered() -> None:
    async def work(server: Served) -> None:
        answer = await talk(server, post("/echo?x=1", b"hello"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(body) == {"path": "/echo", "body": "hello"}

    serve(work)


def test_requests_follow_each_other_on_one_connection_also_pipelined_and_in_pieces() -> None:
    async def work(server: Served) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in post("/echo", b"slow"):
            writer.write(bytes((byte,)))
            await writer.drain()
        writer.write(post("/echo", b"two") + post("/below/x", b"three"))
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        assert [word in answer for word in (b"slow", b"two", b"three")] == [True] * 3
        assert answer.count(b"200 OK") == 3
        writer.close()

    serve(work)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/nowhere"), 404),
        (post("/below/"), 404),
        (b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"HEAD /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /fail HTTP/1.1\r\nHost: [::1]:8016\r\n\r\n", 500),
        (post("/echo", bytes(BODY_BYTES + 1)), 413),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, 431),
        (b"nonsense\r\n\r\n", 400),
        (post("/echo", b"", "Origin: https://example.com"), 403),
        (b"POST /echo HTTP/1.1\r\nHost: attacker.example\r\n\r\n", 403),
    ],
)
def test_what_cannot_be_answered_says_why(request_: bytes, status: int) -> None:
    async def work(server: Served) -> None:
        answer = await talk(server, request_)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer

    serve(work)


def test_who_sends_half_a_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.1)

    async def work(server: Served) -> None:
        assert await talk(server, post("/echo", b"hello")[:-2], end=False) == b""

    serve(work)


def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.1)

    async def work(server: Served) -> None:
        assert await talk(server, b"", end=False) == b""

    serve(work)


def test_the_server_stops_with_clients_connected() -> None:
    async def run() -> None:
        async with serving(ROUTES) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(post("/echo"))
            assert await reader.read(12) == b"HTTP/1.1 200"
        await asyncio.wait_for(reader.read(), 5)
        writer.close()

    asyncio.run(run())
