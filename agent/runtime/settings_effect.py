"""Change the running agent by the settings that the fleet pushes.

Only the components whose settings change take new limits, and all of them keep running: no connection, window or frame
ends because of it.  Limits of the collector hold from the next window on, `keepalive_s` and `backoff_max_s` from the
next connection on, and all others at once.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent.errors import AgentError
from agent.formats.down.documents import SETTINGS, Documents, by_kind, read_documents
from agent.formats.up.columns import Event
from agent.runtime.effects import Change
from agent.settings.remote import laid_over
from agent.settings.sections import Settings, remote_keys
from agent.telemetry.outbox.outbox import Outbox

Parts = Mapping[str, Callable[[Settings], None]]
"""For each section with remote keys, the function that gives the settings to the components.  It cannot fail."""


def settings_of_release(local: Settings, documents: Mapping[str, bytes]) -> Settings:
    """Return the vehicle's own settings with those of the release whose `documents` are given, by path.

    If the release cannot be used, the vehicle's own settings are returned, and applying the release says why.
    """
    try:
        release = by_kind(read_documents(documents, (SETTINGS,)), (SETTINGS,))
    except AgentError:
        return local
    return laid_over(local, (document.value for document in release[SETTINGS.name]))


class SettingsEffect:
    """Gives the pushed settings to the components, and reports by an event which settings have changed."""

    def __init__(self, local: Settings, in_force: Settings, parts: Parts, outbox: Outbox) -> None:
        """Begin with the settings `in_force`, by which the components were built; `local` are the vehicle's own.

        The log is set up before the components are, so it still has the vehicle's own level.
        """
        self._local = local
        self.in_force = msgspec.structs.replace(in_force, log=local.log)
        self._parts = parts
        self._outbox = outbox

    def prepare(self, documents: Documents) -> Change:
        """Return the change that puts the settings of `documents` in force.  The documents are parsed already."""
        pushed = (document.value for document in documents[SETTINGS.name])
        return _SettingsChange(self, laid_over(self._local, pushed))

    def put_in_force(self, settings: Settings) -> dict[str, Any]:
        """Give `settings` to the components whose settings differ, and return the keys that have changed."""
        before, self.in_force = self.in_force, settings
        for section, give in self._parts.items():
            if getattr(settings, section) != getattr(before, section):
                give(settings)
        changed = {key: _value(settings, key) for key in remote_keys() if _value(settings, key) != _value(before, key)}
        if changed:
            self._outbox.add_event(Event(time.time_ns() // 1_000, "settings_in_force", changed))
        return changed


class _SettingsChange(msgspec.Struct, frozen=True):
    effect: SettingsEffect
    settings: Settings

    def write(self) -> None:
        """Write nothing, because the push store has the documents."""

    def withdraw(self) -> None:
        """Remove nothing, because no file has the settings."""

    async def switch(self) -> Mapping[str, object]:
        changed = self.effect.put_in_force(self.settings)
        return {"settings": changed} if changed else {}


def _value(settings: Settings, key: str) -> str | int | float | bool:
    section, _, name = key.partition(".")
    value = getattr(getattr(settings, section), name)
    return ",".join(value) if isinstance(value, tuple) else value
