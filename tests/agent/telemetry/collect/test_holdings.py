"""Frames are released when no campaign needs them any more, and skipped if they are stored already."""

import numpy as np

from agent.telemetry.collect.holdings import Holdings
from can_dbc.frames import FrameBlock


class Ring:
    def __init__(self, *buses: str) -> None:
        self.buses = buses
        self.position_name = "+".join(buses)
        self.began: tuple[int, int] | None = None
        self.released = -1
        self.pressed = False
        self.held_in = self.position_name

    def begin(self, *, used: int, needed: int) -> None:
        self.began = used, needed

    def release(self, position: int) -> None:
        self.released = position


def block(bus: str, first: int, count: int) -> FrameBlock:
    buses = ("can0", "can1", "log")
    return FrameBlock(
        t_ns=np.arange(count, dtype=np.int64),
        bus=np.full(count, buses.index(bus), np.uint8),
        can_id=np.arange(first, first + count, dtype=np.uint32),
        flags=np.zeros(count, np.uint8),
        length=np.zeros(count, np.uint8),
        data=np.zeros((count, 8), np.uint8),
        buses=buses,
        first=first,
    )


def test_frames_are_released_when_the_last_campaign_has_closed_over_them() -> None:
    rings = [Ring("can0"), Ring("can1")]
    holdings = Holdings(rings, {})
    holdings.put_in_force({"short", "long"})
    holdings.take(block("can0", 100, 50))
    holdings.take(block("can1", 0, 7))
    holdings.take(block("log", 0, 9))
    assert holdings.close("short") == {"can0:short": 150, "can1:short": 7, "can0:long": 0, "can1:long": 0}
    holdings.release({"short", "long"})
    assert [ring.released for ring in rings] == [0, 0]
    holdings.take(block("can0", 150, 10))
    assert holdings.close("long") == {"can0:short": 150, "can1:short": 7, "can0:long": 160, "can1:long": 7}
    holdings.release({"short", "long"})
    assert [ring.released for ring in rings] == [150, 7]


def test_without_a_campaign_everything_taken_is_released() -> None:
    ring = Ring("can0")
    holdings = Holdings([ring], {"can0:gone": 3})
    holdings.put_in_force(())
    assert ring.began == (3, 3)
    holdings.take(block("can0", 5, 5))
    holdings.release(())
    assert ring.released == 10


def test_after_a_crash_each_campaign_gets_what_it_has_not_stored() -> None:
    ring = Ring("can0")
    stored = {"can0:short": 120, "can0:long": 105, "can1:short": 999}
    holdings = Holdings([ring], stored)
    holdings.put_in_force({"short", "long"})
    assert ring.began == (120, 105)
    blocks = [block("can0", 100, 10), block("log", 0, 4), block("can0", 110, 20)]
    short = holdings.missing("short", blocks)
    assert [part.can_id.tolist() for part in short] == [list(range(4)), list(range(120, 130))]
    long = holdings.missing("long", blocks)
    assert [part.first for part in long] == [105, 0, 110]
    assert holdings.missing("short", blocks[:1]) == []
    later = [block("can0", 130, 5)]
    assert holdings.missing("short", later) is later


def test_a_campaign_that_is_new_begins_where_the_others_are() -> None:
    ring = Ring("can0")
    holdings = Holdings([ring], {"can0:short": 120, "can0:gone": 10})
    holdings.put_in_force({"short"})
    holdings.put_in_force({"short", "new"})  # no frame has come yet
    assert ring.began == (120, 120)
    assert [part.first for part in holdings.missing("new", [block("can0", 110, 20)])] == [120]
    holdings.take(block("can0", 120, 10))
    holdings.put_in_force({"short", "newer"})
    assert holdings.close("short") == {"can0:short": 130, "can0:newer": 130}


def test_where_a_campaign_began_is_stored_before_it_has_a_window() -> None:
    log = Ring("can0", "can1")
    holdings = Holdings([log], {})
    holdings.put_in_force({"short", "long"})
    holdings.take(block("can0", 0, 10))
    stored = holdings.close("short")
    after = Ring("can0", "can1")
    Holdings([after], stored).put_in_force({"short", "long"})
    assert after.began == (10, 0)


def test_a_source_of_several_buses_has_one_resume_point() -> None:
    log = Ring("can0", "can1")
    holdings = Holdings([log], {"can0+can1:all": 4})
    holdings.put_in_force({"all"})
    frames = [block("can1", 0, 6), block("can0", 6, 3)]
    assert [part.first for part in holdings.missing("all", frames)] == [4, 6]
    for part in frames:
        holdings.take(part)
    assert holdings.close("all") == {"can0+can1:all": 9}


def test_closing_while_frames_come_again_never_goes_back() -> None:
    ring = Ring("can0")
    holdings = Holdings([ring], {"can0:short": 120})
    holdings.put_in_force({"short"})
    holdings.take(block("can0", 100, 10))
    assert holdings.close("short") == {"can0:short": 120}
    holdings.release({"short"})
    assert ring.released == 110


def test_a_bus_that_nobody_holds_has_no_resume_point() -> None:
    holdings = Holdings([], {"log:short": 50})
    holdings.put_in_force({"short"})
    holdings.take(block("log", 0, 4))
    assert holdings.close("short") == {}
    assert not holdings.pressed
    log = [block("log", 0, 4)]
    assert holdings.missing("short", log) is log


def test_one_pressed_ring_presses_all() -> None:
    rings = [Ring("can0"), Ring("can1")]
    holdings = Holdings(rings, {})
    assert not holdings.pressed
    rings[1].pressed = True
    assert holdings.pressed


def test_a_checkpoint_of_an_open_window_frees_the_ring() -> None:
    ring = Ring("can0")
    holdings = Holdings([ring], {})
    holdings.put_in_force({"drive"})
    holdings.take(block("can0", 0, 40))
    assert holdings.resume_points({"drive"}) == {"can0:drive": 40}
    holdings.release({"drive"})
    assert ring.released == 0  # it was not stored yet
    assert holdings.close("drive") == {"can0:drive": 40}
    holdings.release({"drive"})
    assert ring.released == 40
