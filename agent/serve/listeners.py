"""Opens the addresses of the server, and tries again where that fails, while the rest of the agent goes on.

Invariant: an address that another program holds ends nothing.  The log and an event say once that the address is not
open, and why.  The agent tries again every RETRY_S seconds; when it succeeds, another event says so.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import structlog

from agent.errors import Transient
from agent.serve.addresses import Address, address_of
from agent.serve.http import Server

NOT_LISTENING: Final = "not_listening"
"""The kind of the event that names an address which cannot be opened, with the reason."""
LISTENING_AGAIN: Final = "listening_again"
RETRY_S: Final = 2.0
"""The wait is short, because apps need the real toggles, and an attempt costs only two system calls."""

log = structlog.get_logger()


class Listeners:
    """Serves at several addresses while an `async with` block runs.  `run` opens what could not be opened on entry.

    `report` takes the kind and the fields of an event.
    """

    def __init__(
        self,
        server: Server,
        addresses: Sequence[Address],
        report: Callable[[str, Mapping[str, str]], object],
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._server = server
        self._addresses = addresses
        self._report = report
        self._retry_s = retry_s
        self._problems: dict[str, str] = {}
        self._open: dict[str, str] = {}

    async def __aenter__(self) -> "Listeners":
        await self._open_missing()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.close()
        for address in self._addresses:
            if address.name in self._open:
                address.close()

    async def run(self) -> None:
        """Open the missing addresses.  Runs until all are open, or until cancelled."""
        while self._problems:
            await asyncio.sleep(self._retry_s)
            await self._open_missing()

    def status(self) -> list[dict[str, Any]]:
        """Return each address with its problem, which is None if the agent listens there."""
        return [
            {"address": self._open.get(each.name, each.name), "problem": self._problems.get(each.name)}
            for each in self._addresses
        ]

    async def _open_missing(self) -> None:
        for address in self._addresses:
            if address.name in self._open:
                continue
            try:
                listener = address.open()
            except Transient as error:
                self._note(address.name, str(error))
                continue
            await self._server.listen(listener)
            self._open[address.name] = address_of(listener)
            log.info("serving", address=self._open[address.name])
            if self._problems.pop(address.name, None) is not None:
                self._report(LISTENING_AGAIN, {"address": address.name})

    def _note(self, name: str, reason: str) -> None:
        if name not in self._problems:
            effect = f"telemetry goes on, and the agent tries again every {self._retry_s:g} s"
            log.error(NOT_LISTENING, address=name, reason=reason, effect=effect)
            self._report(NOT_LISTENING, {"address": name, "reason": reason})
        self._problems[name] = reason
