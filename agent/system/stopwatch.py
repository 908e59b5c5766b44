"""Says how long the present step of some work has taken, so that a step that hangs can be found from outside."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Times one step after the other."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    @property
    def seconds(self) -> float:
        """The time that the present step has taken so far, or 0 if there is none."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Time a `with` block."""
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._since_s = None
