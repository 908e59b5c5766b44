"""Keep the vehicle connected to the broker, by the state table of `agent.link.session`.

Invariants: however a connection ends, the next attempt waits for the back-off and uses a fresh client.  The log has one
line when the link comes online and one when the problem changes, not one for each attempt.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import structlog

from agent.errors import AgentError, Permanent, ungrouped
from agent.link.endpoint import Endpoint
from agent.link.mqtt import Connection, connect
from agent.link.session import Backoff, Event, Session, State

log = structlog.get_logger()

Online = Callable[[Connection], Awaitable[None]]
Connect = Callable[[Endpoint], AbstractAsyncContextManager[Connection]]


class LinkKeeper:
    """Opens one connection after the other, and waits for the back-off in between."""

    def __init__(self, endpoint: Endpoint, backoff: Backoff, *, connect: Connect = connect) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._session = Session(backoff)
        self.problem: str | None = None
        """The reason why there is no connection; None while connected and before the first attempt has failed."""
        self.connections = 0
        """The number of connections that were made."""

    @property
    def state(self) -> State:
        """Return the present state of the link."""
        return self._session.state

    def set_endpoint(self, endpoint: Endpoint, backoff: Backoff) -> None:
        """Use another endpoint and other waits from the next connection on.  The present connection stays."""
        self._endpoint = endpoint
        self._session = msgspec.structs.replace(self._session, backoff=backoff)

    async def run(self, online: Online) -> None:
        """Connect again and again until cancelled, and call `online` with each connection.

        `online` works on its connection until the connection ends.
        """
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
            # `online` runs its work in a task group, so even a lost connection arrives as an ExceptionGroup.  A group
            # with a programming error is not caught here, because connecting again would hide the error.
            with ungrouped():
                async with self._connect(self._endpoint) as connection:
                    self._after(Event.CONNECTED)
                    log.info("link_online", broker=str(self._endpoint))
                    self.problem = None
                    self.connections += 1
                    await online(connection)
        except AgentError as error:
            problem = error
        self._ended(problem)

    def _ended(self, problem: AgentError | None) -> None:
        lost = self._session.state is State.ONLINE
        text = "the broker closed the connection; the agent connects again" if problem is None else str(problem)
        if text != self.problem:
            tell = log.error if isinstance(problem, Permanent) else log.warning
            tell("link_lost" if lost else "link_failed", broker=str(self._endpoint), reason=text)
        self.problem = text
        self._after(Event.LOST if lost else Event.FAILED)

    def _after(self, event: Event) -> None:
        jitter = random.random()  # noqa: S311  (spreads load, protects nothing)
        self._session = self._session.after(event, now_s=time.monotonic(), jitter=jitter)
