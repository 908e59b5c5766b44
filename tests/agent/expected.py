"""Counts the samples of a drive, for tests that account for each of them."""

from collections.abc import Iterable

import numpy as np

from can_dbc.compile import compile_plan
from can_dbc.database import load
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock
from tests.agent.car import DATABASES


def count_samples(blocks: Iterable[FrameBlock]) -> int:
    """Return how many samples `blocks` hold of all signals of the demonstration databases, at their native rates."""
    plans = [compile_plan([load(DATABASES / name)]) for name in ("demo_powertrain.dbc", "demo_body.dbc")]
    decoder = Decoder(dict(enumerate(plans)))
    return sum(
        columns.raw.size if columns.valid is None else int(np.count_nonzero(columns.valid))
        for block in blocks
        for columns in decoder.decode(block).columns
    )
