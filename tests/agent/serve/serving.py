"""Runs the server for tests, on a free port of loopback."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agent.formats.down.validity import Moment
from agent.serve.http import Route, Server

TODAY_S = 1_782_892_800
"""2026-07-01 08:00 UTC."""
TODAY = Moment(TODAY_S, TODAY_S, TODAY_S)


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
