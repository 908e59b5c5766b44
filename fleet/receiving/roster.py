"""Keeps the lake's table `vehicles` equal to the registry, and to the versions that vehicles report.

A receiver does this for the vehicles of its share, in addition to its other work.  Each update compares the times of
the registry's files with those in the table, so it reads only records that have changed, and nothing is kept in memory.
After a crash, the next update finds what is missing.
"""

import structlog

from agent.errors import Permanent
from fleet.lake.location import Location
from fleet.lake.reported import agents_of
from fleet.lake.vehicles import known_vehicles, update_vehicles
from fleet.receiving.agent_reports import AgentReports
from fleet.receiving.share import Share
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

_log = structlog.get_logger()


class Roster:
    """Updates the table `vehicles` for the vehicles of `share`.  Its methods block, and one thread calls them."""

    def __init__(self, registry: Registry, lake: Location, share: Share, reports: AgentReports) -> None:
        self._registry = registry
        self._lake = lake
        self._share = share
        self._reports = reports
        self._seen: object = None  # the registry's stamp at the last update, or None if that is not known
        self._complaints: set[str] = set()
        self._caught_up = False

    def update(self) -> int:
        """Bring the table up to date, and return how many rows were written.

        This costs little if neither the registry nor any agent has changed.

        Raises: Transient if the lake refuses, and Permanent if the lake or the registry cannot be read.  The next call
        makes up for it.
        """
        if not self._caught_up:
            # An earlier receiver may have died after a report had landed and before the table had it.
            self._reports.put_back(agents_of(self._lake))
            self._caught_up = True
        stamp = self._registry.stamp()
        agents = self._reports.take()
        if stamp is not None and stamp == self._seen and not agents:
            return 0
        try:
            records = self._changed(agents)
            if records:
                update_vehicles(self._lake, records, agents)
        except BaseException:
            self._reports.put_back(agents)
            raise
        self._seen = stamp
        return len(records)

    def _changed(self, agents: dict[str, str]) -> dict[str, tuple[VehicleRecord, int]]:
        """Return the records whose rows are missing or out of date, with the times of their files."""
        known = known_vehicles(self._lake, self._share.partitions)
        changed: dict[str, tuple[VehicleRecord, int]] = {}
        for vehicle, recorded_us in self._registry.recorded_us().items():
            row = known.get(vehicle)
            current = row is not None and row.recorded_us == recorded_us
            reported = row is not None and agents.get(vehicle, row.agent) == row.agent
            if (current and reported) or not self._share.has(vehicle):
                continue
            record = self._read(vehicle)
            if record is not None:
                changed[vehicle] = (record, recorded_us)
        return changed

    def _read(self, vehicle: str) -> VehicleRecord | None:
        try:
            return self._registry.read(vehicle)
        except Permanent as error:
            # One damaged record must not keep the others out of the table.  It is logged once.
            if vehicle not in self._complaints:
                self._complaints.add(vehicle)
                _log.error("vehicle_not_listed", vehicle=vehicle, reason=str(error))
            return None
