"""Defines the rules that delete old rows from the lake, and tells which rows were deleted on purpose.

A table may lack the rows of a batch for two reasons: a rule has deleted them, or the table was put back to an earlier
state.  Only the second is a loss.  The table `batches`, whose rows are never deleted, therefore has a note of each
rule: an app transaction, whose version is the first day that the rule keeps, as a day number (`date.toordinal`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from deltalake import Transaction

CLOCK_SET: Final = date(2020, 1, 1)
"""Earlier days come from vehicles whose clock was not set.  The true age is unknown, so retention keeps these days."""
_DELETABLE: Final = {"samples": "true", "events": "kind <> 'loss'"}


@dataclass(frozen=True, slots=True)
class Retention:
    """Holds a rule that deletes the samples and events of all days before `before`.

    Loss events are never deleted, and neither are days before CLOCK_SET.  With `campaign`, the rule deletes only
    samples of that campaign, and no events.  With `vehicle`, the rule deletes only data of that vehicle.
    """

    before: date
    campaign: str | None = None
    vehicle: str | None = None

    def notes(self) -> list[Transaction]:
        """Return the Delta transaction identifiers that record, in the table `batches`, what the rule deletes."""
        names = [name for name in _DELETABLE if self.predicate(name) is not None]
        return [Transaction(_note_id(name, self.campaign, self.vehicle), self.before.toordinal()) for name in names]

    def predicate(self, table: str) -> str | None:
        """Return a condition, in the Delta library's SQL, that selects the rows of `table` to delete.

        Return None if the rule deletes nothing from `table`.
        """
        if table not in _DELETABLE or (self.campaign is not None and table != "samples"):
            return None
        terms = [f"date < '{self.before}'", f"date >= '{CLOCK_SET}'", _DELETABLE[table]]
        # Names come from the command line, so quotes in them are doubled, as SQL requires.
        terms += [
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'"
            for name, value in (("campaign", self.campaign), ("vehicle", self.vehicle))
            if value is not None
        ]
        return " AND ".join(terms)


def retention_of(days: int, today: date, *, campaign: str | None, vehicle: str | None) -> Retention:
    """Return the rule that keeps the data of today and of the `days` days before today.

    The rule deletes older data, but only of `campaign` and `vehicle` if they are given.
    """
    return Retention(today - timedelta(days=days), campaign, vehicle)


def is_deleted(table: str, vehicle: str, campaign: str, day: date, version_of: Callable[[str], int]) -> bool:
    """Return whether a rule has deleted the rows that the table `table` had of a batch.

    `day` is the day of the batch.  `version_of` returns the version of an app transaction of the table `batches`, or 0
    for one that it does not have.
    """
    if day < CLOCK_SET:
        return False
    rules = ((None, None), (campaign, None), (None, vehicle), (campaign, vehicle))
    return any(day.toordinal() < version_of(_note_id(table, *rule)) for rule in rules)


def _note_id(table: str, campaign: str | None, vehicle: str | None) -> str:
    return f"headunit-retention/{table}/{vehicle or ''}/{campaign or ''}"
