"""The sweeper removes the files of acknowledged batches, so that acknowledging a batch does not wait for the disk.

An unlink waits for the file system's journal.  An acknowledgement therefore only notes the name of the file here.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

from agent.telemetry.spool.names import BatchName


class Sweeper:
    """Holds the names of files to remove.  `remove` removes one, and `ready` says whether any may be removed now."""

    def __init__(self, remove: Callable[[BatchName], None], ready: Callable[[], bool]) -> None:
        self._remove = remove
        self._ready = ready
        self._doomed: deque[tuple[BatchName, int]] = deque()
        # Both counters only grow, and one thread at a time writes each, so their difference needs no lock.
        self._doomed_bytes = self._swept_bytes = 0
        self._sweeping = threading.Lock()

    def doom(self, batches: Iterable[tuple[BatchName, int]]) -> None:
        """Leave the files of batches (with their sizes) to `sweep`.

        Their names are never used again.  One thread at a time may call this method.
        """
        for batch in batches:
            self._doomed.append(batch)
            self._doomed_bytes += batch[1]

    @property
    def doomed(self) -> tuple[int, int]:
        """Return the number and the bytes of the files that wait for `sweep`."""
        return len(self._doomed), self._doomed_bytes - self._swept_bytes

    def sweep(self) -> None:
        """Remove the files that wait.  Any thread may call this method; a second caller waits for the first.

        Raises nothing: a file that cannot be removed is tried again at the next call.
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
