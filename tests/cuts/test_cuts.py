"""Play a short form of `make cuts`."""

import os
import random
from dataclasses import replace

import pytest

from agent.telemetry.spool.runs import LATE_US
from lab import user_mode_linux
from tests.cuts.plan import SCENARIOS, Scenario, history
from tests.cuts.play import play_all
from tests.cuts.verdict import Fate, Sent, begins_in, evicts, names

CUTS = 2


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory) -> list[Fate]:
    if os.environ.get("REQUIRE_VCAN") != "1":
        pytest.skip("User Mode Linux takes minutes; set REQUIRE_VCAN=1 to boot it for these tests, as CI does")
    if (reason := user_mode_linux.unavailable()) is not None:
        pytest.fail(reason)
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    return [fate for found in play_all(seed, CUTS, tmp_path_factory.mktemp("cuts") / "play") for fate in found]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.attack(
    "3a",
    "the power of whole machines is cut, also with wrong clocks",
    how="Machines under User Mode Linux are killed as a whole; each frame is looked for in lake and ledger.",
    before="3 of 3 cuts left no entry in the ledger",
)
def test_after_cuts_each_frame_is_in_the_lake_once_at_the_right_time_or_named_by_the_ledger(
    fates: list[Fate], scenario: str
) -> None:
    found = [fate for fate in fates if fate.scenario == scenario]
    assert len(found) == CUTS + 1
    assert all(fate.in_lake for fate in found if "start" not in fate.cut), found
    assert all(fate.held for fate in found), found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_plays_the_same_history_again(scenario: Scenario) -> None:
    one, other = (
        [(boot.number, boot.set_after_s, boot.cut_after_s) for boot in history(scenario, 7, 5)] for _ in range(2)
    )
    assert one == other
    assert one != [(boot.number, boot.set_after_s, boot.cut_after_s) for boot in history(scenario, 8, 5)]


def test_a_loss_names_a_frame_only_by_bus_campaign_and_time() -> None:
    loss = {"reason": "open_window", "bus": "can0", "campaign": "long", "first_t_us": 10, "last_t_us": 20}
    frame = Sent("can0", 1, from_us=12, to_us=14, true_us=12)
    assert names(loss, "long", frame)
    assert not names(loss, "short", frame)
    assert not names(loss, "long", replace(frame, bus="can1"))
    assert not names(loss, "long", replace(frame, from_us=21, to_us=24, true_us=21))
    assert not names(loss, "long", replace(frame, from_us=7, to_us=9, true_us=7))
    assert names(loss, "long", replace(frame, from_us=7, to_us=9, seen=False))
    assert not names(loss | {"reason": "evicted_age"}, "long", frame)
    assert evicts(loss | {"reason": "evicted_age"}, "long", frame)


def test_a_loss_explains_only_the_boot_in_which_it_begins() -> None:
    loss = {"reason": "open_window", "first_t_us": 70_000_000_000 - LATE_US}
    assert begins_in(loss, [(60_000_000_000, 75_000_000_000)])
    assert begins_in(loss, [(10_000_000_000, 11_000_000_000), (69_999_000_000, 70_000_000_000)])
    assert not begins_in(loss, [(70_000_000_001, 75_000_000_000)])
    assert not begins_in(loss, [(60_000_000_000, 68_000_000_000)])
    assert not begins_in({"reason": "open_window"}, [(60_000_000_000, 75_000_000_000)])
