"""Keep the vehicle connected: carries out the state table of `session` with a real clock and real connections.

Invariant: however a connection ends, the next attempt comes after the back-off and uses a fresh client.  The log has
one line for each change of state, not for each attempt.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from agent.errors import AgentError, Permanent, ungrouped
from agent.link.endpoint import Endpoint
from agent.link.mqtt import Connection, connect
from agent.link.session import Backoff, Event, Session, State

log = structlog.get_logger()

Online = Callable[[Connection], Awaitable[None]]
Connect = Callable[[Endpoint], AbstractAsyncContextManager[Connection]]


class LinkKeeper:
    """`run(online)` calls `online(connection)` for each connection that comes about, which works until that ends."""

    def __init__(self, endpoint: Endpoint, backoff: Backoff, *, connect: Connect = connect) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._session = Session(backoff)
        self.problem: str | None = None
        """Why there is no connection; None while there is one, or before the first attempt failed."""

    @property
    def state(self) -> State:
        """The present state of the link."""
        return self._session.state

    async def run(self, online: Online) -> None:
        """Connect again and again, until cancelled."""
        try:
            self._after(Event.START)
            while True:
                await self._once(online)
                await asyncio.sleep(self._session.wait_s(time.monotonic()))
                self._after(Event.WAITED)
        finally:
            self._after(Event.STOP)

    async def _once(self, online: Online) -> None:
        problem: AgentError | None = None
        try:
            # `online` runs its work in a task group, so that even a lost connection arrives as a group. A group with an
            # error of the programmer passes, because connecting again would hide it.
            with ungrouped():
                async with self._connect(self._endpoint) as connection:
                    self._after(Event.CONNECTED)
                    log.info("link_online", broker=str(self._endpoint))
                    self.problem = None
                    await online(connection)
        except AgentError as error:
            problem = error
        self._ended(problem)

    def _ended(self, problem: AgentError | None) -> None:
        lost = self._session.state is State.ONLINE
        text = "the broker closed the connection" if problem is None else str(problem)
        if text != self.problem:
            tell = log.error if isinstance(problem, Permanent) else log.warning
            tell("link_lost" if lost else "link_failed", broker=str(self._endpoint), reason=text)
        self.problem = text
        self._after(Event.LOST if lost else Event.FAILED)

    def _after(self, event: Event) -> None:
        jitter = random.random()  # noqa: S311  (spreads load, protects nothing)
        self._session = self._session.after(event, now_s=time.monotonic(), jitter=jitter)
