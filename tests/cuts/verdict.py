"""Compares the frames that were sent with the lake and the ledger.

A loss of the ledger explains only frames of the boot in which its interval begins, and of later boots that were cut
before their agents captured.  Otherwise an interval from 1970 to today, which a wrong clock can cause, would explain
everything.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from agent.formats.up.losses import Reason
from fleet.lake.query import query
from tests.cuts.plan import Boot, Scenario
from tests.cuts.world import BUSES, CAMPAIGNS, CutWorld

NEVER_US: Final = 1 << 62
EARLY_US: Final = 6_000_000
"""An interval may begin 5 s before the first missing sample (agent.telemetry.spool.runs.LATE_US).

One second more is for the time between a frame's line in the file and the kernel's stamp.
"""
SAMPLES: Final = """
    SELECT campaign, bus, raw, epoch_us(time_corrected) AS t_us, time_quality AS quality, boot_id, clock
    FROM samples_corrected JOIN batches USING (vehicle, epoch, seq, campaign)"""
LOSSES: Final = "SELECT DISTINCT fields FROM events WHERE kind = 'loss'"
RIGHT_US: Final = 1_000_000
"""A corrected time may differ from the true time by this much: the machine stamps a frame late when it is busy."""


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


@dataclass(frozen=True)
class Fate:
    """What became of the samples of one boot.  A frame is one sample in each campaign.

    A sample is `missing` if the lake does not have it.  It is then `in_ledger` if the ledger names an interval of its
    bus and campaign that has it, `evicted` if the ledger says so, or else `unaccounted`.  A sample in the lake is
    `mistimed` if its corrected time is wrong, or is not known although a batch of the same boot tells the right time.
    It is `vague` if the ledger names an interval that has it and that begins more than EARLY_US too early.
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
    fates, begun = [], list[Sent]()
    for boot in boots:
        frames = read_sent(world, boot)
        # An agent that did not capture may not have begun a run.  Then the loss begins in the run before.
        begun = frames if all(frame.seen for frame in frames) else [*begun, *frames]
        here = [sample for sample in samples if sample["raw"] >> 32 == boot.number]
        fates.append(_judge(scenario, seed, boot, frames, here, [loss for loss in losses if begins_in(loss, begun)]))
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
    newest_us = {name: max((sent[key].true_us for key in stored if key[0] == name), default=0) for name in CAMPAIGNS}
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
        vague=sum(sent[key].true_us < newest_us[key[0]] - EARLY_US for key in named - missing),
    )


def begins_in(loss: dict[str, Any], frames: Sequence[Sent]) -> bool:
    """Return whether the interval of `loss` begins while `frames` were sent, by the wall clock of that time."""
    first_us = loss.get("first_t_us", -NEVER_US)
    return any(frame.from_us - 2 * EARLY_US <= first_us <= frame.from_us + EARLY_US for frame in frames)


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


def read_sent(world: CutWorld, boot: Boot) -> list[Sent]:
    """Return the frames that a boot sent.  A frame that was written down and not sent counts, too: the cut took it."""
    text = (world.boot_folder(boot.number) / "sent").read_text()
    lines = [line.split(" ") for line in text.rpartition("\n")[0].splitlines()]
    times = sorted({(int(true), int(wall)) for _, _, wall, true in lines})
    ends = {begin: wall for (begin, _), (_, wall) in pairwise(times)}
    sets = {true for bus, _, _, true in lines if bus == "set"}
    seen = (world.boot_folder(boot.number) / "capturing").exists()
    return [
        Sent(bus, int(count), int(wall) // 1_000, ends.get(int(true), NEVER_US) // 1_000 + 1, int(true) // 1_000, seen)
        for bus, count, wall, true in lines
        if bus in BUSES and true not in sets
    ]


def is_right(sample: dict[str, Any], frame: Sent, good: set[str]) -> bool:
    if sample["quality"] == "not set":
        return sample["boot_id"] not in good
    return abs(sample["t_us"] - frame.true_us) <= RIGHT_US
