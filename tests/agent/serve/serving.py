"""Runs the server for tests, on a free port of loopback."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agent.serve.http import Route, Server


class Served(msgspec.Struct, frozen=True):
    port: int


@asynccontextmanager
async def serving(routes: tuple[Route, ...], **settings: Any) -> AsyncIterator[Served]:
    """Serve `routes` for an `async with` block; `settings` are keyword arguments of `Server`."""
    server, listener = Server(routes, **settings), socket.create_server(("127.0.0.1", 0))
    await server.listen(listener)
    try:
        yield Served(listener.getsockname()[1])
    finally:
        await server.close()
