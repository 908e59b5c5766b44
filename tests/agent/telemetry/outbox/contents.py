"""Windows for the tests of the outbox, and what these tests read from the spool behind it."""

import numpy as np

from agent.formats.up.columns import ColumnGroup, Window
from tests.agent.formats.up.windows import signal
from tests.agent.formats.up.windows import window as make_window
from tests.agent.telemetry.spool.depot import Depot

RANDOM = np.random.default_rng(1)


def window(start_us: int, samples: int = 100) -> Window:
    t_us = start_us + np.arange(samples, dtype=np.int64)
    raw = RANDOM.integers(0, 256, (1, samples))  # random values do not compress
    return make_window(ColumnGroup(t_us, (signal("Engine.Speed"),), raw, ({},)), start_us=start_us, end_us=start_us + 1)


def put(depot: Depot, *windows: Window) -> None:
    depot.outbox.put((each, 0) for each in windows)


def starts(depot: Depot) -> list[int]:
    return [each.start_us for each in depot.windows() if each.samples]


def put_checkpoint(depot: Depot, new: Window) -> bool:
    return depot.outbox.put_checkpoints([(new, 1)], {"can0:drive": new.start_us})
