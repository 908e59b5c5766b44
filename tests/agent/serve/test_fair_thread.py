"""Calls of many users run one at a time in a thread, and the users take turns."""

import asyncio
import threading

import pytest

from agent.serve.fair_thread import FairThread
from lab.process import PATIENCE_S


def test_a_user_waits_for_one_call_of_another_user_however_many_it_makes() -> None:
    order: list[str] = []

    async def run() -> None:
        thread, free = FairThread(), threading.Event()
        running = asyncio.create_task(thread.run(1, lambda: free.wait(PATIENCE_S)))
        greedy = [asyncio.create_task(thread.run(1, lambda n=n: order.append(f"greedy {n}"))) for n in range(1, 20)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(thread.run(2, lambda: order.append("modest")))
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(running, *greedy, modest)

    asyncio.run(run())
    assert order.index("modest") <= 1
    assert [each for each in order if each != "modest"] == [f"greedy {n}" for n in range(1, 20)]


def test_the_event_loop_goes_on_while_a_call_runs_and_no_two_calls_run_at_once() -> None:
    running, most, passes = 0, 0, 0

    def slow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.05)
        running -= 1

    async def run() -> None:
        nonlocal passes
        thread = FairThread()
        calls = asyncio.gather(*(thread.run(user, slow) for user in range(4)))
        while not calls.done():
            passes += 1
            await asyncio.sleep(0.001)

    asyncio.run(run())
    assert most == 1
    assert passes > 10


def test_a_call_that_fails_or_is_cancelled_does_not_stop_the_others() -> None:
    ran: list[int] = []

    def fail() -> None:
        raise ValueError("mistake")

    async def run() -> None:
        thread, free = FairThread(), threading.Event()
        running = asyncio.create_task(thread.run(1, lambda: free.wait(PATIENCE_S)))
        waiting = [asyncio.create_task(thread.run(n % 3, lambda n=n: ran.append(n))) for n in range(9)]
        failing = asyncio.create_task(thread.run(1, fail))
        await asyncio.sleep(0.01)
        for cancelled in (running, *waiting[::2]):
            cancelled.cancel()
        free.set()
        with pytest.raises(ValueError, match="mistake"):
            await failing
        await asyncio.gather(*waiting[1::2])
        assert await thread.run(7, lambda: "still working") == "still working"

    asyncio.run(run())
    assert sorted(ran) == [1, 3, 5, 7]


def test_a_turn_that_comes_at_the_moment_of_a_cancellation_is_passed_on() -> None:
    async def run() -> None:
        thread, free = FairThread(), threading.Event()

        async def cancel_the_next() -> None:
            await thread.run(1, lambda: free.wait(PATIENCE_S))
            second.cancel()  # which has just got its turn, but does not run yet

        first = asyncio.create_task(cancel_the_next())
        await asyncio.sleep(0)
        second = asyncio.create_task(thread.run(1, lambda: None))
        third = asyncio.create_task(thread.run(1, lambda: "third"))
        await asyncio.sleep(0)
        free.set()
        assert await asyncio.wait_for(third, PATIENCE_S) == "third"
        await first
        assert second.cancelled()

    asyncio.run(run())
