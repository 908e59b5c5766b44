"""Provide the plans of pushed databases: from the cache of plans, or compiled in a confined process."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from agent.errors import Permanent
from agent.formats.down.databases import PushedBus
from agent.settings.compiler import LIMITS, Limits, compile_apart
from agent.settings.sections import BusSettings
from agent.system.durable import write_file
from can_dbc.cache import Contents, PlanCache, from_bytes
from can_dbc.plan import BusPlan, Match

log = structlog.get_logger()


class PushedPlans:
    """Provides plans for one vehicle, whose own file has the tables `buses`.

    A plan is compiled when its release is examined, before the release is stored.  Applying the release then finds the
    plan in the cache, and starts no process.
    """

    def __init__(self, folder: Path, buses: Mapping[str, BusSettings], limits: Limits = LIMITS) -> None:
        """Keep the plans in `folder`, beside those of the vehicle's own databases."""
        self._folder = folder
        self._buses = buses
        self._limits = limits

    async def prepare(self, bus: PushedBus) -> BusPlan:
        """Return the plan of `bus`, and store it if it was missing.

        Raises: Permanent naming the databases and the fault; Transient if no process can be started.
        """
        cache = PlanCache(self._folder, write_file)
        contents, match, encodings = self._key(bus)
        plan = await asyncio.to_thread(cache.stored, contents, match, encodings)
        if plan is not None:
            return plan
        plan = from_bytes(await compile_apart(bus, match, self._limits), match)
        if plan is None:
            raise Permanent(f"{bus.source}: the compiler of databases wrote no plan; publish another database")
        await asyncio.to_thread(cache.store, contents, match, encodings, plan)
        if cache.problem is not None:
            log.warning("plans_not_kept", reason=cache.problem)
        return plan

    def plan(self, bus: PushedBus) -> BusPlan:
        """Return the plan of `bus` as `prepare` does, but block; call this in a thread without an event loop."""
        return asyncio.run(self.prepare(bus))

    def _key(self, bus: PushedBus) -> tuple[Contents, Match, Mapping[Path, str]]:
        own = self._buses.get(bus.bus)
        match = Match(bus.match or (Match.EXACT if own is None else own.match))
        contents = [(Path(each.path), each.content, "dbc") for each in bus.databases]
        encodings = {Path(each.path): each.encoding for each in bus.databases if each.encoding is not None}
        return contents, match, encodings
