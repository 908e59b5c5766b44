"""Manages the tables that say what the inbox knows about the lake.

    lakes       (name, id)                 the id of each table of the lake; a table that is made anew has another id
    claims      (partition, generation)    the generation of the last claim of each partition (fleet.lake.tables)
    landed      (share, name, number)      the last commit of each share that this table of the lake has
    half_landed (name, digest)             batches that this table has, and that another table lacks

When a receiver starts, it compares these values with the lake (fleet.receiving.reconcile).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from fleet.lake.schema import SCHEMAS
from fleet.receiving.database import Database
from fleet.receiving.share import Share

SCHEMA: Final = """
CREATE TABLE lakes (name TEXT PRIMARY KEY, id TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE claims (partition INTEGER PRIMARY KEY, generation INTEGER NOT NULL) STRICT;
CREATE TABLE landed (
    share TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (share, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE half_landed (
    name TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (name, digest)
) STRICT, WITHOUT ROWID"""


class LakeRecord:
    """Reads and writes what the inbox knows about the lake.  Call methods that write in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lakes(self) -> dict[str, str]:
        """Return the id of each table of the lake, or an empty dict if this inbox has not seen a lake."""
        return dict(self._database.rows("SELECT name, id FROM lakes"))

    def set_lakes(self, ids: Mapping[str, str]) -> None:
        """Record the ids of the tables of the lake."""
        self._database.write_many("INSERT OR REPLACE INTO lakes VALUES (?, ?)", ids.items())

    def claims(self, share: Share) -> dict[int, int]:
        """Return the generation of each partition of `share` that a receiver of this inbox has ever claimed."""
        query = "SELECT partition, generation FROM claims WHERE partition BETWEEN ? AND ?"
        return dict(self._database.rows(query, (share.first, share.last)))

    def set_claims(self, generations: Mapping[int, int]) -> None:
        """Record the generations of claimed partitions."""
        self._database.write_many("INSERT OR REPLACE INTO claims VALUES (?, ?)", generations.items())

    def landed(self, share: str) -> dict[str, int]:
        """Return the last commit of `share` in each table of the lake that has any."""
        return dict(self._database.rows("SELECT name, number FROM landed WHERE share = ?", (share,)))

    def set_landed(self, share: str, number: int, names: Iterable[str]) -> None:
        """Record that the tables `names` have commit `number` of `share`."""
        self._database.write_many(
            "INSERT OR REPLACE INTO landed VALUES (?, ?, ?)", [(share, name, number) for name in names]
        )

    def forget_landed(self, shares: Iterable[str]) -> None:
        """Record that no table has a commit of `shares`, because their commits get a new app id."""
        self._database.write_many("DELETE FROM landed WHERE share = ?", [(share,) for share in shares])

    def forget_half_landed(self) -> None:
        """Record that the lake has each batch as a whole or not at all."""
        self._database.write("DELETE FROM half_landed")

    def half_landed(self, name: str) -> set[bytes]:
        """Return the digests of the batches that the table `name` has, and that the lake does not have as a whole."""
        return {
            bytes(digest) for (digest,) in self._database.rows("SELECT digest FROM half_landed WHERE name = ?", (name,))
        }

    def is_half_landed(self, name: str, digest: bytes) -> bool:
        """Return whether the table `name` has a batch that the lake does not have as a whole."""
        query = "SELECT 1 FROM half_landed WHERE name = ? AND digest = ?"
        return self._database.row(query, (name, digest)) is not None

    def set_whole(self, share: str, number: int) -> None:
        """Record that the lake has the batches of an unfinished commit as a whole."""
        for name in SCHEMAS:
            self._database.write(
                "DELETE FROM half_landed WHERE name = ? AND digest IN"
                " (SELECT digest FROM pending WHERE share = ? AND number = ?)",
                (name, share, number),
            )

    def add_half_landed(self, name: str, digests: Iterable[bytes]) -> None:
        """Record batches that the table `name` has, and that the lake does not have as a whole."""
        self._database.write_many(
            "INSERT OR IGNORE INTO half_landed VALUES (?, ?)", [(name, digest) for digest in digests]
        )
