"""Runs the agent with faults that a release switches on, because no document that passes the checks makes it fail in
these ways.

A release whose toggles have the flag `fault-NAME` makes the agent misbehave as soon as the release takes effect:

    fault-crash      the process ends at once, as by a segmentation fault
    fault-hang       the event loop stands still
    fault-freeze     native code keeps the interpreter's lock, so that no thread runs and the watchdog is not fed
    fault-leak       memory grows by 20 MB/s, until another release takes effect
    fault-unusable   the release cannot be applied

Example: python -m lab.faulty_agent run --config agent.toml
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from agent.__main__ import main
from agent.errors import Permanent
from agent.formats.down.documents import TOGGLES, Documents
from agent.runtime import apply
from agent.runtime.effects import Change, TogglesEffect

CRASHED: Final = 70
FLAG: Final = "fault-"
_LEAK_STEP_BYTES: Final = 2_000_000
_LEAK_STEP_S: Final = 0.1


class Faults:
    """Switches one fault on at a time."""

    def __init__(self) -> None:
        self._leaking = threading.Event()
        self._leaked: list[bytes] = []
        threading.Thread(target=self._leak, daemon=True).start()

    def switch(self, fault: str) -> None:
        """Switch `fault` on and the others off; an empty name switches all off."""
        if fault == "crash":
            os._exit(CRASHED)
        if fault == "hang":
            time.sleep(3_600)
        if fault == "freeze":
            ctypes.PyDLL(None).sleep(3_600)  # PyDLL, unlike CDLL, keeps the lock
        if fault == "leak":
            self._leaking.set()
        else:
            self._leaking.clear()
            self._leaked.clear()

    def _leak(self) -> None:
        while True:
            self._leaking.wait()
            self._leaked.append(os.urandom(_LEAK_STEP_BYTES))
            time.sleep(_LEAK_STEP_S)


FAULTS: Final = Faults()


class FaultyToggles(TogglesEffect):
    """Serves toggles as the agent does, and then misbehaves if they say so."""

    def prepare(self, documents: Documents) -> Change:
        """Return the change of the agent, followed by the fault."""
        flags = [key for document in documents[TOGGLES.name] for key in msgspec.json.decode(document.content)["flags"]]
        fault = next((flag.removeprefix(FLAG) for flag in flags if flag.startswith(FLAG)), "")
        if fault == "unusable":
            raise Permanent("the test makes this release unusable")
        return _FaultyChange(super().prepare(documents), fault)


class _FaultyChange(msgspec.Struct, frozen=True):
    change: Change
    fault: str

    def write(self) -> None:
        self.change.write()

    def withdraw(self) -> None:
        self.change.withdraw()

    async def switch(self) -> Mapping[str, object]:
        facts = await self.change.switch()
        FAULTS.switch(self.fault)
        return facts


if __name__ == "__main__":
    vars(apply)["TogglesEffect"] = FaultyToggles
    sys.exit(main())
