"""Compares the batches and samples that the virtual vehicles sent with the batches and samples in the lake."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fleet.lake.query import query
from lab.simulate.vehicle import Vehicle

# A batch of n samples has the rows 0 to n - 1.  If count and sum of its row numbers are right, each row is there once.
_IN_LAKE: Final = """
    WITH held AS (
        SELECT vehicle, epoch, seq, count(*) AS samples, sum(row) AS rows FROM samples GROUP BY ALL
    ), listed AS (
        SELECT vehicle, epoch, seq, count(*) AS copies, any_value(samples) AS said FROM batches GROUP BY ALL
    )
    SELECT vehicle, seq, copies::BIGINT AS copies, coalesce(held.samples, 0)::BIGINT AS samples,
           coalesce(held.rows, 0)::BIGINT AS rows
    FROM listed LEFT JOIN held USING (vehicle, epoch, seq)"""


@dataclass(frozen=True, slots=True)
class Account:
    """Counts the batches and samples that were sent, those that are lost, and the surplus copies in the lake."""

    batches_sent: int
    samples_sent: int
    batches_lost: int
    samples_lost: int
    batches_double: int
    samples_double: int

    @property
    def adds_up(self) -> bool:
        """Return whether no batch and no sample is lost or duplicated."""
        return not (self.batches_lost or self.samples_lost or self.batches_double or self.samples_double)


def settle(lake: str, vehicles: Iterable[Vehicle]) -> Account:
    """Compare the lake with the batches that `vehicles` sent.  Raises: Permanent if there is no lake."""
    table = query(lake, _IN_LAKE)
    columns = (table[name].to_pylist() for name in ("vehicle", "seq", "copies", "samples", "rows"))
    found = {
        (vehicle, seq): (copies, samples, rows) for vehicle, seq, copies, samples, rows in zip(*columns, strict=True)
    }
    batches = total = batches_lost = samples_lost = batches_double = samples_double = 0
    for vehicle in vehicles:
        for seq, samples in vehicle.sent.samples.items():
            batches += 1
            total += samples
            copies, there, rows = found.get((vehicle.name, seq), (0, 0, 0))
            batches_lost += copies == 0
            batches_double += max(copies - 1, 0)
            samples_lost += max(samples - there, 0)
            samples_double += max(there - samples, 0)
            # The count is right but the sum of row numbers is not, so one sample is missing and another is there twice.
            if there == samples and rows != samples * (samples - 1) // 2:
                samples_double += 1
                samples_lost += 1
    return Account(batches, total, batches_lost, samples_lost, batches_double, samples_double)
