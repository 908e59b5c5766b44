"""Test the link keeper with a broker that fails on demand: back-off, new connections, one log line for each change."""

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from agent.errors import AgentError, Permanent, Transient
from agent.link.endpoint import Endpoint
from agent.link.keeper import LinkKeeper
from agent.link.mqtt import Connection
from agent.link.session import Backoff, State

ENDPOINT = Endpoint("broker", 8883, Path("ca"), Path("cert"), Path("key"), "car")
QUICK = Backoff(floor_s=0.001, base_s=0.001, cap_s=0.002)
Line = MutableMapping[str, Any]


class Broker:
    """A broker that fails on demand.  Each of `attempts` is the error of one attempt to connect, or None."""

    def __init__(self, *attempts: AgentError | None) -> None:
        self.attempts = list(attempts)
        self.connections: list[object] = []
        self.closed = 0

    @asynccontextmanager
    async def connect(self, endpoint: Endpoint) -> AsyncIterator[Connection]:
        assert endpoint is ENDPOINT
        error = self.attempts.pop(0) if self.attempts else None
        if error is not None:
            raise error
        self.connections.append(object())
        try:
            yield cast("Connection", self.connections[-1])
        finally:
            self.closed += 1


@contextmanager
def logged() -> Iterator[list[Line]]:
    with capture_logs() as lines:
        yield lines


async def until_online(broker: Broker, keeper: LinkKeeper, *ends: BaseException) -> None:
    """Run the keeper until a connection stays.  Before that, one connection ends with each error of `ends`."""
    left = list(ends)
    stays = asyncio.Event()

    async def online(_: Connection) -> None:
        if left:
            raise left.pop(0)
        stays.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keeper.run(online))
    waiting = asyncio.create_task(stays.wait())
    await asyncio.wait({running, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
    assert keeper.state is State.ONLINE
    assert keeper.problem is None
    running.cancel()
    await asyncio.wait({running})


def keep(broker: Broker, *ends: BaseException, backoff: Backoff = QUICK) -> list[Line]:
    """Run the keeper until a connection stays, and return the log lines."""

    async def run() -> None:
        keeper = LinkKeeper(ENDPOINT, backoff, connect=broker.connect)
        await until_online(broker, keeper, *ends)
        assert keeper.state is State.OFFLINE

    with logged() as lines:
        asyncio.run(run())
    assert broker.closed == len(broker.connections)
    return lines


def test_attempts_that_fail_alike_are_one_line() -> None:
    lines = keep(Broker(*[Transient("nothing listens")] * 5))
    assert [line["event"] for line in lines] == ["link_failed", "link_online"]
    assert lines[0]["reason"] == "nothing listens"
    assert lines[0]["log_level"] == "warning"


def test_another_reason_is_another_line() -> None:
    lines = keep(Broker(Transient("no name"), Transient("no name"), Transient("no answer"), Transient("no answer")))
    assert [line.get("reason") for line in lines] == ["no name", "no answer", None]


def test_what_does_not_mend_itself_is_an_error_and_tried_again_all_the_same() -> None:
    lines = keep(Broker(Permanent("certificate expired"), Permanent("certificate expired")))
    assert [(line["event"], line["log_level"]) for line in lines] == [("link_failed", "error"), ("link_online", "info")]


def test_a_lost_connection_is_followed_by_a_fresh_one() -> None:
    broker = Broker()
    lines = keep(broker, Transient("reset by peer"))
    assert [line["event"] for line in lines] == ["link_online", "link_lost", "link_online"]
    assert len(set(map(id, broker.connections))) == 2


def test_the_reason_is_found_in_the_tasks_of_a_connection() -> None:
    deep = ExceptionGroup("hear", [ExceptionGroup("uplink", [Transient("connection lost")])])
    lines = keep(Broker(), deep)
    assert [line.get("reason") for line in lines] == [None, "connection lost", None]


def test_a_programmers_error_passes_through() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        keep(Broker(), ExceptionGroup("tasks", [Transient("lost"), ValueError("a bug")]))
    assert caught.group_contains(ValueError)


def test_attempts_are_apart_by_the_back_off() -> None:
    async def run() -> float:
        keeper = LinkKeeper(ENDPOINT, Backoff(floor_s=0.05, base_s=0.05, cap_s=0.05), connect=broker.connect)
        started = asyncio.get_running_loop().time()
        await until_online(broker, keeper)
        return asyncio.get_running_loop().time() - started

    broker = Broker(*[Transient("nothing listens")] * 4)
    with logged():
        assert asyncio.run(run()) >= 4 * 0.05


def test_while_there_is_no_connection_the_problem_says_why() -> None:
    async def run() -> None:
        keeper = LinkKeeper(ENDPOINT, Backoff(floor_s=60, base_s=60, cap_s=60), connect=broker.connect)

        async def never(_: Connection) -> None:
            raise AssertionError

        assert (keeper.state, keeper.problem) == (State.OFFLINE, None)
        running = asyncio.create_task(keeper.run(never))
        while keeper.problem is None:
            await asyncio.sleep(0)
        assert (keeper.state, keeper.problem) == (State.BACKING_OFF, "nothing listens")
        running.cancel()
        await asyncio.wait({running})

    broker = Broker(Transient("nothing listens"))
    with logged():
        asyncio.run(run())
