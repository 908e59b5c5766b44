"""Shares the connections of the loopback server among the apps, so that no app can shut out the others.  Pure.

If CONNECTIONS connections are open, a new connection takes the place of another one, which is closed.  The user (in the
sense of the operating system) with the most connections must give up one.  This is the connection on which the server
has waited for the client for the longest time.  If the server is preparing answers on all connections of this user, the
user gives up one of these, unless the new connection is from the same user.  Then the new connection is refused.

An app that opens connections all the time therefore displaces only its own connections, if each app has its own user.
It never displaces a connection on which it waits for an answer.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

CONNECTIONS: Final = 64
"""The greatest number of connections at one time, from the apps of one head unit; each takes a few kilobytes."""


class Connection:
    """One open connection.

    `user` is the id of the user who opened it, or None if the kernel does not say so.  `close` closes the connection.
    """

    def __init__(self, user: int | None, close: Callable[[], object], now_s: float) -> None:
        self.user = user
        self.close = close
        self.answering = False
        self.waiting_since_s = now_s

    def begin_answer(self) -> None:
        """Note that the client has sent a whole request."""
        self.answering = True

    def await_client(self, now_s: float) -> None:
        """Note that the server now waits for the client: to take the answer, and to send the next request."""
        self.answering = False
        self.waiting_since_s = now_s


class Connections:
    """Holds the open connections of one server."""

    def __init__(self, limit: int = CONNECTIONS) -> None:
        self._limit = limit
        self._open: set[Connection] = set()

    def admit(self, new: Connection) -> bool:
        """Add a connection, after closing another if the limit is reached.  Return False if no other can be closed."""
        if len(self._open) >= self._limit:
            held = Counter(each.user for each in (*self._open, new))
            most = max(held.values())
            crowd = [each for each in self._open if held[each.user] == most]
            waiting = [each for each in crowd if not each.answering]
            if not waiting and held[new.user] == most:
                return False
            displaced = min(waiting or crowd, key=lambda each: each.waiting_since_s)
            self._open.discard(displaced)
            displaced.close()
        self._open.add(new)
        return True

    def discard(self, ended: Connection) -> None:
        """Remove a connection that has ended."""
        self._open.discard(ended)
