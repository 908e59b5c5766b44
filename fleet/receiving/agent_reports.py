"""Collects the versions of the agent that vehicles report, from the batches that land in the lake."""

import threading
from collections.abc import Iterable
from typing import Final

import msgspec
import pyarrow.compute as pc

from fleet.lake.rows import BatchRows

STARTED: Final = "agent_started"
"""The kind of the event in which a vehicle reports the version of its agent, at each start."""


class AgentReports:
    """Collects the versions in batches that land, until the roster takes them.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, str] = {}

    def note(self, batches: Iterable[BatchRows]) -> None:
        """Collect the versions in the events of `batches`.  Later batches replace the versions of earlier ones."""
        found: dict[str, str] = {}
        for rows in batches:
            events = rows["events"]
            if events.num_rows == 0:
                continue
            started = events.filter(pc.equal(events["kind"], STARTED))
            for vehicle, fields in zip(started["vehicle"].to_pylist(), started["fields"].to_pylist(), strict=True):
                version = msgspec.json.decode(fields).get("version")
                if isinstance(version, str):
                    found[vehicle] = version
        with self._lock:
            self._versions |= found

    def take(self) -> dict[str, str]:
        """Return the collected versions by vehicle, and forget them."""
        with self._lock:
            taken, self._versions = self._versions, {}
        return taken

    def put_back(self, versions: dict[str, str]) -> None:
        """Collect `versions` again, because they could not be written.  Newer versions are kept."""
        with self._lock:
            self._versions = versions | self._versions
