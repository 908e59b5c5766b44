"""Says for every sequence number of every vehicle whether its batch is stored, lost (and why) or not explained yet.

The ledger has no table of its own.  The table `batches` says which numbers are stored.  The loss events of the
vehicles, in the table `events`, say why other numbers are missing.

A vehicle prints its own ledger with `headunit-agent status --ledger`.  `agent.formats.up.ledger` builds that ledger and
this one, so they can be compared number by number.

Invariant: a loss counts only once, even if two batches report it.  A loss is identified by the vehicle, the epoch of
the batch that reports the loss, and the contents of the report, which include the id of the loss.  The id alone is not
enough, because a disk that is put back uses ids again.

In a forked epoch (see fleet.lake.batch_key) one number names several batches.  The ledger lists these numbers a second
time, as `forked`.  A report of such an epoch is always listed, even if all its numbers are stored, because the stored
batches may be others than the lost ones.  The same holds if the times of the lost batches differ from those of the
stored ones.  No report names batches that were on a disk when the disk was replaced.  An entry `forked` says that this
may have happened.

A disk that is put back may still have checkpoints of a window that the vehicle has already sent (docs/decisions/0017).
If both are in the lake, the samples of the checkpoints are there twice.  The ledger lists these checkpoints as `twice`.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from agent.formats.up.ledger import Range, Record, Span, State, explain
from agent.formats.up.limits import MAX_SEQ
from agent.system.times import utc_text_of
from fleet.lake.location import Location
from fleet.lake.opened_batch import LATEST_US
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
FORKED: Final = "forked"
"""The state of numbers that several batches have.  The row counts the batches beyond the first of each number."""
_FORKED_BECAUSE: Final = "a disk was put back, or a head unit was copied"
TWICE: Final = "twice"
"""The state of checkpoints whose window is also in the lake.  A question about samples can leave out their epoch."""
_TWICE_BECAUSE: Final = "checkpoints of a window that is also here"
# In a run of numbers without gaps, the number and its rank differ by a constant.  This difference identifies the run.
_RUNS: Final = """
    SELECT vehicle, epoch, min(seq) AS first, max(seq) AS last, sum(batches - 1)::BIGINT AS others
    FROM (SELECT vehicle, epoch, seq, count(*) AS batches,
                 seq - row_number() OVER (PARTITION BY vehicle, epoch ORDER BY seq) AS island
          FROM batches WHERE $vehicle IS NULL OR vehicle = $vehicle
          GROUP BY vehicle, epoch, seq HAVING count(*) >= $copies)
    GROUP BY vehicle, epoch, island ORDER BY vehicle, epoch, first"""
# A vehicle reports losses again, with the same contents, if it discarded the batch that reported them.  The discarded
# batch may have arrived all the same, so each report counts only once.
_REPORTED: Final = """
    WITH reports AS (
        SELECT vehicle, epoch, fields, min((time, seq, row)) AS place, any_value(fields->>'$.epoch') AS lost_epoch,
               any_value(try_cast(fields->>'$.first_seq' AS BIGINT)) AS first_seq,
               any_value(try_cast(fields->>'$.last_seq' AS BIGINT)) AS last_seq,
               any_value(try_cast(fields->>'$.first_t_us' AS BIGINT)) AS first_t_us,
               any_value(try_cast(fields->>'$.last_t_us' AS BIGINT)) AS last_t_us
        FROM events WHERE kind = 'loss' AND ($vehicle IS NULL OR vehicle = $vehicle)
        GROUP BY vehicle, epoch, fields
    )
    SELECT reports.vehicle, reports.epoch, fields,
           (max(epoch_us("end")) < any_value(first_t_us) OR min(epoch_us(start)) > any_value(last_t_us)) IS TRUE
           AS of_others
    FROM reports LEFT JOIN batches
    ON batches.vehicle = reports.vehicle AND batches.epoch = lost_epoch AND batches.seq BETWEEN first_seq AND last_seq
    GROUP BY reports.vehicle, reports.epoch, fields, place ORDER BY reports.vehicle, place"""
_CHECKPOINTS: Final = """
    SELECT vehicle, epoch, any_value(lane) AS lane, min(seq) AS first, max(seq) AS last, count(*) AS batches,
           sum(samples)::BIGINT AS samples
    FROM batches AS checkpoints
    WHERE ($vehicle IS NULL OR vehicle = $vehicle) AND EXISTS (
        SELECT 1 FROM batches WHERE batches.vehicle = checkpoints.vehicle AND batches.window = checkpoints.epoch
    )
    GROUP BY vehicle, epoch"""
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Report(Record):
    """Holds a loss record from the lake.

    `reported_in` is the epoch of the batch that reported the loss.  Unless this epoch is forked, `reported_in` and `id`
    together identify the loss among all losses of the vehicle.  `of_others` is set if the times of the batches that
    the lake has under these numbers differ from the times of the lost ones.
    """

    reported_in: str = ""
    of_others: bool = False
    id: int = 0
    frames: int = 0
    bus: str | None = None
    detail: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
_Time = Annotated[int, msgspec.Meta(ge=0, lt=LATEST_US)]


class _Fields(msgspec.Struct, frozen=True):
    """Holds the fields of a loss event that the ledger needs.

    An event has no entry for a field without a value, and the field then keeps its default.
    """

    reason: str
    epoch: str = ""
    id: _Count = 0
    lane: str | None = None
    bus: str | None = None
    detail: str | None = None
    batches: _Count = 0
    samples: _Count = 0
    frames: _Count = 0
    first_seq: _Count | None = None
    last_seq: _Count | None = None
    first_t_us: _Time | None = None
    last_t_us: _Time | None = None

    def __post_init__(self) -> None:
        if self.first_seq is not None and (self.last_seq is None or self.last_seq < self.first_seq):
            raise ValueError("the range of sequence numbers has no end, or ends before it begins")


@dataclass(frozen=True, slots=True)
class _Epoch:
    """Holds the stored numbers and the loss reports of one epoch of a vehicle.

    `forked` has the ranges of numbers that several batches have.  Each comes with the number of batches beyond the
    first of each number.  If the epoch is a window that is in the lake as well, `twice` has the row of its checkpoints.
    """

    stored: list[Range]
    reports: list[Report]
    forked: list[tuple[Range, int]]
    twice: list[tuple[object, ...]]

    @property
    def last(self) -> int:
        """Return the highest sequence number that is stored or that a loss report names, or 0 if there is none."""
        here = [last for _, last in self.stored]
        return max([*here, *(report.last_seq or 0 for report in self.reports)], default=0)


def ledger(lake: str | Location, *, vehicle: str | None = None, limit: int, stored: bool) -> Answer:
    """Return at most `limit` rows: one for each run of sequence numbers that have the same explanation.

    A loss before sealing, such as a loss of frames, has no sequence numbers and gets a row of its own.  Runs of stored
    batches get rows only if `stored` is set.  Forked numbers, and checkpoints whose window is also in the lake, have
    rows of their own after the runs of their epoch.

    Raises: Permanent if there is no lake.
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
    found: defaultdict[_Key, _Epoch] = defaultdict(lambda: _Epoch([], [], [], []))
    for line in query(lake, _RUNS, {**parameters, "copies": 1}).to_pylist():
        found[line["vehicle"], line["epoch"]].stored.append((line["first"], line["last"]))
    for line in query(lake, _RUNS, {**parameters, "copies": 2}).to_pylist():
        found[line["vehicle"], line["epoch"]].forked.append(((line["first"], line["last"]), line["others"]))
    for line in query(lake, _CHECKPOINTS, parameters).to_pylist():
        counts = (line["lane"], line["first"], line["last"], line["batches"], line["samples"], None)
        found[line["vehicle"], line["epoch"]].twice.append(
            (TWICE, _TWICE_BECAUSE, *counts, None, None, True, None, None)
        )
    for line in query(lake, _REPORTED, parameters).to_pylist():
        fields = _read_fields(line["fields"])
        # A batch of one epoch may report losses of another epoch, for example of an earlier spool.
        found[line["vehicle"], fields.epoch].reports.append(_report(line["epoch"], line["of_others"], fields))
    return found


def _read_fields(fields: str) -> _Fields:
    """Return the fields of a loss event.

    If the fields are not valid, return a record that says so.  One faulty vehicle must not make the ledger of all other
    vehicles fail.
    """
    try:
        return msgspec.json.decode(fields, type=_Fields)
    except msgspec.ValidationError as error:
        return _Fields(reason="unreadable report", detail=str(error))


def _report(reported_in: str, of_others: bool, fields: _Fields) -> Report:
    names = {each.name for each in dataclasses.fields(Report)} - {"reported_in", "of_others"}
    return Report(**{name: getattr(fields, name) for name in names}, reported_in=reported_in, of_others=of_others)


def _rows(key: _Key, epoch: _Epoch) -> Iterable[tuple[object, ...]]:
    listed: set[Record] = set()
    for span in explain(epoch.last, {State.STORED: epoch.stored}, epoch.reports):
        # If a report explains several spans, only the first span shows the report's counts.
        yield _row(key, span, counted=span.record is not None and span.record not in listed)
        if span.record is not None:
            listed.add(span.record)
    for (first, last), others in epoch.forked:
        yield (*key, FORKED, _FORKED_BECAUSE, None, first, last, others, *[None] * 4, True, None, None)
    for row in epoch.twice:
        yield (*key, *row)
    for report in epoch.reports:
        names_numbers = report.first_seq is not None and report.batches > 0
        if report not in listed and (epoch.forked or report.of_others or not names_numbers):
            yield _row(key, Span(0, 0, State.LOST, report, exact=not names_numbers), counted=True)


def _row(key: _Key, span: Span, *, counted: bool) -> tuple[object, ...]:
    report = span.record if isinstance(span.record, Report) else None
    numbers: tuple[int | None, int | None, int] = (span.first, span.last, span.batches)
    if report is not None and span.first == 0:
        numbers = (None, None, report.batches)
    # Without a report the counts are null.  For a stored batch, the table `batches` has them.  For a batch that is
    # neither stored nor explained, they are unknown.
    counts: tuple[int | None, int | None] = (None, None)
    if report is not None:
        counts = (report.samples, report.frames) if counted else (0, 0)
    reason = report.reason if report is not None else None
    return (
        *key,
        str(span.state),
        reason or ("not here, not explained" if span.state is State.OPEN else None),
        report.lane if report is not None else None,
        *numbers,
        *counts,
        _time(report.first_t_us) if report is not None else None,
        _time(report.last_t_us) if report is not None else None,
        span.exact,
        report.bus if report is not None else None,
        report.detail if report is not None else None,
    )


def _time(t_us: int | None) -> str | None:
    return None if t_us is None else utc_text_of(t_us)
