"""Run calls that take long in a thread beside the event loop, one at a time and in turn for each user."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from agent.system.tasks import whole

T = TypeVar("T")


class FairThread:
    """Runs calls in one thread.

    The users take turns, so a user waits at most for one call of each other user, however many calls the others make.
    Use an instance from one event loop only.
    """

    def __init__(self) -> None:
        self._waiting: dict[int | None, deque[asyncio.Future[None]]] = {}
        """The waiting calls of each user who has any.  The first user has the next turn."""
        self._busy = False

    async def run(self, user: int | None, call: Callable[[], T]) -> T:
        """Run `call` for `user` in the thread, and return its result or raise its error.

        If the caller is cancelled while `call` waits, `call` never runs.  If `call` runs already, it runs to its end.
        """
        if self._busy:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(user, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # If the turn came just before the cancellation, the next call takes the turn.
                if not turn.cancelled():
                    self._pass_on()
                raise
        self._busy = True
        try:
            return await whole(asyncio.to_thread(call))
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the turn to the next user, and to the oldest call of this user."""
        self._busy = False
        while self._waiting:
            user, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            del self._waiting[user]
            if turns:
                self._waiting[user] = turns  # at the end
            # A cancelled call has left its future behind.
            if not turn.done():
                self._busy = True
                turn.set_result(None)
                return
