"""Import python-can without asammdf, which python-can imports by itself if it is installed (the extra `mf4`).

Only MF4 logs need asammdf, and a child process reads them (`agent.sources.mf4`).  In the agent itself, asammdf would
only import pandas, pyarrow and lxml, which take 85 MB of memory and make the start seconds slower.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_HEAVY: Final = "asammdf"


@contextmanager
def without_asammdf() -> Iterator[None]:
    """Make python-can believe, while the `with` block imports it, that asammdf is not installed."""
    if _HEAVY in sys.modules:
        yield
        return
    # Python raises ModuleNotFoundError for a module whose entry is None.
    sys.modules[_HEAVY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_HEAVY]
