"""Judges what restored disks leave behind, in the lake and in its ledger.

Lakes that were replaced by an older image are kept.  The verdict joins them to the last lake, because their batches
were acknowledged and deleted, and are gone for good.

At the end of each chapter the vehicle has delivered or reported all of its log.  What a restored vehicle delivers of
earlier chapters comes on top: a window that was reported as lost, or checkpoints of a window that was delivered as a
whole.  These batches are *repeated*.  Their samples must be right, and the ledger must list them as `twice` if their
window is here.  The comparison of all samples leaves them out.  If the restored vehicle loses such samples, it reports
a loss of samples that were accounted for already.  The sum of losses leaves these reports out.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from agent.formats.up.ledger import State
from fleet.lake.ledger import TWICE, ledger
from fleet.lake.schema import SCHEMAS
from tests.faults.schedule import Restored


@dataclass(frozen=True, slots=True)
class PutBack:
    """One restored disk, at `at_us` after the Unix epoch.

    `digests` are those of all batches of the vehicle that had been in a lake until then.  `replaced` is a copy of the
    lake that was replaced, if any.
    """

    restored: Restored
    at_us: int
    digests: frozenset[str]
    replaced: Path | None = None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Counts what restored disks left behind.

    `repeated` counts the batches that a restored vehicle delivered on top, and `repeated_wrong` those of their samples
    that the log does not have.  `twice` counts the samples that the ledger lists as twice, and `twice_unlisted` by how
    many this number is wrong.  `gone` counts the batches that only a replaced lake had, and `gone_unnamed` the numbers
    of which the ledger of the last lake does not say rightly whether they are here.  `unsaid` describes what the
    receiver did not say at its start.
    """

    restored: Counter[Restored]
    repeated: int = 0
    repeated_wrong: int = 0
    twice: int = 0
    twice_unlisted: int = 0
    gone: int = 0
    gone_unnamed: int = 0
    unsaid: tuple[str, ...] = ()

    @property
    def wrong(self) -> int:
        """Return 0 if everything is as it must be."""
        return self.repeated_wrong + self.twice_unlisted + self.gone_unnamed + len(self.unsaid)


def digests(lakes: Iterable[Path], vehicle: str) -> frozenset[str]:
    """Return the digests of all batches of `vehicle` in the lakes."""
    return frozenset(digest for lake in lakes for digest in _rows(lake, "batches", vehicle)["digest"].to_pylist())


def numbers(lake: Path) -> set[tuple[str, str, int]]:
    """Return vehicle, epoch and number of all batches of all vehicles."""
    table = DeltaTable(str(lake / "batches")).to_pyarrow_table(columns=["vehicle", "epoch", "seq"])
    return set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def join(lakes: Sequence[Path], vehicle: str, into: Path) -> Path:
    """Write the batches of `vehicle` in all `lakes`, each once, as a new lake."""
    for name in SCHEMAS:
        seen: set[str] = set()
        parts = []
        for lake in lakes:
            rows = _rows(lake, name, vehicle)
            parts.append(_without(rows, seen))
            seen |= set(rows["digest"].unique().to_pylist())
        _write(into / name, pa.concat_tables(parts))
    return into


def leave_out(lake: Path, vehicle: str, left_out: Collection[str], put_back: Sequence[PutBack], into: Path) -> Path:
    """Write a lake without the batches whose digests are `left_out`, and without losses that came on top.

    The other events of these batches stay, because they may report further losses.
    """
    for name in SCHEMAS:
        rows = _rows(lake, name, vehicle)
        if name == "events":
            kept = [not any(_on_top(row, each) for each in put_back) for row in rows.to_pylist()]
            _write(into / name, rows.filter(pa.array(kept, pa.bool_())))
        else:
            _write(into / name, _without(rows, left_out))
    return into


def _on_top(event: dict[str, Any], put_back: PutBack) -> bool:
    """Return whether an event reports, after a disk was put back, a loss of samples of an earlier chapter.

    Samples have the times of the logs.  Batches of events have times of the vehicle's clock, which campaigns set back.
    """
    if event["kind"] != "loss" or event["digest"] in put_back.digests:
        return False
    fields = json.loads(event["fields"])
    return fields.get("samples", 0) > 0 and fields.get("last_t_us", put_back.at_us) < put_back.at_us


def repeated(lake: Path, vehicle: str, put_back: Iterable[PutBack]) -> set[str]:
    """Return the digests of all batches that a restored vehicle has delivered on top."""
    batches = _rows(lake, "batches", vehicle).select(["digest", "end", "samples"]).to_pylist()
    return {
        row["digest"]
        for each in put_back
        for row in batches
        if row["samples"] and row["digest"] not in each.digests and _us(row["end"]) < each.at_us
    }


def samples_of(lake: Path, only: Collection[str]) -> pa.Table:
    """Return the samples of the batches with these digests."""
    wanted = pa.array(sorted(only), pa.string())
    return DeltaTable(str(lake / "samples")).to_pyarrow_dataset().to_table(filter=pc.field("digest").isin(wanted))


def twice(lake: Path, vehicle: str, repeats: Collection[str]) -> tuple[int, int]:
    """Return how many samples the ledger lists as twice, and how many of `repeats` it should list."""
    batches = _rows(lake, "batches", vehicle).select(["digest", "epoch", "window", "samples"]).to_pylist()
    windows = {row["window"] for row in batches}
    listed = sum(row["samples"] for row in _ledger(lake, vehicle) if row["state"] == TWICE)
    return listed, sum(row["samples"] for row in batches if row["digest"] in repeats and row["epoch"] in windows)


def gone(last: Path, joined: Path, vehicle: str) -> tuple[int, int]:
    """Return how many batches the last lake lacks, and how many numbers its ledger explains wrongly.

    The last lake does not know of a gone number above the highest one of its epoch.  The epoch of a window may have
    such numbers, and the spool's epoch has none, because the vehicle has gone on counting.
    """
    here, all_ = (
        _rows(lake, "batches", vehicle).select(["epoch", "seq", "digest"]).to_pylist() for lake in (last, joined)
    )
    missing = {(row["epoch"], row["seq"]) for row in all_} - {(row["epoch"], row["seq"]) for row in here}
    open_, lost = _numbers(last, vehicle, State.OPEN), _numbers(last, vehicle, State.LOST)
    highest: dict[str, int] = {}
    for epoch, seq in [*((row["epoch"], row["seq"]) for row in here), *open_, *lost]:
        highest[epoch] = max(seq, highest.get(epoch, 0))
    unnamed = {(epoch, seq) for epoch, seq in missing - open_ - lost if seq <= highest.get(epoch, 0)}
    invented = open_ - missing - _numbers(joined, vehicle, State.LOST)
    batches = {row["digest"] for row in all_} - {row["digest"] for row in here}
    return len(batches), len(unnamed) + len(invented)


def _numbers(lake: Path, vehicle: str, state: State) -> set[tuple[str, int]]:
    return {
        (row["epoch"], seq)
        for row in _ledger(lake, vehicle)
        if row["state"] == state and row["first_seq"] is not None
        for seq in range(row["first_seq"], row["last_seq"] + 1)
    }


def _ledger(lake: Path, vehicle: str) -> list[dict[str, Any]]:
    answer = ledger(str(lake), vehicle=vehicle, limit=1_000_000, stored=False)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _rows(lake: Path, name: str, vehicle: str) -> pa.Table:
    # The hostile vehicle has millions of rows, so they are not read.
    data = DeltaTable(str(lake / name)).to_pyarrow_dataset(schema=SCHEMAS[name])
    return data.to_table(filter=pc.field("vehicle") == vehicle)


def _without(rows: pa.Table, left_out: Collection[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["digest"], value_set=pa.array(sorted(left_out), pa.string()))))


def _write(uri: Path, rows: pa.Table) -> None:
    write_deltalake(str(uri), rows, partition_by=["date"])


def _us(time: Any) -> int:
    return round(time.timestamp() * 1e6)
