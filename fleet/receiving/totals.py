"""Defines the counts of a receiver.  Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """Counts the work of a receiver since it started.

    `batches`, `samples` and `events` count what this receiver took in and appended to the lake.  `recovered` counts
    batches that earlier processes took in and this one appended.  `duplicates` counts batches that came again.

    `refused` counts all rejected batches.  `unanswered` counts only the silent rejections (see fleet.receiving.intake).
    `waiting` counts batches whose catalogue was missing.  Their vehicles send them again.  `missing` counts batches
    that the inbox knew as stored when the receiver started, and that the lake did not have.
    """

    batches: int = 0
    samples: int = 0
    events: int = 0
    duplicates: int = 0
    refused: int = 0
    unanswered: int = 0
    waiting: int = 0
    commits: int = 0
    recovered: int = 0
    missing: int = 0
