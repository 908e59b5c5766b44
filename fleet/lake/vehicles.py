"""Keeps the table `vehicles` of the lake: one row for each enrolled vehicle, so that samples can be joined with it.

The registry in the fleet folder is the original, and the table is a copy that the receivers keep up to date
(fleet.receiving.roster).  An update is one Delta MERGE, so a crash leaves the rows as they were before or after it.  A
repeated update changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
from cryptography import x509
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from agent.errors import Transient
from agent.formats.topics import partition_of
from fleet.lake.force_to_disk import force_to_disk
from fleet.lake.location import Location
from fleet.lake.opening import has_table, open_or_create, open_table
from fleet.lake.query import times_of
from fleet.lake.schema import VEHICLES
from fleet.lake.tables import writer_properties
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

_OWN: Final = ("partition", "vehicle", "agent")
"""The columns that an update of a known vehicle does not take from the registry."""
_ENROLLED: Final = ("brand", "model", "market", "model_year", "software", "revoked")


@dataclass(frozen=True, slots=True)
class Known:
    """Holds the parts of a row that tell whether the row is up to date.

    `recorded_us` is the time of the registry's file from which the row was made, in microseconds of Unix time.
    """

    recorded_us: int
    agent: str | None


def known_vehicles(lake: Location, partitions: Sequence[int]) -> dict[str, Known]:
    """Return what the table holds of the vehicles in `partitions`.  It is empty if there is no table.

    Raises: Transient if the lake cannot be read.
    """
    try:
        if not has_table(lake, "vehicles"):
            return {}
        rows = open_table(lake, "vehicles").to_pyarrow_table(
            columns=["vehicle", "recorded", "agent"],
            filters=[("partition", "in", list(partitions))],
        )
    except (DeltaError, OSError) as error:
        raise Transient(f"The table vehicles of the lake {lake.uri} cannot be read ({error}).") from error
    columns = rows["vehicle"].to_pylist(), rows["recorded"].cast(pa.int64()).to_pylist(), rows["agent"].to_pylist()
    return {vehicle: Known(recorded, agent) for vehicle, recorded, agent in zip(*columns, strict=True)}


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Holds what the registry says about one vehicle.  `software` is None if it has not reported any."""

    brand: str
    model: str
    market: str
    model_year: int
    software: str | None
    revoked: bool
    certificate_expires: datetime | None


def enrolled_vehicles(lake: Location, registry: Registry) -> dict[str, Enrolled]:
    """Return all vehicles of the registry.  Records that have not changed since are taken from the table.

    Reading 100,000 records takes many seconds, and reading the table less than one.

    Raises: Permanent if the registry or the lake cannot be read.
    """
    rows = open_table(lake, "vehicles").to_pyarrow_table() if has_table(lake, "vehicles") else VEHICLES.empty_table()
    # Whole columns are converted, which takes a third of the time of `to_pylist` on rows with times.
    columns = [rows[name].to_pylist() for name in ("vehicle", *_ENROLLED)]
    times = (times_of(rows["certificate_expires"]), rows["recorded"].cast(pa.int64()).to_pylist())
    listed = {vehicle: row for vehicle, *row in zip(*columns, *times, strict=True)}
    found: dict[str, Enrolled] = {}
    for vehicle, recorded_us in registry.recorded_us().items():
        row = listed.get(vehicle)
        if row is not None and row[-1] == recorded_us:
            found[vehicle] = Enrolled(*row[:-1])
        elif (record := registry.read(vehicle)) is not None:
            found[vehicle] = Enrolled(
                record.brand,
                record.model,
                record.market,
                record.model_year,
                record.software or None,
                record.revoked,
                certificate_expiry(record),
            )
    return found


def update_vehicles(
    lake: Location, records: Mapping[str, tuple[VehicleRecord, int]], agents: Mapping[str, str]
) -> None:
    """Write the rows of `records`, which maps a vehicle to its record and the time of the record's file (µs).

    `agents` has the versions of the agent that vehicles have reported.  A vehicle that is not in it keeps its version.

    Raises: Transient if the lake refuses, for example because another program changed the same rows meanwhile.
    """
    rows = pa.Table.from_pylist(
        [
            {
                "partition": partition_of(vehicle),
                "vehicle": vehicle,
                "brand": record.brand,
                "model": record.model,
                "market": record.market,
                "model_year": record.model_year,
                "software": record.software or None,
                "agent": agents.get(vehicle),
                "revoked": record.revoked,
                "certificate_expires": certificate_expiry(record),
                "recorded": recorded_us,
            }
            for vehicle, (record, recorded_us) in records.items()
        ],
        schema=VEHICLES,
    )
    changes = {column: f"s.{column}" for column in VEHICLES.names if column not in _OWN}
    try:
        table: DeltaTable = open_or_create(lake, "vehicles")
        merge = table.merge(
            rows,
            "t.partition = s.partition AND t.vehicle = s.vehicle",
            source_alias="s",
            target_alias="t",
            writer_properties=writer_properties("vehicles"),
        )
        merge = merge.when_matched_update({**changes, "agent": "coalesce(s.agent, t.agent)"})
        merge.when_not_matched_insert_all().execute()
        table.update_incremental()
        force_to_disk(table.table_uri, table.version())
    except (DeltaError, OSError) as error:
        raise Transient(f"The table vehicles of the lake {lake.uri} could not be updated ({error}).") from error


def certificate_expiry(record: VehicleRecord) -> datetime | None:
    """Return when the vehicle's certificate expires, or None if the record holds no certificate that can be read."""
    try:
        return x509.load_pem_x509_certificate(record.certificate_pem.encode()).not_valid_after_utc.astimezone(UTC)
    except ValueError:
        return None
