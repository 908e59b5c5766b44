"""Says for every sequence number of every vehicle whether its batch is stored, lost (and why) or not explained yet.

The ledger has no table of its own.  The table `batches` says which numbers are stored.  The loss events of the
vehicles, in the table `events`, say why other numbers are missing.

A vehicle prints its own ledger with `headunit-agent status --ledger`.  `agent.formats.up.ledger` builds that ledger and
this one, so they can be compared number by number.

Invariant: a loss counts only once, even if two batches report it.  A loss is identified by the vehicle, the id of the
loss, and the epoch of the batch that reports the loss.
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
# In a run of numbers without gaps, the number and its rank differ by a constant.  This difference identifies the run.
_STORED: Final = """
    SELECT vehicle, epoch, min(seq) AS first, max(seq) AS last
    FROM (SELECT vehicle, epoch, seq, seq - row_number() OVER (PARTITION BY vehicle, epoch ORDER BY seq) AS island
          FROM batches WHERE $vehicle IS NULL OR vehicle = $vehicle)
    GROUP BY vehicle, epoch, island ORDER BY vehicle, epoch, first"""
# A vehicle reports losses again, under the same ids, if it discarded the batch that reported them.  The discarded batch
# may have arrived all the same, so each id counts only once.
_REPORTED: Final = """
    SELECT vehicle, epoch, fields FROM events
    WHERE kind = 'loss' AND ($vehicle IS NULL OR vehicle = $vehicle)
    QUALIFY row_number() OVER (PARTITION BY vehicle, epoch, fields->>'$.id' ORDER BY seq, row) = 1
    ORDER BY vehicle, time, seq, row"""
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Report(Record):
    """Holds a loss record from the lake.

    `reported_in` is the epoch of the batch that reported the loss.  `reported_in` and `id` together identify the loss
    among all losses of the vehicle.
    """

    reported_in: str = ""
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
    """Holds the stored numbers and the loss reports of one epoch of a vehicle."""

    stored: list[Range]
    reports: list[Report]

    @property
    def last(self) -> int:
        """Return the highest sequence number that is stored or that a loss report names, or 0 if there is none."""
        here = [last for _, last in self.stored]
        return max([*here, *(report.last_seq or 0 for report in self.reports)], default=0)


def ledger(lake: str | Location, *, vehicle: str | None = None, limit: int, stored: bool) -> Answer:
    """Return at most `limit` rows: one for each run of sequence numbers that have the same explanation.

    A loss before sealing, such as a loss of frames, has no sequence numbers and gets a row of its own.  Runs of stored
    batches get rows only if `stored` is set.

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
    found: defaultdict[_Key, _Epoch] = defaultdict(lambda: _Epoch([], []))
    for line in query(lake, _STORED, parameters).to_pylist():
        found[line["vehicle"], line["epoch"]].stored.append((line["first"], line["last"]))
    for line in query(lake, _REPORTED, parameters).to_pylist():
        fields = _read_fields(line["fields"])
        # A batch of one epoch may report losses of another epoch, for example of an earlier spool.
        found[line["vehicle"], fields.epoch].reports.append(_report(line["epoch"], fields))
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


def _report(reported_in: str, fields: _Fields) -> Report:
    names = [each.name for each in dataclasses.fields(Report) if each.name != "reported_in"]
    return Report(**{name: getattr(fields, name) for name in names}, reported_in=reported_in)


def _rows(key: _Key, epoch: _Epoch) -> Iterable[tuple[object, ...]]:
    listed: set[Record] = set()
    for span in explain(epoch.last, {State.STORED: epoch.stored}, epoch.reports):
        # If a report explains several spans, only the first span shows the report's counts.
        yield _row(key, span, counted=span.record is not None and span.record not in listed)
        if span.record is not None:
            listed.add(span.record)
    for report in epoch.reports:
        if report not in listed and not (report.first_seq is not None and report.batches):
            yield _row(key, Span(0, 0, State.LOST, report), counted=True)


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
