"""Each trouble of the disk is one line of the log when it begins, and one when it ends."""

import structlog

from agent.errors import Transient
from agent.formats.up.losses import Reason
from agent.telemetry.outbox.disk_watch import DiskWatch
from agent.telemetry.spool.shortage import RESERVE, Shortages, evicting


def test_each_trouble_is_logged_once_when_it_begins_and_once_when_it_ends() -> None:
    quota = {Reason.EVICTED_QUOTA.value: evicting(Reason.EVICTED_QUOTA)}
    found = [{}, {RESERVE: "9 bytes are free"}, {RESERVE: "8 bytes are free", **quota}, quota, None, quota, {}, {}, {}]
    problems = [None] * 7 + ["No space left", None]
    looks = iter(found)

    def ask() -> Shortages:
        shortages = next(looks)
        if shortages is None:
            raise Transient("the disk cannot be asked")
        return shortages

    watch = DiskWatch(ask)
    with structlog.testing.capture_logs() as lines:
        for problem in problems:
            watch.look(problem)
    assert [(line["event"], line.get("limit")) for line in lines] == [
        ("reserve_not_kept", None),
        ("eviction_began", "evicted_quota"),
        ("reserve_kept_again", None),
        ("eviction_ended", "evicted_quota"),
        ("disk_refuses", None),
        ("disk_accepts_again", None),
    ]
    assert "spool.quota_mb" in lines[1]["reason"]
