"""A small HTTP/1.1 server for the apps of the head unit: h11 on asyncio streams, loopback only.

Invariants:

- The server binds to 127.0.0.1 or ::1 and to nothing else.
- A request, its headers, the time that a client may take and the number of clients are all limited.
- A handler that raises an AgentError costs its caller a status 500, and other callers nothing.
- A page in a browser cannot reach the server: requests with an Origin, or with a Host that is not loopback (DNS
  rebinding), are refused.
"""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, cast

import h11
import structlog

from agent.errors import AgentError, Permanent

BODY_BYTES: Final = 64_000
"""The size limit of a request's body; an evaluation context has a few hundred bytes."""
HEADER_BYTES: Final = 16_000
IDLE_S: Final = 30.0
"""How long a connection is kept between two requests."""
REQUEST_S: Final = 5.0
"""How long a request may take from its first byte to its last."""
CONNECTIONS: Final = 64
"""The greatest number of clients, which are the apps of one head unit; each costs a few kilobytes."""
_READ_BYTES: Final = 16_384

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Request:
    """One request.  `path` has no query and is percent-encoded as it came; names of `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of a handler; the server adds Content-Length and Content-Type."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


Handler = Callable[[Request], Response | Coroutine[Any, Any, Response]]


def json_response(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as a JSON response; floats keep their point (10.0)."""
    return Response(status, json.dumps(content, separators=(",", ":")).encode(), headers or {})


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path with their handler; a path that ends in `/*` stands for everything below it."""

    method: str
    path: str
    handler: Handler

    def fits(self, path: str) -> bool:
        """Return whether this route serves `path`."""
        if self.path.endswith("/*"):
            return path.startswith(self.path[:-1]) and len(path) >= len(self.path)
        return path == self.path


class Server:
    """The server, as an asynchronous context manager that serves until its block ends.

    Port 0 takes a free port, which `port` then is.  Handlers run on the event loop, so they must be quick, or
    coroutines.  Entering raises Permanent where the address is not loopback or is taken.
    """

    def __init__(self, routes: tuple[Route, ...], *, host: str = "127.0.0.1", port: int) -> None:
        self._routes = routes
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Server":
        if not _is_loopback(self._host):
            raise Permanent(f"serve.host {self._host!r}: the local interface has no passwords, use 127.0.0.1 or ::1")
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=_READ_BYTES)
        except OSError as error:
            raise Permanent(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}; choose another port"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            # One client too many is closed without an answer, which costs no memory.
            if len(self._clients) <= CONNECTIONS:
                await _Conversation(self._answer, reader, writer).run()
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The client went or was too slow, or the server stops; an answer would reach no one.
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request) -> Response:
        # Browsers send Origin with every cross-origin POST, and apps of the head unit never do.
        if "origin" in request.headers or not _is_loopback(_host_name(request.headers.get("host", "localhost"))):
            return json_response(
                403, {"errorDetails": "this interface is for apps of the head unit, not for web pages"}
            )
        routes = [route for route in self._routes if route.fits(request.path)]
        if not routes:
            return json_response(404, {"errorDetails": f"nothing at {request.path}"})
        for route in routes:
            if route.method == request.method:
                return await self._handle(route, request)
        allowed = ", ".join(route.method for route in routes)
        return json_response(405, {"errorDetails": f"use {allowed}"}, {"Allow": allowed})

    async def _handle(self, route: Route, request: Request) -> Response:
        try:
            response = route.handler(request)
            return await response if isinstance(response, Coroutine) else response
        except AgentError as error:
            log.error("request_failed", path=route.path, error=str(error))
            return json_response(500, {"errorDetails": str(error)})


class _Conversation:
    """One connection, which takes requests one after the other."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._answer = answer
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        self._method = b""

    async def run(self) -> None:
        while True:
            try:
                request = await self._request()
                response = None if request is None else await self._answer(request)
            except h11.RemoteProtocolError as error:
                # h11 knows which status its own limits call for, such as 431 for headers that are too long.
                response = json_response(error.error_status_hint, {"errorDetails": str(error)})
            if response is None:
                return
            await self._send(response)
            # After an error, or `Connection: close`, h11 allows no further request on this connection.
            if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _request(self) -> Request | None:
        """Return the next request, or None at the end of the connection.

        Raises: TimeoutError, or RemoteProtocolError for what is not HTTP.
        """
        # A client may send its next request before it has read the answer; h11 then holds those bytes already.
        if self._protocol.trailing_data == (b"", False):
            # An idle app may keep its connection for long, but a request that has begun must end soon.
            async with asyncio.timeout(IDLE_S):
                self._protocol.receive_data(await self._reader.read(_READ_BYTES))
        async with asyncio.timeout(REQUEST_S):
            head = await self._event()
            # h11 reports the end of the connection as an event of its own.
            if not isinstance(head, h11.Request):
                return None
            self._method = head.method
            body = bytearray()
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                # The announced length is not to be trusted, so the limit applies to what has arrived.
                if len(body) > BODY_BYTES:
                    raise h11.RemoteProtocolError(f"at most {BODY_BYTES} bytes", error_status_hint=413)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        path = head.target.decode("latin-1").partition("?")[0]
        return Request(head.method.decode("latin-1"), path, headers, bytes(body))

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._protocol.next_event()
            if event is not h11.NEED_DATA:
                return cast("h11.Event | type[h11.PAUSED]", event)
            # RFC 9110, section 10.1.1: such a client sends the body only after this interim answer.
            if self._protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._protocol.send(go_on) or b"")
            self._protocol.receive_data(await self._reader.read(_READ_BYTES))

    async def _send(self, response: Response) -> None:
        # RFC 9110, sections 9.3.2, 15.3.5 and 15.4.5: no body after HEAD, nor with 204 or 304.
        has_body = response.status not in (204, 304) and self._method != b"HEAD"
        headers = [(name, value) for name, value in response.headers.items()]
        if has_body:
            headers += [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
        head = h11.Response(status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase)
        out = self._protocol.send(head) or b""
        if has_body:
            out += self._protocol.send(h11.Data(data=response.body)) or b""
        out += self._protocol.send(h11.EndOfMessage()) or b""
        self._writer.write(out)
        async with asyncio.timeout(REQUEST_S):
            await self._writer.drain()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(header: str) -> str:
    """Return the host of a Host header such as `127.0.0.1:8016`, `[::1]:8016` or `localhost`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
