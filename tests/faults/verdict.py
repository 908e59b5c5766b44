"""Compares the lake with cantools on the same log, and the missing samples with the ledger of losses.

The ledger must explain every missing sample and every missing batch number.  If an acknowledgement is lost, the vehicle
may evict a batch that the receiver has stored.  Such a batch is in the lake and in the ledger, and counts as stored.
If it was a batch of events, the vehicle reports its losses again.  Two reports with the same contents count as one
loss.  Neither the id of a loss nor the number of a batch is enough, because a disk that is put back uses both again.
A stored batch is therefore the reported one only if its times lie within those of the report.
"""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from agent.formats.up.ledger import State
from fleet.lake.ledger import ledger
from fleet.lake.query import query
from lab.demo.compare import Comparison, compare
from lab.demo.oracle import expected_samples, read_log
from tests.faults import drive
from tests.faults.restored import Aftermath, PutBack, gone, join, leave_out, repeated, samples_of, twice
from tests.faults.schedule import DISK, LINK, Kind, Restored, Track

_LOSSES = """
WITH losses AS (
    SELECT DISTINCT vehicle, events.epoch AS reported_in, fields, fields->>'$.reason' AS reason,
           fields->>'$.epoch' AS epoch, coalesce((fields->>'$.samples')::BIGINT, 0) AS samples,
           (fields->>'$.first_seq')::BIGINT AS first_seq, (fields->>'$.last_seq')::BIGINT AS last_seq,
           coalesce((fields->>'$.first_t_us')::BIGINT, 0) AS first_t_us,
           coalesce((fields->>'$.last_t_us')::BIGINT, 9223372036854775807) AS last_t_us
    FROM events WHERE kind = 'loss'
)
SELECT reason, sum(samples - coalesce((
    SELECT sum(samples) FROM batches
    WHERE batches.vehicle = losses.vehicle AND batches.epoch = losses.epoch AND seq BETWEEN first_seq AND last_seq
          AND epoch_us(start) >= first_t_us AND epoch_us("end") <= last_t_us
), 0))::BIGINT AS lost FROM losses GROUP BY reason ORDER BY reason
"""


TELLING = (
    "publish_refused",
    "acknowledgement_refused",
    "disk_refuses",
    "start_postponed",
    "store_unavailable",
    "link_lost",
    "broker_lost",
    "log_continues",
    "epoch_forked",
    "inbox_is_older",
    "lake_is_older",
    "batch_refused",
    "vehicle_over_its_share",
)
"""The programs log these events when a fault affects them."""


def said(*logs: Path) -> Counter[str]:
    """Count how often each event occurs in logs of JSON lines."""
    events: Counter[str] = Counter()
    for log in logs:
        for line in log.read_text(errors="replace").splitlines():
            # A killed program leaves half a line, and the receiver's last line holds totals instead of an event.
            with suppress(ValueError, KeyError):
                events[json.loads(line)["event"]] += 1
    return events


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts lost samples by reason, without those that are in the lake, and batches that nothing explains."""

    lost: dict[str, int]
    unexplained_batches: int

    @classmethod
    def read(cls, lake: str) -> "Ledger":
        """Read the ledger from the lake's tables."""
        lost = {row["reason"]: row["lost"] for row in query(lake, _LOSSES).to_pylist() if row["lost"]}
        answer = ledger(lake, limit=1_000_000, stored=False)
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        return cls(lost, sum(int(str(row["batches"])) for row in rows if row["state"] == State.OPEN))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the lakes of one campaign show."""

    comparison: Comparison
    ledger: Ledger
    aftermath: Aftermath
    frames_read: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one campaign.

    `frames_written` were written to the logs, and `frames_read` were read from them by the oracle.
    """

    seed: int
    minutes: float
    happened: Counter[tuple[Track, Kind]]
    comparison: Comparison
    ledger: Ledger
    aftermath: Aftermath
    hostile_messages: int
    no_disk: str | None
    said: Counter[str]
    seconds: float
    frames_written: int
    frames_read: int

    @property
    def frames_not_read(self) -> int:
        """Return how many of the frames in the logs the oracle did not read, or read too often."""
        return abs(self.frames_written - self.frames_read)

    @property
    def lost_unaccounted(self) -> int:
        """Return how many samples are missing from both the lake and the ledger."""
        return max(0, self.comparison.missing - sum(self.ledger.lost.values()))

    @property
    def lost_in_words_only(self) -> int:
        """Return how many more samples the ledger calls lost than are missing."""
        return max(0, sum(self.ledger.lost.values()) - self.comparison.missing)

    @property
    def passed(self) -> bool:
        """Return whether the ledger explains exactly the missing samples, and no sample is double or different."""
        wrong = (
            self.lost_unaccounted,
            self.lost_in_words_only,
            self.ledger.unexplained_batches,
            self.comparison.duplicates,
            self.comparison.differing,
            self.aftermath.wrong,
            self.frames_not_read,
        )
        return not any(wrong) and self.comparison.in_lake > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the content of build/faults.json."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "minutes": self.minutes,
            "kills": {t.value: self.happened[t, Kind.KILL] for t in (Track.AGENT, Track.BROKER, Track.RECEIVER)},
            "link_faults": self._count(LINK),
            "disk_faults": self._count(DISK),
            "clock_jumps": self._count({Kind.JUMP}),
            "registry": self._count({Kind.NOT_ENROLLED}),
            "restored": {kind.value: self.aftermath.restored[kind] for kind in Restored},
            "hostile_messages": self.hostile_messages,
            "faults": {f"{track} {kind}": n for (track, kind), n in sorted(self.happened.items())},
            "disk_full_by": "not at all: " + self.no_disk if self.no_disk else "a small tmpfs of its own",
            "programs_said": {event: self.said[event] for event in TELLING},
            "frames_written": self.frames_written,
            "frames_not_read": self.frames_not_read,
            "samples_expected": self.comparison.expected,
            "samples_in_lake": self.comparison.in_lake,
            "lost_unaccounted": self.lost_unaccounted,
            "lost_accounted": self.ledger.lost,
            "lost_in_words_only": self.lost_in_words_only,
            "unexplained_batches": self.ledger.unexplained_batches,
            "duplicates": self.comparison.duplicates,
            "differing": self.comparison.differing,
            "repeated_batches": self.aftermath.repeated,
            "repeated_wrong": self.aftermath.repeated_wrong,
            "twice": self.aftermath.twice,
            "twice_unlisted": self.aftermath.twice_unlisted,
            "gone_with_lake": self.aftermath.gone,
            "gone_unnamed": self.aftermath.gone_unnamed,
            "unsaid": list(self.aftermath.unsaid),
            "examples": list(self.comparison.examples),
            "seconds": round(self.seconds, 1),
        }

    def _count(self, kinds: frozenset[Kind] | set[Kind]) -> int:
        return sum(n for (_, kind), n in self.happened.items() if kind in kinds)


def judge_samples(logs: Sequence[Path], vehicle: str, last: Path, put_back: Sequence[PutBack], folder: Path) -> Judged:
    """Decode the logs with cantools, and compare the samples with those of the last lake and of the replaced ones.

    Lakes that are made for the comparison are written to `folder`.
    """
    frames = itertools.chain.from_iterable(map(read_log, logs))
    expected = expected_samples(frames, drive.DATABASES, "exact", [({}, drive.CAMPAIGNS)])
    joined = join([last, *(each.replaced for each in put_back if each.replaced)], vehicle, folder / "joined")
    repeats = repeated(joined, vehicle, put_back)
    once = leave_out(joined, vehicle, repeats, put_back, folder / "once")
    wrong = compare(expected, samples_of(joined, repeats))
    listed, right = twice(joined, vehicle, repeats)
    gone_batches, gone_unnamed = gone(last, joined, vehicle)
    return Judged(
        compare(expected, DeltaTable(str(once / "samples")).to_pyarrow_table()),
        Ledger.read(str(once)),
        Aftermath(
            Counter(each.restored for each in put_back),
            repeated=len(repeats),
            repeated_wrong=wrong.duplicates + wrong.differing,
            twice=listed,
            twice_unlisted=abs(listed - right),
            gone=gone_batches,
            gone_unnamed=gone_unnamed,
        ),
        expected.frames,
    )


def render(verdict: Verdict) -> str:
    """Return the result as text for people."""
    found = verdict.as_dict()
    kills = ", ".join(f"{n} of the {name}" for name, n in found["kills"].items())
    lost = ", ".join(f"{n:,} {reason}" for reason, n in found["lost_accounted"].items()) or "nothing"
    after = verdict.aftermath
    restored = ", ".join(f"{n} of {kind}" for kind, n in found["restored"].items() if n) or "none"
    lines = [
        f"seed {verdict.seed}, {verdict.minutes:g} minutes ({verdict.seconds:.0f} s with draining and comparing)",
        f"kills: {kills}; {found['link_faults']} link faults, {found['disk_faults']} disk faults, "
        f"{found['clock_jumps']} clock jumps, {found['registry']} times not enrolled, "
        f"{verdict.hostile_messages:,} hostile messages",
        f"restored disks: {restored}; {after.repeated:,} batches delivered again, {after.repeated_wrong:,} of their "
        f"samples wrong; {after.twice:,} samples twice and listed ({after.twice_unlisted:,} wrongly)",
        f"batches gone with a lake: {after.gone:,}, numbers of which the ledger is wrong: {after.gone_unnamed:,}",
        *after.unsaid,
        f"{verdict.frames_written:,} frames were written to the logs, and the oracle read {verdict.frames_read:,}",
        f"cantools decodes {found['samples_expected']:,} samples, the lake has {found['samples_in_lake']:,}",
        f"samples lost and accounted for: {lost}",
        f"samples lost without account: {found['lost_unaccounted']:,}, accounted for and not lost: "
        f"{found['lost_in_words_only']:,}, batches unexplained: {found['unexplained_batches']:,}",
        f"double: {found['duplicates']:,}, differing: {found['differing']:,}",
        *(f"  e.g. {example}" for example in found["examples"] if not verdict.passed),
        f"disk full by {found['disk_full_by']}",
        "PASSED" if verdict.passed else f"FAILED; repeat it: make faults {repeat(verdict.seed, verdict.minutes)}",
    ]
    return "\n".join(lines)


def repeat(seed: int, minutes: float) -> str:
    """Return the variables with which `make faults` repeats the same faults."""
    return f"SEED={seed} MINUTES={minutes:g}"


def write(verdict: Verdict, file: Path) -> None:
    """Write the result as JSON."""
    file.write_text(json.dumps(verdict.as_dict(), indent=2) + "\n")
