"""Manages the table `catalogues`, which holds a limited number of catalogues for each vehicle."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.receiving.database import Database

CATALOGUES: Final = 64
"""The limit of catalogues of one vehicle.  A vehicle keeps half as many, so the receiver never evicts one in use."""

SCHEMA: Final = """
CREATE TABLE catalogues (
    vehicle TEXT NOT NULL, digest BLOB NOT NULL, content BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (vehicle, digest)
) STRICT;
CREATE INDEX catalogues_by_use ON catalogues (vehicle, used)"""


@dataclass(frozen=True, slots=True)
class CatalogueContent:
    """Holds a catalogue of one vehicle: its digest, and its content as `fleet.receiving.catalogues` compresses it."""

    vehicle: str
    digest: bytes
    content: bytes


class CatalogueTable:
    """Reads and writes catalogues on disk.

    `evict` limits the table to `limit` catalogues for each vehicle, and deletes the least recently used ones first.
    """

    def __init__(self, database: Database, *, limit: int = CATALOGUES) -> None:
        self._database = database
        self._limit = limit

    def has(self, vehicle: str, digest: bytes) -> bool:
        """Return whether the table has the catalogue."""
        query = "SELECT 1 FROM catalogues WHERE vehicle = ? AND digest = ?"
        return self._database.row(query, (vehicle, digest)) is not None

    def content(self, vehicle: str, digest: bytes) -> bytes | None:
        """Return the compressed content of the catalogue, or None if the table does not have it."""
        query = "SELECT content FROM catalogues WHERE vehicle = ? AND digest = ?"
        row = self._database.row(query, (vehicle, digest))
        return None if row is None else bytes(row[0])

    def keep(self, catalogues: Sequence[CatalogueContent]) -> None:
        """Store `catalogues`, and mark them as just used.  Call this in a transaction."""
        # A catalogue that is stored already is written again, because the copy on the disk may be damaged.
        self._database.write_many(
            "INSERT INTO catalogues SELECT ?1, ?2, ?3, coalesce(max(used), 0) + 1 FROM catalogues WHERE vehicle = ?1"
            " ON CONFLICT (vehicle, digest) DO UPDATE SET content = excluded.content, used = excluded.used",
            [(catalogue.vehicle, catalogue.digest, catalogue.content) for catalogue in catalogues],
        )

    def mark_used(self, used: Iterable[tuple[str, bytes]]) -> None:
        """Mark catalogues as just used.  `used` are pairs (vehicle, digest).  Call this in a transaction."""
        self._database.write_many(
            "UPDATE catalogues SET used = (SELECT max(used) + 1 FROM catalogues WHERE vehicle = ?1)"
            " WHERE vehicle = ?1 AND digest = ?2",
            sorted(used),
        )

    def evict(self, vehicles: Iterable[str]) -> None:
        """Delete the least recently used catalogues of those of `vehicles` that have more than the limit.

        Catalogues of unfinished commits are never deleted.  Call this in a transaction.
        """
        # Recovery opens the batches of unfinished commits again, so their catalogues must stay.
        self._database.write_many(
            "DELETE FROM catalogues WHERE vehicle = ?1 AND digest IN"
            " (SELECT digest FROM catalogues WHERE vehicle = ?1 ORDER BY used DESC LIMIT -1 OFFSET ?2)"
            " AND digest NOT IN (SELECT catalogue FROM pending WHERE vehicle = ?1 AND catalogue IS NOT NULL)",
            [(vehicle, self._limit) for vehicle in sorted(vehicles)],
        )
