"""Appends commits to the lake's three Delta tables, each commit exactly once.

Delta's *app transactions* make this possible.  Each append writes its rows and the pair (app id, commit number) in one
atomic step.  The commit number comes from the inbox and rises with each commit.  Before commit N, this module reads the
last commit number that the table has for the app id.  If that number is N or higher, the table has the rows of commit N
already, and nothing is appended.  If another process appends with the same app id between the check and the append,
Delta refuses the append.  A vehicle's sequence number cannot be the commit number, because batches arrive out of order.

App transactions also keep a second writer out.  A receiver *claims* its partitions when it starts: it raises the
generation of each partition, which is an app transaction of its own, in all tables.  Each append repeats the
generations, so it is refused if another receiver has claimed one of the partitions since, even at the same moment.

A lake lies in a folder, or below a URL that the Delta library opens (s3://, abfss://, gs://, file://).  The library
gets the URL and the storage options unchanged.  An object store answers only when the data is durable.  In a local
folder the library does not call fsync.  This module therefore calls fsync before an append returns.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from agent.errors import Transient
from fleet.lake.batch_key import BatchKey
from fleet.lake.claims import Fenced, Generations, claim_id, transactions_of
from fleet.lake.force_to_disk import force_to_disk
from fleet.lake.location import Location
from fleet.lake.opening import open_or_create
from fleet.lake.retention import is_deleted
from fleet.lake.rows import BatchRows, table_of
from fleet.lake.schema import SCHEMAS

# Times and row numbers rise by small steps, so they are stored as deltas.  For a synthetic drive, this reduced all
# columns together from 6.3 to 2.3 bytes a sample.  Writing is also faster.
_RISING = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
_WRITER = WriterProperties(compression="ZSTD", compression_level=3, column_properties={"time": _RISING, "row": _RISING})
_PLAIN_WRITER = WriterProperties(compression="ZSTD", compression_level=3)


_CLAIM_TRIES: Final = 10
_REOPEN: Final = 50
"""The number of versions of a table that may be loaded or written before the table is opened anew.

The Delta library keeps some 0.1 MB of each version in the memory of an open table, even for a version with one row.
"""


class Lake:
    """Holds the three tables of a lake, open for appending.  Only one thread may use a `Lake` at a time."""

    def __init__(self, lake: str | Location) -> None:
        self.location = Location.of(lake)
        self._tables = {name: open_or_create(self.location, name) for name in SCHEMAS}
        # The app transactions that were read from the loaded version of each table.  Reading one takes milliseconds.
        self._versions: dict[str, dict[str, int]] = {name: {} for name in SCHEMAS}
        self._held = dict.fromkeys(SCHEMAS, 1)  # how many versions of each table the library holds in memory

    def ids(self) -> dict[str, str]:
        """Return the id of each table.  A table that was deleted and made anew has another id."""
        return {name: str(table.metadata().id) for name, table in self._tables.items()}

    def landed(self, app_id: str) -> dict[str, int]:
        """Return the highest commit number of `app_id` in each table, or 0 for a table that has none."""
        return {name: self._version(name, app_id) for name in self._tables}

    def claim(self, partitions: Sequence[int], own: Generations) -> tuple[dict[int, int], dict[str, dict[int, int]]]:
        """Claim partitions, so that every later append without the new generations fails.

        `own` are the generations of the caller's last claim.  Return the new generations, which are higher than all
        earlier ones, and the generations that each table had before.

        Raises: Transient if the lake refuses.
        """
        for _ in range(_CLAIM_TRIES):
            try:
                for name in self._tables:
                    self._load_newest(name)
                before = {name: {p: self._version(name, claim_id(p)) for p in partitions} for name in self._tables}
                new = {p: 1 + max(own.get(p, 0), *(found[p] for found in before.values())) for p in partitions}
                for name, table in self._tables.items():
                    table.create_write_transaction(
                        [],
                        "append",
                        table.schema(),
                        ["date"],
                        commit_properties=CommitProperties(app_transactions=transactions_of(new)),
                    )
                    force_to_disk(table.table_uri, self._load_newest(name).version())
            except CommitFailedError:
                continue  # Another receiver has written to these partitions at the same moment.
            except (DeltaError, OSError) as error:
                raise Transient(
                    f"The lake {self.location.uri} cannot be written ({error}). "
                    "The receiver tries again; check the storage."
                ) from error
            return new, before
        raise Transient(
            f"Other receivers write to the same partitions of the lake {self.location.uri}. The receiver tries again."
        )

    def known(self) -> list[BatchKey]:
        """Return the key of every batch in the lake.  Raises: Transient if the lake cannot be read."""
        columns = ["vehicle", "epoch", "seq", "digest"]
        try:
            table = self._load_newest("batches").to_pyarrow_table(columns=columns)
        except (DeltaError, OSError) as error:
            raise self._unreadable(error) from error
        keys = zip(*(table[name].to_pylist() for name in columns), strict=True)
        return [BatchKey(vehicle, epoch, seq, bytes.fromhex(digest)) for vehicle, epoch, seq, digest in keys]

    def half_landed(self) -> dict[str, set[bytes]]:
        """Return the digests of the batches that only a part of the tables has, by the table that has them.

        A receiver that dies in the middle of a commit leaves such batches.  Raises: Transient if the lake cannot be
        read.
        """
        try:
            # `batches` is loaded last, so a commit that ends meanwhile counts as complete.
            for name in SCHEMAS:
                self._load_newest(name)
            return {name: self._not_in_batches(name) for name in SCHEMAS if name != "batches"}
        except (DeltaError, OSError) as error:
            raise self._unreadable(error) from error

    def _not_in_batches(self, name: str) -> set[bytes]:
        engine = QueryBuilder().register("t", self._tables[name]).register("b", self._tables["batches"])
        found = engine.execute("SELECT DISTINCT digest FROM t WHERE digest NOT IN (SELECT digest FROM b)")
        return {bytes.fromhex(digest) for digest in pa.table(found.read_all())["digest"].to_pylist()}

    def lacking(self, name: str) -> set[BatchKey]:
        """Return the batches whose rows are missing from the table `name`, although `batches` counts rows for them.

        Rows that a rule of retention has deleted are not missing.  Raises: Transient if the lake cannot be read.
        """
        # The column of `batches` that counts the rows of a table has the table's name.
        question = (
            f"SELECT vehicle, epoch, seq, digest, campaign, date FROM b WHERE {name} > 0 "  # noqa: S608
            "AND digest NOT IN (SELECT digest FROM t)"
        )
        try:
            batches = self._load_newest("batches")
            engine = QueryBuilder().register("b", batches).register("t", self._load_newest(name))
            rows = pa.table(engine.execute(question).read_all()).to_pylist()
        except (DeltaError, OSError) as error:
            raise self._unreadable(error) from error
        return {
            BatchKey(row["vehicle"], row["epoch"], row["seq"], bytes.fromhex(row["digest"]))
            for row in rows
            if not is_deleted(
                name, row["vehicle"], row["campaign"], row["date"], lambda app_id: self._version("batches", app_id)
            )
        }

    def stored(self, days: Mapping[BatchKey, date]) -> set[BatchKey]:
        """Return the given batches that the lake has.  `days` has the day of each batch.

        Raises: Transient if the lake cannot be read.
        """
        # The intake has checked names and digests, so no value contains a quote.
        listed = {
            "date": sorted({f"DATE '{day}'" for day in days.values()}),
            "vehicle": sorted({f"'{key.vehicle}'" for key in days}),
            "digest": sorted({f"'{key.digest.hex()}'" for key in days}),
        }
        terms = " AND ".join(f"{name} IN ({', '.join(values)})" for name, values in listed.items())
        try:
            engine = QueryBuilder().register("t", self._load_newest("batches"))
            found = engine.execute(f"SELECT digest FROM t WHERE {terms}")  # noqa: S608
            digests = {bytes.fromhex(digest) for digest in pa.table(found.read_all())["digest"].to_pylist()}
        except (DeltaError, OSError) as error:
            raise self._unreadable(error) from error
        return {key for key in days if key.digest in digests}

    def append(
        self, name: str, app_id: str, number: int, batches: Sequence[BatchRows], claims: Generations | None = None
    ) -> bool:
        """Append the rows of `batches` to the table `name` as commit `number`, unless the table has this commit.

        `claims` are the generations of the partitions that the caller has claimed.  Return whether there were rows.

        Raises: Fenced if another receiver has claimed one of the partitions; Transient if the storage refuses.  After
        Transient, call `append` again, in this process or after a restart.
        """
        rows = table_of(name, batches)
        # Without rows, the commit number need not be recorded, because a repetition of this commit has no rows either.
        if rows.num_rows == 0:
            return False
        try:
            if not self._versions[name] or self._held[name] >= _REOPEN:
                self._load_newest(name)
            self._check_claims(name, claims or {})
            if self._version(name, app_id) >= number:
                # The commit was appended before a crash, but perhaps not forced to the disk.  Its files are not known
                # any more, so all files of the machine are forced to the disk.
                os.sync()
                return True
            table = self._tables[name]
            # Delta compares the app transactions with those of all commits after the loaded version.
            write_deltalake(
                table,
                rows,
                mode="append",
                writer_properties=writer_properties(name),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(app_id, number), *transactions_of(claims or {})]
                ),
            )
            # The new version may contain commits of other receivers, which have other app transactions.
            self._versions[name] = {app_id: number, **{claim_id(p): new for p, new in (claims or {}).items()}}
            self._held[name] += 1
            force_to_disk(table.table_uri, table.version())
        except (DeltaError, OSError) as error:
            self._versions[name] = {}
            raise Transient(
                f"Commit {number} could not be appended to {self.location.table(name)} ({error}). "
                "The receiver tries again; check the storage."
            ) from error
        return True

    def _check_claims(self, name: str, claims: Generations) -> None:
        lost = self._lost(name, claims)
        if lost:
            # The loaded version may be older than a claim of another receiver with the same inbox.
            self._load_newest(name)
            lost = self._lost(name, claims)
        if lost:
            raise Fenced(
                f"Another receiver has claimed the partitions {', '.join(map(str, lost))} of the lake "
                f"{self.location.uri}, or the lake was put back to an earlier state. Two copies of a fleet folder must "
                "not serve one share. Stop the other receiver, and start this one again. This receiver has "
                "acknowledged nothing that is not in the lake; the vehicles send the rest again."
            )

    def _lost(self, name: str, claims: Generations) -> list[int]:
        return [p for p, generation in claims.items() if self._version(name, claim_id(p)) != generation]

    def _load_newest(self, name: str) -> DeltaTable:
        """Load the newest version of a table, and return the table."""
        self._versions[name] = {}
        if self._held[name] < _REOPEN:
            self._tables[name].update_incremental()
            self._held[name] += 1
        else:
            self._tables[name] = DeltaTable(self.location.table(name), storage_options=self.location.storage_options)
            self._held[name] = 1
        return self._tables[name]

    def _version(self, name: str, app_id: str) -> int:
        """Return the version of an app transaction in the loaded version of the table, or 0 if there is none."""
        known = self._versions[name]
        if app_id not in known:
            known[app_id] = self._tables[name].transaction_version(app_id) or 0
        return known[app_id]

    def _unreadable(self, error: Exception) -> Transient:
        return Transient(
            f"The lake {self.location.uri} cannot be read ({error}). The receiver tries again; check the storage."
        )


def writer_properties(name: str) -> WriterProperties:
    """Return the compression and encoding for the files of the table `name`."""
    return _WRITER if name == "samples" else _PLAIN_WRITER
