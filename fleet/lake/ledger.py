"""The lake's ledger: every sequence number of every vehicle explained, from the tables batches and events.

No table of its own: what is stored stands in `batches`, why the rest is not stands in the loss events that the vehicles
sent; `agent.formats.up.ledger` puts the two together as the vehicle does (`headunit-agent status --ledger`), so both
views can be compared number by number.  A number whose batch was replaced shares the fate of the batch that has its
samples.

Invariant: a loss that two batches report counts once; its id and the epoch of the batch name it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.formats.up.ledger import Range, Record, Span, State, explain
from fleet.lake.location import Location
from fleet.lake.query import Answer, query

COLUMNS: Final = (
    "vehicle",
    "epoch",
    "state",
    "reason",
    "lane",
    "first_seq",
    "last_seq",
    "batches",
    "samples",
    "frames",
    "first",
    "last",
    "exact",
    "bus",
    "detail",
)
_STORED: Final = """
    SELECT vehicle, epoch, min(seq) AS first, max(seq) AS last
    FROM (SELECT vehicle, epoch, seq, seq - row_number() OVER (PARTITION BY vehicle, epoch ORDER BY seq) AS island
          FROM (SELECT vehicle, epoch, seq FROM batches
                UNION SELECT vehicle, epoch, unnest(replaces) FROM batches)
          WHERE $vehicle IS NULL OR vehicle = $vehicle)
    GROUP BY vehicle, epoch, island ORDER BY vehicle, epoch, first"""
_REPORTED: Final = """
    SELECT vehicle, fields FROM events
    WHERE kind = 'loss' AND ($vehicle IS NULL OR vehicle = $vehicle)
    QUALIFY row_number() OVER (PARTITION BY vehicle, epoch, fields->>'$.id' ORDER BY seq, row) = 1
    ORDER BY vehicle, time, seq, row"""
_EPOCH_0: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What the lake knows of one life of a vehicle's spool."""

    stored: list[Range]
    reports: list[tuple[Record, Mapping[str, Any]]]

    @property
    def last(self) -> int:
        """The highest number that anything mentions."""
        here = [last for _, last in self.stored]
        return max([*here, *(record.last_seq or 0 for record, _ in self.reports)], default=0)


def ledger(lake: str | Location, *, vehicle: str | None = None, limit: int, stored: bool) -> Answer:
    """A row for each run of numbers that share their fate, and for each loss that concerns no numbers.

    `stored`: also those in the lake.  Permanent where there is no lake.
    """
    rows = [
        row
        for key, epoch in sorted(_epochs(lake, vehicle).items())
        for row in _rows(key, epoch)
        if stored or row[2] != State.STORED
    ]
    return Answer(COLUMNS, tuple(rows[:limit]))


def _epochs(lake: str | Location, vehicle: str | None) -> dict[_Key, _Epoch]:
    parameters = {"vehicle": vehicle}
    found: defaultdict[_Key, _Epoch] = defaultdict(lambda: _Epoch([], []))
    for line in query(lake, _STORED, parameters).to_pylist():
        found[line["vehicle"], line["epoch"]].stored.append((line["first"], line["last"]))
    for line in query(lake, _REPORTED, parameters).to_pylist():
        fields = json.loads(line["fields"])
        found[line["vehicle"], fields.get("epoch", "")].reports.append((_record(fields), fields))
    return found


def _record(fields: Mapping[str, Any]) -> Record:
    names = ("first_seq", "last_seq", "first_t_us", "last_t_us")
    counts = (fields.get("batches", 0), fields.get("samples", 0))
    return Record(fields["reason"], fields.get("lane"), *counts, *(fields.get(name) for name in names))


def _rows(key: _Key, epoch: _Epoch) -> Iterable[tuple[object, ...]]:
    fields_of = {id(record): fields for record, fields in epoch.reports}
    spans = explain(epoch.last, {State.STORED: epoch.stored}, [record for record, _ in epoch.reports])
    told: set[int] = set()
    for span in spans:
        counted = span.record is not None and id(span.record) not in told  # once, where a record explains several spans
        told.add(id(span.record))
        yield _row(key, span, fields_of.get(id(span.record), {}), counted=counted)
    for record, fields in epoch.reports:
        if id(record) not in told and not (record.first_seq is not None and record.batches):
            yield _row(key, Span(0, 0, State.LOST, record), fields, counted=True)


def _row(key: _Key, span: Span, fields: Mapping[str, Any], *, counted: bool) -> tuple[object, ...]:
    numbers: tuple[int | None, int | None, int] = (span.first, span.last, span.batches)
    # Nobody counted what lies in batches that are stored (the table `batches` says), or of which nothing is known.
    unknown = 0 if span.record is not None else None
    if span.first == 0:
        numbers = (None, None, fields.get("batches", 0))
    return (
        *key,
        str(span.state),
        fields.get("reason") or ("not here, not explained" if span.state is State.OPEN else None),
        fields.get("lane"),
        *numbers,
        fields.get("samples", 0) if counted else unknown,
        fields.get("frames", 0) if counted else unknown,
        _time(fields.get("first_t_us")),
        _time(fields.get("last_t_us")),
        span.exact,
        fields.get("bus"),
        fields.get("detail"),
    )


def _time(t_us: int | None) -> str | None:
    if t_us is None:
        return None
    return (_EPOCH_0 + timedelta(microseconds=t_us)).isoformat(sep=" ").replace("+00:00", "Z")
