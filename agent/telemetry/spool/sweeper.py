"""The sweeper removes the files of acknowledged batches some time after the acknowledgement.

An unlink waits for the file system's journal, and an acknowledgement must not wait.  An acknowledgement therefore only
notes the names of the files here (`doom`), and `sweep` removes the files later.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

from agent.telemetry.spool.names import BatchName


class Sweeper:
    """Holds the names of files to remove.

    `remove` removes the file with a given name.  `ready` returns whether files may be removed now.
    """

    def __init__(self, remove: Callable[[BatchName], None], ready: Callable[[], bool]) -> None:
        self._remove = remove
        self._ready = ready
        self._doomed: deque[tuple[BatchName, int]] = deque()
        # Both counters only grow, and one thread at a time writes each, so their difference needs no lock.
        self._doomed_bytes = self._swept_bytes = 0
        self._sweeping = threading.Lock()

    def doom(self, batches: Iterable[tuple[BatchName, int]]) -> None:
        """Note the files of batches for removal by `sweep`.  Each name is given with the size of the file in bytes.

        The caller must never use these names again.  One thread at a time may call this method.
        """
        for batch in batches:
            self._doomed.append(batch)
            self._doomed_bytes += batch[1]

    @property
    def doomed(self) -> tuple[int, int]:
        """Return the number and the bytes of the files that wait for `sweep`."""
        return len(self._doomed), self._doomed_bytes - self._swept_bytes

    def sweep(self) -> None:
        """Remove the files that `doom` has noted.  If `ready` returns False, no file is removed yet.

        Any thread may call this method; a second caller waits for the first.  Raises nothing: if a file cannot be
        removed, the next call tries again.
        """
        with self._sweeping:
            if not self._doomed or not self._ready():
                return
            for _ in range(len(self._doomed)):
                name, size = self._doomed.popleft()
                try:
                    self._remove(name)
                    self._swept_bytes += size
                except OSError:
                    self._doomed.append((name, size))
