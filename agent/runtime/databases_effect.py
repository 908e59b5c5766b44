"""Decode with the databases and mappings that the fleet pushes.

The collector closes its windows with the earlier databases, and decodes the next frame with the new ones.  No frame is
lost, and every window has the signals of one set of databases.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from agent.formats.down.databases import PushedBus
from agent.formats.down.documents import MAPPING, Documents, databases_in
from agent.formats.down.mapping.entries import VssMapping
from agent.formats.up.columns import Event
from agent.runtime.effects import Change
from agent.telemetry.collect.collector import Collector
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.outbox.outbox import Outbox
from can_dbc.plan import BusPlan

_NAMES_LETTERS: Final = 2_000
"""The maximum length of the list of databases in one event, which must fit one batch."""

Mappings = tuple[tuple[str | None, VssMapping], ...]

log = structlog.get_logger()


class Plans(Protocol):
    """Provides the plans of pushed databases (`agent.settings.pushed_plans`)."""

    def plan(self, bus: PushedBus) -> BusPlan:
        """Return the plan of `bus`.  Blocking.  Raises: AgentError if the databases cannot be compiled."""


class DatabasesEffect:
    """Gives pushed databases to the collector, and reports by an event from which frame on they are used."""

    def __init__(self, collector: Collector, outbox: Outbox, local: Mapping[str, BusPlan], plans: Plans) -> None:
        """Begin with the vehicle's own plans, `local`, with which the collector was built."""
        self._collector = collector
        self._outbox = outbox
        self._local = local
        self._plans = plans
        self._in_force: tuple[Mapping[str, BusPlan], Mappings] = local, ()

    def prepare(self, documents: Documents) -> Change:
        """Return the change that puts the databases and mappings of `documents` in force.

        Pushed databases take the place of the vehicle's own ones.
        """
        pushed = databases_in(documents)
        plans = {**self._local, **{bus.bus: self._plans.plan(bus) for bus in pushed}}
        # Plans are compared and not documents, so a release that changes nothing for this vehicle closes no window.
        mappings: Mappings = tuple((None, document.value) for document in documents.get(MAPPING.name, ()))
        tables = None
        if (plans, mappings) != self._in_force:
            tables = SignalTables(self._collector.tables.buses, plans, mappings=mappings)
        return _DatabasesChange(self, (plans, mappings), pushed, tables)

    async def put_in_force(
        self, now: tuple[Mapping[str, BusPlan], Mappings], pushed: Sequence[PushedBus], tables: SignalTables
    ) -> None:
        """Decode from the next frame on with `tables`, which the plans and mappings `now` make.

        `pushed` are the pushed databases among them.
        """
        before = await self._collector.set_tables(tables)
        self._in_force = now
        fields: dict[str, str | int | float | bool] = {
            "databases": ",".join(database.path for bus in pushed for database in bus.databases)[:_NAMES_LETTERS]
        }
        if tables.mapped:
            fields["vss_paths"] = len(tables.mapped)
        for note in tables.mapping_notes:
            log.warning("mapping_note", note=note)
        unused = [bus.bus for bus in pushed if bus.bus not in tables.buses]
        if unused:
            log.warning("databases_unused", buses=unused, reason="no source of this vehicle delivers these buses")
            fields["unused_buses"] = ",".join(unused)[:_NAMES_LETTERS]
        fields |= {f"frames.{bus}": count for bus, count in sorted(before.items())}
        self._outbox.add_event(Event(time.time_ns() // 1_000, "databases_in_force", fields))


class _DatabasesChange(msgspec.Struct, frozen=True):
    effect: DatabasesEffect
    now: tuple[Mapping[str, BusPlan], Mappings]
    pushed: Sequence[PushedBus]
    tables: SignalTables | None

    def write(self) -> None:
        """Write nothing, because the push store has the documents."""

    def withdraw(self) -> None:
        """Remove nothing, because no file has the databases."""

    async def switch(self) -> Mapping[str, object]:
        if self.tables is None:
            return {}
        await self.effect.put_in_force(self.now, self.pushed, self.tables)
        return {"databases": [database.path for bus in self.pushed for database in bus.databases]}
