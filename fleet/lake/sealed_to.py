"""Works out from the lake which vehicles seal to the fleet's sealing key in use, and which still need an earlier key.

A vehicle has switched when the lake has a batch of it that is sealed to the key in use.  It may still hold batches from
before in its spool.  Sequence numbers rise with each batch, so such batches have numbers below the first batch that is
sealed to the key in use.  These numbers are neither in the lake nor explained by a loss.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.formats.up.ledger import State
from fleet.lake.ledger import COLUMNS, ledger
from fleet.lake.location import Location
from fleet.lake.opening import missing_tables
from fleet.lake.query import query, times_of

_KEYS: Final = "SELECT vehicle, sealing_key, max(received) AS last FROM batches GROUP BY vehicle, sealing_key"
_FIRST: Final = """
    SELECT vehicle, epoch, min(seq) AS first FROM batches WHERE sealing_key = $key GROUP BY vehicle, epoch"""
_ALL: Final = 2**62
"""More rows than any ledger has."""


@dataclass(frozen=True, slots=True)
class SealedTo:
    """Holds what the lake says about sealing keys.

    `keys` maps each vehicle that was heard to the ids of the keys to which it has sealed.  `incomplete` are vehicles
    that have switched, and of which batches from before are missing.  `last_received` has, for each key, the time of
    the last arrival.
    """

    key: str
    keys: dict[str, frozenset[str]]
    incomplete: frozenset[str]
    last_received: dict[str, datetime]

    def has_switched(self, vehicle: str) -> bool:
        """Return whether the lake has a batch of `vehicle` that is sealed to the key in use."""
        return self.key in self.keys.get(vehicle, ())


def sealed_to(lake: Location, key: str) -> SealedTo:
    """Return what the lake says, if `key` is the id of the sealing key in use.

    The question reads the whole ledger.  Raises: Permanent if the lake cannot be read.
    """
    if missing_tables(lake):
        return SealedTo(key, {}, frozenset(), {})
    rows = query(lake, _KEYS)
    keys: dict[str, set[str]] = {}
    last: dict[str, datetime] = {}
    columns = rows["vehicle"].to_pylist(), rows["sealing_key"].to_pylist(), times_of(rows["last"])
    for vehicle, used, received in zip(*columns, strict=True):
        keys.setdefault(vehicle, set()).add(used)
        if received is not None:
            last[used] = max(last.get(used, received), received)
    switched = frozenset(vehicle for vehicle, used in keys.items() if key in used)
    return SealedTo(
        key, {vehicle: frozenset(used) for vehicle, used in keys.items()}, _incomplete(lake, key) & switched, last
    )


def _incomplete(lake: Location, key: str) -> frozenset[str]:
    """Return the vehicles of which a batch is missing that may be sealed to an earlier key than `key`."""
    found = query(lake, _FIRST, {"key": key}).to_pylist()
    first = {(row["vehicle"], row["epoch"]): row["first"] for row in found}
    vehicle, epoch, state, number = (COLUMNS.index(name) for name in ("vehicle", "epoch", "state", "first_seq"))
    # In an epoch without a batch of the new key, every missing number may be one of an earlier key.
    return frozenset(
        str(row[vehicle])
        for row in ledger(lake, limit=_ALL, stored=False).rows
        if row[state] == State.OPEN and row[number] < first.get((row[vehicle], row[epoch]), _ALL)
    )
