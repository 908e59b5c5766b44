"""Frames are released when nobody needs them any more, and skipped where they are stored already."""

import numpy as np

from agent.telemetry.holdings import Holdings
from can_dbc.frames import FrameBlock


class Ring:
    def __init__(self) -> None:
        self.began = -1
        self.released = -1
        self.pressed = False

    def begin(self, position: int) -> None:
        self.began = position

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
    rings = {"can0": Ring(), "can1": Ring()}
    holdings = Holdings(rings, {})
    holdings.take(block("can0", 100, 50))
    holdings.take(block("can1", 0, 7))
    holdings.take(block("log", 0, 9))
    assert holdings.close("short") == {"can0:short": 150, "can1:short": 7}
    holdings.release({"short", "long"})
    assert [ring.released for ring in rings.values()] == [0, 0]
    holdings.take(block("can0", 150, 10))
    assert holdings.close("long") == {"can0:long": 160, "can1:long": 7}
    holdings.release({"short", "long"})
    assert [ring.released for ring in rings.values()] == [150, 7]


def test_without_a_campaign_everything_taken_is_released() -> None:
    ring = Ring()
    holdings = Holdings({"can0": ring}, {"can0:gone": 3})
    holdings.take(block("can0", 5, 5))
    holdings.release(())
    assert ring.released == 10


def test_after_a_crash_each_campaign_gets_what_it_has_not_stored() -> None:
    ring = Ring()
    stored = {"can0:short": 120, "can0:long": 105, "can1:short": 999}
    holdings = Holdings({"can0": ring}, stored)
    assert ring.began == 120
    blocks = [block("can0", 100, 10), block("log", 0, 4), block("can0", 110, 20)]
    assert holdings.missing("new", blocks) is blocks
    short = holdings.missing("short", blocks)
    assert [part.can_id.tolist() for part in short] == [list(range(4)), list(range(120, 130))]
    long = holdings.missing("long", blocks)
    assert [part.first for part in long] == [105, 0, 110]
    assert holdings.missing("short", blocks[:1]) == []
    later = [block("can0", 130, 5)]
    assert holdings.missing("short", later) is later


def test_closing_while_frames_come_again_never_goes_back() -> None:
    ring = Ring()
    holdings = Holdings({"can0": ring}, {"can0:short": 120})
    holdings.take(block("can0", 100, 10))
    assert holdings.close("short") == {"can0:short": 120}
    holdings.release({"short"})
    assert ring.released == 110


def test_a_bus_that_nobody_holds_has_no_position() -> None:
    holdings = Holdings({}, {"log:short": 50})
    holdings.take(block("log", 0, 4))
    assert holdings.close("short") == {}
    assert not holdings.pressed
    log = [block("log", 0, 4)]
    assert holdings.missing("short", log) is log


def test_one_pressed_ring_presses_all() -> None:
    rings = {"can0": Ring(), "can1": Ring()}
    holdings = Holdings(rings, {})
    assert not holdings.pressed
    rings["can1"].pressed = True
    assert holdings.pressed
