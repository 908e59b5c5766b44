"""Compares the frames that were sent with the lake and the ledger.

A loss of the ledger explains only frames of the boot in which its interval begins, and of later boots that were cut
before their agents captured.  Otherwise an interval from 1970 to today, which a wrong clock can cause, would explain
everything.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Final

from agent.formats.up.losses import Reason
from agent.telemetry.spool.runs import LATE_US
from fleet.lake.query import query
from tests.cuts.plan import Boot, Scenario
from tests.cuts.world import BUSES, CAMPAIGNS, CutWorld

NEVER_US: Final = 1 << 62
SAMPLES: Final = """
    SELECT campaign, bus, raw, epoch_us(time_corrected) AS t_us, time_quality AS quality, boot_id, clock
    FROM samples_corrected JOIN batches USING (vehicle, epoch, seq, campaign)"""
LOSSES: Final = "SELECT DISTINCT fields FROM events WHERE kind = 'loss'"
LAG_US: Final = 1_000_000
"""A busy machine stamps a frame this much later than the frame was written down."""


@dataclass(frozen=True)
class Sent:
    """A frame that was sent.  Its stamp lies between `from_us` and `to_us` of the wall clock.

    If its boot was cut before the agent captured, it is not `seen`.  No agent then knows the stamp, so an interval may
    name the frame by its true time instead.
    """

    bus: str
    count: int
    from_us: int
    to_us: int
    true_us: int
    seen: bool = True


Span = tuple[int, int]
"""A time in which the wall clock was not set: what it showed at first and at last, in microseconds since 1970."""


@dataclass(frozen=True)
class Life:
    """What a boot wrote down.  `captured` says whether its agent has captured frames."""

    captured: bool
    frames: list[Sent]
    spans: list[Span]


@dataclass(frozen=True)
class Fate:
    """What became of the samples of one boot.  A frame is one sample in each campaign.

    A sample is `missing` if the lake does not have it.  It is then `in_ledger` if the ledger names an interval of its
    bus and campaign that has it, `evicted` if the ledger says so, or else `unaccounted`.  A sample in the lake is
    `mistimed` if its corrected time is wrong, or is not known although a batch of the same boot tells the right time.
    It is `vague` if the ledger names an interval that has it and that begins more than LATE_US before the newest.
    """

    scenario: str
    seed: int
    boot: int
    clock: str
    cut: str
    sent: int
    in_lake: int
    missing: int
    in_ledger: int
    evicted: int
    unaccounted: int
    doubled: int
    mistimed: int
    vague: int

    @property
    def held(self) -> bool:
        return not (self.unaccounted or self.evicted or self.doubled or self.mistimed or self.vague)


def judge(world: CutWorld, scenario: Scenario, seed: int, boots: Sequence[Boot]) -> list[Fate]:
    """Return the fate of each boot.  The last boot is not cut, so it must miss nothing."""
    lake = str(world.fleet.lake)
    samples = query(lake, SAMPLES).to_pylist()
    losses = [json.loads(line["fields"]) for line in query(lake, LOSSES).to_pylist()]
    fates, spans = [], list[Span]()
    for boot in boots:
        life = read_life(world, boot)
        # An agent that did not capture may not have begun a run.  Then the loss begins in the run before.
        spans = life.spans if life.captured else [*spans, *life.spans]
        here = [sample for sample in samples if sample["raw"] >> 32 == boot.number]
        of_boot = [loss for loss in losses if begins_in(loss, spans)]
        fates.append(_judge(scenario, seed, boot, life.frames, here, of_boot))
    return fates


def _judge(
    scenario: Scenario,
    seed: int,
    boot: Boot,
    frames: Sequence[Sent],
    here: Sequence[dict[str, Any]],
    losses: Sequence[dict[str, Any]],
) -> Fate:
    sent = {(campaign, frame.bus, frame.count): frame for campaign in CAMPAIGNS for frame in frames}
    stored = Counter((sample["campaign"], sample["bus"], sample["raw"]) for sample in here)
    assert stored.keys() <= sent.keys(), f"boot {boot.number}: the lake has samples of frames that were not sent"
    missing = sent.keys() - stored.keys()
    named = {key for key, frame in sent.items() if any(names(loss, key[0], frame) for loss in losses)}
    evicted = {key for key in missing - named if any(evicts(loss, key[0], sent[key]) for loss in losses)}
    newest_us = dict.fromkeys(CAMPAIGNS, NEVER_US)
    for name, bus in product(CAMPAIGNS, BUSES):
        of_bus = [sent[key].true_us for key in stored if key[:2] == (name, bus)]
        # The ledger does not know how far each bus is durable, only how far the campaign is.
        newest_us[name] = min(newest_us[name], max(of_bus, default=0))
    good = {sample["boot_id"] for sample in here if sample["clock"] == "network"}
    return Fate(
        scenario=scenario,
        seed=seed,
        boot=boot.number,
        clock=boot.clock_text,
        cut=boot.cut_text,
        sent=len(sent),
        in_lake=len(stored),
        missing=len(missing),
        in_ledger=len(missing & named),
        evicted=len(evicted),
        unaccounted=len(missing - named - evicted),
        doubled=sum(count - 1 for count in stored.values()),
        mistimed=sum(
            not is_right(sample, sent[sample["campaign"], sample["bus"], sample["raw"]], good) for sample in here
        ),
        vague=sum(sent[key].true_us < newest_us[key[0]] - LATE_US - LAG_US for key in named - missing),
    )


def begins_in(loss: dict[str, Any], spans: Sequence[Span]) -> bool:
    """Return whether the last durable frame before `loss`, or the start of the agent, lies in `spans`."""
    if "first_t_us" not in loss:
        return False
    begin_us = loss["first_t_us"] + (LATE_US if loss["reason"] == Reason.OPEN_WINDOW else 0)
    return any(first_us <= begin_us <= last_us + LAG_US for first_us, last_us in spans)


def names(loss: dict[str, Any], campaign: str, frame: Sent) -> bool:
    """Return whether `loss` says that frames of this bus, campaign and time were lost in a cut."""
    return (
        loss["reason"] in {Reason.OPEN_WINDOW, Reason.BUS_OVERFLOW}
        and loss.get("bus") == frame.bus
        and loss.get("campaign", campaign) == campaign
        and _covers(loss, frame)
    )


def evicts(loss: dict[str, Any], campaign: str, frame: Sent) -> bool:
    """Return whether `loss` says that batches of this campaign and time were evicted."""
    return (
        str(loss["reason"]).startswith("evicted")
        and loss.get("campaign", campaign) == campaign
        and _covers(loss, frame)
    )


def _covers(loss: dict[str, Any], frame: Sent) -> bool:
    first_us, last_us = loss.get("first_t_us", -NEVER_US), loss.get("last_t_us", NEVER_US)
    stamped = first_us <= frame.to_us and frame.from_us <= last_us
    return bool(stamped or (not frame.seen and first_us <= frame.true_us <= last_us))


def read_life(world: CutWorld, boot: Boot) -> Life:
    """Read what a boot wrote down.  A frame that was written down and not sent counts, too: the cut took it."""
    folder = world.boot_folder(boot.number)
    captured = (folder / "capturing").exists()
    text = (folder / "sent").read_text()
    lines = [(bus, int(count), int(wall), int(true)) for bus, count, wall, true in map(str.split, _whole_lines(text))]
    times = sorted({(true, wall) for _, _, wall, true in lines})
    ends = {true: wall for (true, _), (_, wall) in pairwise(times)}
    frames = [
        Sent(bus, count, wall // 1_000, ends.get(true, NEVER_US) // 1_000 + 1, true // 1_000, captured)
        for bus, count, wall, true in lines
        if bus in BUSES
    ]
    # The wall clock runs without a jump from the start of the boot until it is set, and from then on it is right.
    sets = [(wall // 1_000, true // 1_000) for bus, _, wall, true in lines if bus == "set"]
    begins = [lines[0][2] // 1_000, *(true_us for _, true_us in sets)]
    stops = [*(wall_us for wall_us, _ in sets), lines[-1][3 if sets else 2] // 1_000]
    return Life(captured, frames, list(zip(begins, stops, strict=True)))


def _whole_lines(text: str) -> list[str]:
    return text.rpartition("\n")[0].splitlines()


def is_right(sample: dict[str, Any], frame: Sent, good: set[str]) -> bool:
    if sample["quality"] == "not set":
        return sample["boot_id"] not in good
    return abs(sample["t_us"] - frame.true_us) <= LAG_US
