"""Play a small roll-out with a real broker, receiver, lake and `fleet rollout run`, which is killed in between."""

import pytest

from lab.rollout.drill import Drill, play

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_a_roll_out_stops_at_the_stage_that_fails_and_the_next_one_reaches_every_vehicle() -> None:
    report = play(Drill(24, 2, "30,100", "0.5s", "failures>0.5%", kills=1, seed=1))
    stopped, finished = report["stopped"], report["finished"]
    assert (stopped["phase"], finished["phase"]) == ("stopped", "done")
    assert stopped["vehicles_failed"] >= 1
    assert stopped["vehicles_reached"] == stopped["vehicles_of_its_stages"]
    assert finished["vehicles_reached"] == 24
    assert report["passed"]
    assert report["status"]["states"] == {"current": 24}
    assert report["status"]["enrolled"] == 24
