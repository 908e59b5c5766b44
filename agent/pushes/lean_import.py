"""Import the client of python-tuf without its HTTP library, which a quarter of the verifier's start would go to.

The verifier takes all files from a bundle (agent/pushes/updater.py) and can open no socket.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

_HTTP: Final = "tuf.ngclient.urllib3_fetcher"


class _NoFetcher:
    """Takes the place of python-tuf's fetcher, which nothing here uses."""


@contextmanager
def without_http() -> Iterator[None]:
    """Give python-tuf, while the `with` block imports it, a stand-in for the module that imports urllib3."""
    if _HTTP in sys.modules:
        yield
        return
    stand_in = ModuleType(_HTTP)
    stand_in.Urllib3Fetcher = _NoFetcher  # type: ignore[attr-defined]
    sys.modules[_HTTP] = stand_in
    try:
        yield
    finally:
        del sys.modules[_HTTP]
