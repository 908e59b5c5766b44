"""Descriptors that outlive their user: sockets with frames in their kernel buffers, for a successor to read.

The successor is the agent of the next configuration in this process, or the next process: the process keeps duplicates,
and so does the file descriptor store of the service manager (sd_pid_notify_with_fds(3): FDSTORE), which passes them to
the next process (sd_listen_fds_with_names(3)), also after a crash.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Final

from agent.system.sd_notify import Notifier

_FIRST: Final = 3
"""The number of the first descriptor that a service manager passes (SD_LISTEN_FDS_START)."""


class Descriptors:
    """Descriptors by name.  A name has no colon, because LISTEN_FDNAMES separates names with it."""

    def __init__(self, notifier: Notifier, inherited: Mapping[str, int]) -> None:
        """Take over the descriptors in `inherited` (see the function of that name) and close them when dropped."""
        self._notifier = notifier
        self._kept = dict(inherited)

    def names(self) -> tuple[str, ...]:
        """Return the names of all descriptors that are kept."""
        return tuple(self._kept)

    def take(self, name: str) -> int | None:
        """Return a duplicate of the descriptor of that name, which the caller closes; None if there is none."""
        return os.dup(self._kept[name]) if name in self._kept else None

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate of `descriptor` under `name`, in place of any other."""
        self.drop(name)
        self._kept[name] = os.dup(descriptor)
        self._notifier.store(name, descriptor)

    def drop(self, name: str) -> None:
        """Close the descriptor of that name and let the service manager forget it; do nothing if there is none."""
        descriptor = self._kept.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
            self._notifier.forget(name)


def inherited(environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """Return the descriptors that the service manager passed to this process, by name.

    The variables are removed from `environment`, so a second call finds nothing, and child processes do not take the
    descriptors for theirs.
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
        # A descriptor without a name, or with a name twice, is none that we stored: it would stay open for ever.
        if not name or name in found:
            os.close(descriptor)
        else:
            found[name] = descriptor
    return found
