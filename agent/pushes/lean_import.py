"""Import python-tuf without what the verifier does not need, which would take a third of its start.

- Its HTTP library: the verifier takes all files from a bundle (agent/pushes/updater.py) and can open no socket.
- A library for PKCS#11 tokens, if one is installed: the verifier holds no key.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

_HTTP: Final = "tuf.ngclient.urllib3_fetcher"
_TOKENS: Final = "pkcs11"


class _NoFetcher:
    """Takes the place of python-tuf's fetcher, which nothing here uses."""


@contextmanager
def lean() -> Iterator[None]:
    """Give python-tuf stand-ins for modules that are not imported yet, while the `with` block imports it."""
    fetcher = ModuleType(_HTTP)
    fetcher.Urllib3Fetcher = _NoFetcher  # type: ignore[attr-defined]
    # None makes the import fail, which securesystemslib takes for "not installed".
    stand_ins: dict[str, ModuleType | None] = {_HTTP: fetcher, _TOKENS: None}
    hidden = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
