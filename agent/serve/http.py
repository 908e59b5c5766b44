"""A small HTTP/1.1 server for the apps of the head unit: h11 on asyncio streams, loopback only.

Invariants:

- The server listens only where `addresses` lets it: on loopback, and on a Unix socket.
- The size of a request and of its headers, the time that a client may take, and the number of clients are limited.
- A client that holds connections does not keep other clients out (`connections`).
- If a handler raises an AgentError, the client gets status 500 for this request, and other clients are not affected.
- Web pages cannot use the server.  A request is refused if it has an Origin, or a Host that is not loopback (DNS
  rebinding).
"""

import asyncio
import json
import socket
import time
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

import h11
import msgspec
import structlog

from agent.errors import AgentError, Transient
from agent.serve.addresses import is_loopback
from agent.serve.connections import Connection, Connections
from agent.system.socket_owner import local_peer_user, peer_user

BODY_BYTES: Final = 64_000
"""The size limit of the body of a request; an evaluation context has only a few hundred bytes."""
HEADER_BYTES: Final = 16_000
IDLE_S: Final = 5.0
"""The time for which an idle connection is kept open between two requests; many HTTP servers keep one as long."""
REQUEST_S: Final = 5.0
"""A client may take this long to send a request, and as long again to receive the response."""
_READ_BYTES: Final = 16_384

log = structlog.get_logger()


class Request(msgspec.Struct, frozen=True):
    """One HTTP request.

    `path` has no query and keeps its percent-encoding.  The names in `headers` are in lower case.  `user` is the user
    (in the sense of the operating system) of the client, or None if it is not known.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    user: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a handler; the server adds the headers Content-Length and Content-Type.

    If `stream` is not None, the server sends what it yields in place of `body`, until it ends or the client goes.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None


Owner = Callable[[TransportSocket], int | None]
Handler = Callable[[Request], Response | Coroutine[Any, Any, Response]]


def json_response(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with `content` as JSON; a whole float keeps its decimal point (10.0)."""
    return Response(status, json.dumps(content, separators=(",", ":")).encode(), headers or {})


class Route(msgspec.Struct, frozen=True):
    """A handler for one method and one path; a path that ends in `/*` matches every path below it."""

    method: str
    path: str
    handler: Handler

    def fits(self, path: str) -> bool:
        """Return whether `path` matches the path of this route."""
        if self.path.endswith("/*"):
            return path.startswith(self.path[:-1]) and len(path) >= len(self.path)
        return path == self.path


def _owner(connection: TransportSocket) -> int | None:
    """Return the user of the client, or None if the kernel does not know or the client is gone."""
    try:
        if connection.family == socket.AF_UNIX:
            return local_peer_user(connection)
        return peer_user(connection.family, connection.getsockname()[:2], connection.getpeername()[:2])
    except (OSError, Transient):
        return None


class Server:
    """Serves HTTP on the sockets that `listen` gets, until `close`.

    Handlers run on the event loop, so a handler must either return quickly or be a coroutine.
    """

    def __init__(self, routes: tuple[Route, ...], *, owner: Owner = _owner) -> None:
        self._routes = routes
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._connections = Connections()
        self._owner = owner

    def add_routes(self, routes: tuple[Route, ...]) -> None:
        """Answer requests for these routes as well."""
        self._routes += routes

    async def listen(self, listener: socket.socket) -> None:
        """Serve on `listener`, a socket that listens already, and take ownership of it."""
        self._servers.append(await asyncio.start_server(self._serve, sock=listener, limit=_READ_BYTES))

    async def close(self) -> None:
        """Close all sockets and connections."""
        for server in self._servers:
            server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        connection = Connection(self._owner(writer.get_extra_info("socket")), task.cancel, time.monotonic())
        try:
            # A connection that finds no place is closed without an answer, which takes no memory.
            if self._connections.admit(connection):
                await _Conversation(self._answer, reader, writer, connection).run()
            writer.close()
            # A client that does not take the rest of its answer would keep the answer in memory.
            async with asyncio.timeout(REQUEST_S):
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The client has disconnected, was too slow or had to make room, or the server is stopping, so an answer
            # cannot arrive.
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            self._connections.discard(connection)

    async def _answer(self, request: Request) -> Response:
        # Browsers send Origin with every cross-origin POST, and apps of the head unit never do.
        if "origin" in request.headers or not is_loopback(_host_name(request.headers.get("host", "localhost"))):
            return json_response(
                403,
                {
                    "errorDetails": "this interface is for apps of the head unit, not for web pages; "
                    "send no Origin header, and a loopback address in the Host header"
                },
            )
        routes = [route for route in self._routes if route.fits(request.path)]
        if not routes:
            return json_response(404, {"errorDetails": f"there is nothing at {request.path}; check the path"})
        for route in routes:
            if route.method == request.method:
                return await self._handle(route, request)
        allowed = ", ".join(route.method for route in routes)
        return json_response(405, {"errorDetails": f"{request.path} accepts only {allowed}"}, {"Allow": allowed})

    async def _handle(self, route: Route, request: Request) -> Response:
        try:
            response = route.handler(request)
            return await response if isinstance(response, Coroutine) else response
        except AgentError as error:
            log.error("request_failed", path=route.path, error=str(error))
            return json_response(500, {"errorDetails": str(error)})


class _Conversation:
    """Answers the requests of one connection, one after another."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
    ) -> None:
        self._answer = answer
        self._reader = reader
        self._writer = writer
        self._connection = connection
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        self._method = b""

    async def run(self) -> None:
        while True:
            try:
                request = await self._request()
                self._connection.begin_answer()
                response = None if request is None else await self._answer(request)
            except h11.RemoteProtocolError as error:
                # The error of h11 has the matching status, such as 431 for headers that are too long.
                response = json_response(error.error_status_hint, {"errorDetails": str(error)})
            self._connection.await_client(time.monotonic())
            if response is None:
                return
            await self._send(response)
            # After an error, or `Connection: close`, h11 allows no further request on this connection.
            if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _request(self) -> Request | None:
        """Return the next request, or None at the end of the connection.

        Raises: TimeoutError if the client is too slow; RemoteProtocolError if the request is not HTTP or is too large.
        """
        # A client may send its next request before it has read the response.  h11 then already holds the bytes.
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
                # The announced length cannot be trusted, so the limit applies to the bytes that have arrived.
                if len(body) > BODY_BYTES:
                    raise h11.RemoteProtocolError(
                        f"the body of the request has more than {BODY_BYTES} bytes; send less", error_status_hint=413
                    )
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        path = head.target.decode("latin-1").partition("?")[0]
        return Request(head.method.decode("latin-1"), path, headers, bytes(body), self._connection.user)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._protocol.next_event()
            if event is not h11.NEED_DATA:
                return cast("h11.Event | type[h11.PAUSED]", event)
            # A client with `Expect: 100-continue` sends the body only after this response (RFC 9110, section 10.1.1).
            if self._protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._protocol.send(go_on) or b"")
            self._protocol.receive_data(await self._reader.read(_READ_BYTES))

    async def _send(self, response: Response) -> None:
        # A response to HEAD, or with status 204 or 304, has no body (RFC 9110, sections 9.3.2, 15.3.5 and 15.4.5).
        has_body = response.status not in (204, 304) and self._method != b"HEAD"
        headers = [(name, value) for name, value in response.headers.items()]
        if has_body:
            headers.append(("Content-Type", response.content_type))
        if has_body and response.stream is None:
            headers.append(("Content-Length", str(len(response.body))))
        head = h11.Response(status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase)
        out = self._protocol.send(head) or b""
        if has_body and response.stream is not None:
            await self._write(out)
            async for content in response.stream:
                # A stream that has just been served is not the first one that makes room for another connection.
                self._connection.await_client(time.monotonic())
                await self._write(self._protocol.send(h11.Data(data=content)) or b"")
            out = b""
        elif has_body:
            out += self._protocol.send(h11.Data(data=response.body)) or b""
        await self._write(out + (self._protocol.send(h11.EndOfMessage()) or b""))

    async def _write(self, out: bytes) -> None:
        self._writer.write(out)
        async with asyncio.timeout(REQUEST_S):
            await self._writer.drain()


def _host_name(header: str) -> str:
    """Return the host of a Host header such as `127.0.0.1:8016`, `[::1]:8016` or `localhost`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
