"""Finish work in asyncio that a cancelled task must not leave half done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end; if the caller is cancelled meanwhile, raise CancelledError only afterwards.

    An error of `work` is raised, unless the caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The shield was cancelled, but not the work.  A commit to the disk, for example, goes on in its thread.
        await asyncio.wait({task})
        # The caller gets its cancellation only.  An error of `work` is retrieved, because asyncio would print it.
        if not task.cancelled():
            task.exception()
        raise
