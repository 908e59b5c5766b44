"""Records what an agent collects, and which data may be missing if the agent ends without storing it all.

A *run* lasts from `begin_run` to `end_run`.  If there was no `end_run`, a crash or a power cut ended the run.  The next
`begin_run` then finds out what may be missing.  A bus lost nothing if its frames are still held where the ended run
held them: in a ring or a log of the same name.  For each other bus and each campaign, a loss `open_window` is recorded.

    first   the frame time up to which the campaign is durable, less LATE_US
    last    the start of the new run; no value if the clock is not trusted, or shows an earlier time than the ended run
            has seen

Without a value for `last`, the interval is open: it ends where the bus was captured again, but the clock was not set.
A clock that is not trusted may be later than the last durable frame, and still earlier than the missing frames: the
ended run's clock may have been set meanwhile.

Functions raise sqlite3.Error and must be called within a transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.listening import Listening

LATE_US: Final = 30_000_000
"""How much later the frames of one bus may be durable than those of another bus with the same times.

A source is read every 100 ms, and its frames wait while frames of another source are stored.  On an overloaded machine
11 s were measured (`make cuts`).
"""


def begin_run(
    index: Index,
    *,
    since_us: int,
    now_us: int,
    trusted: bool,
    buses: Mapping[str, str],
    listening: Sequence[Listening] = (),
) -> None:
    """Record that an agent collects from `buses`, whose frames it has captured since `since_us`, until `end_run`.

    `buses` names for each bus the ring or log that holds its frames until they are durable, or is "" for a bus whose
    frames are only in the memory of the agent.  `trusted` says whether the network or GNSS has set the clock that shows
    `now_us`.  If the run before did not end well, its losses go to the ledger.  `listening` says which rings have
    captured since when, although no run has begun.  Where such a ring is gone, this goes to the ledger, too.
    """
    ended_since_us, reached = index.collecting_since_us(), index.reached.all()
    ended = index.buses.all() if ended_since_us is not None else {}
    lost = [bus for bus, held_in in ended.items() if not held_in or buses.get(bus) != held_in]
    if ended_since_us is not None:
        end_us = now_us if trusted and now_us >= max([ended_since_us, *reached.values()]) else None
        for campaign, t_us in sorted((reached or {"": ended_since_us}).items()):
            for bus in lost:
                _record(index, bus, campaign, t_us, end_us)
    for ring in listening:
        if ring.held_in and buses.get(ring.bus) == ring.held_in:
            # The ring holds frames from before this run, which the next power cut may cost.
            since_us = min(since_us, ring.since_us)
        elif ring.bus not in lost:  # otherwise the interval of the ended run has the time of this ring, too
            _record(index, ring.bus, "", ring.since_us, now_us if trusted and now_us >= ring.since_us else None)
    if ended_since_us is not None and len(lost) < len(ended):
        # The other buses still hold frames of the ended run.
        since_us = min(since_us, ended_since_us)
    else:
        index.reached.clear()
    index.set_collecting(since_us)
    index.buses.replace(buses)


def _record(index: Index, bus: str, campaign: str, since_us: int, end_us: int | None) -> None:
    index.ledger.add(
        Loss(
            Reason.OPEN_WINDOW,
            bus=bus,
            campaign=campaign,
            epoch=index.epoch,
            first_t_us=max(0, since_us - LATE_US),
            last_t_us=end_us,
        )
    )


def note_campaigns(index: Index, campaigns: Mapping[str, int | None]) -> None:
    """Note since when each of `campaigns` collects; None stands for the start of the run.

    A campaign that has stored nothing yet may lose data, too.
    """
    since_us = index.collecting_since_us()
    if since_us is not None:
        for campaign in campaigns.keys() - index.reached.all().keys():
            t_us = campaigns[campaign]
            index.reached.set(campaign, since_us if t_us is None else t_us)


def end_run(index: Index, *, captured: Mapping[str, str], since_us: int | None) -> None:
    """Record that everything that was collected is stored.

    `captured` names the rings that go on capturing for the next run of this process, and `since_us` is since when they
    hold frames that are not stored; it is None if there are no such rings.  Until that run begins, these rings count as
    a run of their own.  Thus a cut at any moment of a reload finds one run or the other.
    """
    index.set_collecting(since_us)
    index.reached.clear()
    index.buses.replace(captured)
