"""Keep file descriptors open after the agent that uses them has ended, so that the next agent can use them.

The descriptors are sockets whose kernel buffers hold frames.  The next agent runs in this process, after a reload, or
in the next process.  This process keeps duplicates of the descriptors.  The service manager keeps duplicates as well
(sd_pid_notify_with_fds(3): FDSTORE), and passes them to the next process, even after a crash
(sd_listen_fds_with_names(3)).
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Final

from agent.system.sd_notify import Notifier

_FIRST: Final = 3
"""The number of the first descriptor that a service manager passes (SD_LISTEN_FDS_START)."""


class Descriptors:
    """Keeps file descriptors by name.  A name must have no colon, because LISTEN_FDNAMES separates names by colons."""

    def __init__(self, notifier: Notifier, inherited: Mapping[str, int]) -> None:
        """Take ownership of the descriptors in `inherited`, a result of this file's function `inherited`."""
        self._notifier = notifier
        self._kept = dict(inherited)

    def names(self) -> tuple[str, ...]:
        """Return the names of all descriptors that are kept."""
        return tuple(self._kept)

    def take(self, name: str) -> int | None:
        """Return a duplicate of the descriptor `name`, which the caller must close, or None if there is none."""
        return os.dup(self._kept[name]) if name in self._kept else None

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate of `descriptor` under `name`, and drop the earlier descriptor of this name."""
        self.drop(name)
        self._kept[name] = os.dup(descriptor)
        self._notifier.store(name, descriptor)

    def drop(self, name: str) -> None:
        """Close the descriptor `name` and the service manager's duplicate of it, if there is such a descriptor."""
        descriptor = self._kept.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
            self._notifier.forget(name)


def inherited(environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """Return the descriptors that the service manager passed to this process, by name.

    The variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are removed from `environment`.  A second call therefore
    finds nothing, and child processes do not mistake the descriptors for their own.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    # LISTEN_PID of another process means that the variables were inherited by accident (sd_listen_fds(3)).
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, int] = {}
    for number in range(int(count)):
        descriptor = _FIRST + number
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) else ""
        # This program stores every descriptor under a name of its own.  A descriptor without a name, or with a name
        # that occurred before, is foreign.  It is closed, because it would otherwise stay open for ever.
        if not name or name in found:
            os.close(descriptor)
        else:
            found[name] = descriptor
    return found
