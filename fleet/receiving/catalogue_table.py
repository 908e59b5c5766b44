"""The table `catalogues`: the catalogues that batches refer to, a bounded number for each vehicle."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.receiving.database import Database

CATALOGUES: Final = 64
"""Catalogues of one vehicle at most.  A vehicle keeps half as many itself, so the receiver forgets none in use."""

SCHEMA: Final = """
CREATE TABLE catalogues (
    vehicle TEXT NOT NULL, digest BLOB NOT NULL, content BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (vehicle, digest)
) STRICT;
CREATE INDEX catalogues_by_use ON catalogues (vehicle, used)"""


@dataclass(frozen=True, slots=True)
class CatalogueContent:
    """A catalogue of one vehicle under its digest; `content` is packed by `fleet.receiving.catalogues`."""

    vehicle: str
    digest: bytes
    content: bytes


class CatalogueTable:
    """Catalogues on disk.  `limit` is what one vehicle may have; those that were not used for longest go first."""

    def __init__(self, database: Database, *, limit: int = CATALOGUES) -> None:
        self._database = database
        self._limit = limit

    def has(self, vehicle: str, digest: bytes) -> bool:
        """Tell whether the catalogue is kept."""
        query = "SELECT 1 FROM catalogues WHERE vehicle = ? AND digest = ?"
        return self._database.row(query, (vehicle, digest)) is not None

    def content(self, vehicle: str, digest: bytes) -> bytes | None:
        """Return the content of the catalogue, or None where it is not kept."""
        query = "SELECT content FROM catalogues WHERE vehicle = ? AND digest = ?"
        row = self._database.row(query, (vehicle, digest))
        return None if row is None else bytes(row[0])

    def keep(self, catalogues: Sequence[CatalogueContent]) -> None:
        """Keep `catalogues`, each as the one that its vehicle used last; the caller holds a transaction."""
        # A catalogue that is here already gets its content again: the copy on the disk may be damaged.
        self._database.write_many(
            "INSERT INTO catalogues SELECT ?1, ?2, ?3, coalesce(max(used), 0) + 1 FROM catalogues WHERE vehicle = ?1"
            " ON CONFLICT (vehicle, digest) DO UPDATE SET content = excluded.content, used = excluded.used",
            [(catalogue.vehicle, catalogue.digest, catalogue.content) for catalogue in catalogues],
        )

    def mark_used(self, used: Iterable[tuple[str, bytes]]) -> None:
        """Record that batches refer to these catalogues (vehicle, digest); the caller holds a transaction."""
        self._database.write_many(
            "UPDATE catalogues SET used = (SELECT max(used) + 1 FROM catalogues WHERE vehicle = ?1)"
            " WHERE vehicle = ?1 AND digest = ?2",
            sorted(used),
        )

    def evict(self, vehicles: Iterable[str]) -> None:
        """Drop what exceeds the limit of each vehicle; the caller holds a transaction."""
        # Recovery opens unfinished commits once more, so what they refer to stays.
        self._database.write_many(
            "DELETE FROM catalogues WHERE vehicle = ?1 AND digest IN"
            " (SELECT digest FROM catalogues WHERE vehicle = ?1 ORDER BY used DESC LIMIT -1 OFFSET ?2)"
            " AND digest NOT IN (SELECT catalogue FROM pending WHERE vehicle = ?1 AND catalogue IS NOT NULL)",
            [(vehicle, self._limit) for vehicle in sorted(vehicles)],
        )
