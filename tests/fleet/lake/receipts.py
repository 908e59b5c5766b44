"""Lands events of vehicles in a lake, as a receiver does."""

from collections.abc import Sequence
from dataclasses import replace

from agent.formats.topics import Lane
from agent.formats.up.columns import Event
from agent.formats.up.seal import Header
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.rows import BatchRows, rows_of
from fleet.lake.tables import Lake
from tests.fleet.vehicles import EPOCH, T0_US, make_window

MINUTE_US = 60_000_000


def receipt(kind: str, version: int | str, reason: str | None = None) -> Event:
    fields: dict[str, str | int | float | bool] = {"version": version}
    return Event(T0_US, kind, fields if reason is None else {**fields, "reason": reason, "detail": f"why {reason}"})


def batch_of(vehicle: str, number: int, events: Sequence[Event]) -> BatchRows:
    """Return the rows of batch `number` of the whole lake, which arrives `number` minutes after T0_US."""
    header = Header(vehicle, EPOCH, number, Lane.EVENTS, "0" * 16, "X25519", T0_US)
    window = replace(make_window(1), groups=(), events=tuple(events))
    return rows_of(OpenedBatch(header, window, 100, T0_US + number * MINUTE_US, number.to_bytes(16, "big")))


class Arrivals:
    """Lands batches in the lake at `uri`, each a minute after the one before."""

    def __init__(self, uri: str) -> None:
        self._lake = Lake(uri)
        self._commits = 0
        self._numbers = 0

    def land(self, *batches: tuple[str, Sequence[Event]]) -> None:
        """Land one batch for each pair of vehicle and events, in one commit."""
        rows = []
        for vehicle, events in batches:
            self._numbers += 1
            rows.append(batch_of(vehicle, self._numbers, events))
        self.land_rows(rows)

    def land_rows(self, rows: Sequence[BatchRows]) -> None:
        self._commits += 1
        for name in ("samples", "events", "batches"):
            self._lake.append(name, "test", self._commits, rows)
