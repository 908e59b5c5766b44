"""Descriptors that outlive their user: sockets whose kernel buffers the next configuration or process shall go on with.

Within the process they are kept as duplicates; where the agent runs under a service manager, its file descriptor store
has them too (sd_pid_notify_with_fds(3): FDSTORE) and passes them to the next process (sd_listen_fds_with_names(3)).
"""

import os
from collections.abc import Mapping, MutableMapping

from agent.system.sd_notify import Notifier

_FIRST = 3  # SD_LISTEN_FDS_START


class Descriptors:
    """Descriptors by name.  Names hold no colon."""

    def __init__(self, notifier: Notifier, inherited: Mapping[str, int]) -> None:
        """`inherited`: see `inherited`; they are ours to close."""
        self._notifier = notifier
        self._kept = dict(inherited)

    def names(self) -> tuple[str, ...]:
        """What is kept."""
        return tuple(self._kept)

    def take(self, name: str) -> int | None:
        """A duplicate of the descriptor of that name, for the caller to close."""
        return os.dup(self._kept[name]) if name in self._kept else None

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate under that name, in the place of any other."""
        self.drop(name)
        self._kept[name] = os.dup(descriptor)
        self._notifier.store(name, descriptor)

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        descriptor = self._kept.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
            self._notifier.forget(name)


def inherited(environment: MutableMapping[str, str] = os.environ) -> dict[str, int]:
    """What the service manager passed to this process, by name; to be asked once, it takes the variables away."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, int] = {}
    for number in range(int(count)):
        descriptor = _FIRST + number
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) else ""
        if not name or name in found:
            os.close(descriptor)
        else:
            found[name] = descriptor
    return found
