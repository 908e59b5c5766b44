"""A cancelled task waits for work that must not stay half done."""

import asyncio
import gc

import pytest

from agent.system.tasks import whole


def test_a_cancelled_caller_waits_for_the_work_and_its_error_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0.05)
        ended.append("work")
        raise ValueError("too late")

    async def cancelled() -> None:
        caller = asyncio.create_task(whole(fails()))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended == ["work"]

    asyncio.run(cancelled())
    gc.collect()
    assert not caplog.records


def test_an_error_of_the_work_reaches_a_caller_that_waits() -> None:
    async def fails() -> None:
        raise ValueError("in time")

    with pytest.raises(ValueError, match="in time"):
        asyncio.run(whole(fails()))
