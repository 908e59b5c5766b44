"""Defines the windows of the test vectors.  `python -m tests.agent.formats.up.make_vectors` writes missing vectors.

From release 0.1.0 on a vector is never written again, because it stands for batches that vehicles in the field have
stored.  A later format adds vectors with other names.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from agent.formats.up.catalogue import catalogue_of
from agent.formats.up.columns import ColumnGroup, Event, Window
from agent.formats.up.encode import encode_catalogue, encode_window
from can_dbc.values import Kind
from tests.agent.formats.up.windows import CLOCK, signal

_START = 1_767_225_600_000_000

_KINDS = ColumnGroup(
    _START + np.array([0, 10_003, 19_998, 30_001, 29_000]),
    (
        signal("Battery.Current", unit="A", kind=Kind.INT, bits=16, scale=0.1, offset=-3000.0),
        signal("Battery.Serial", kind=Kind.UINT, bits=64),
        signal("Battery.Mode", kind=Kind.UINT, bits=2),
        signal("Imu.Roll", bus="can1", unit="°", kind=Kind.FLOAT32, bits=32, offset=-0.0),
        signal("Imu.Bias", bus="can1", kind=Kind.FLOAT64, bits=64),
        signal("Imu.Temp", bus="can1", kind=Kind.FLOAT16, bits=16),
        signal("Vehicle.Cabin.Odometer", unit="km", bits=32),
        signal("Constant", bits=8),
    ),
    np.array(
        [
            [-5, 300, 1_000, -20_000, 7],
            [-1, -(2**63), 2**63 - 1, 0, 1],
            [0, 1, 3, 3, 2],
            np.array([1.5, -0.0, np.inf, 3e38, 1e-45], np.float32).view(np.uint32),
            np.array([np.pi, -0.0, -np.inf, 5e-324, 1e308], np.float64).view(np.int64),
            np.array([1, -2, 0.5, 65504, 6e-8], np.float16).view(np.uint16),
            [70_000, 70_001, 140_000, 2**31, 0],
            [5, 5, 5, 5, 5],
        ],
        np.int64,
    ),
    ({}, {}, {0: "off", 1: "on", 3: "größer als möglich"}, {}, {}, {}, {}, {5: "off"}),
)
_SAME_TIMES = ColumnGroup(_KINDS.t_us, (signal("Other.One", bits=1),), np.array([[0, 1, 0, 1, 1]]), ({},))

WINDOWS = {
    "kinds": Window("all-kinds", "0123456789ab", _START, _START + 30_000_000, CLOCK, (_KINDS, _SAME_TIMES), ()),
    "events": Window(
        "",
        "",
        _START,
        _START,
        CLOCK,
        (),
        (
            Event(_START, "loss", {"reason": "evicted", "seq": 2**63 - 1, "share": 0.25, "final": True}),
            Event(-1, "start", {}),
        ),
    ),
    "empty": Window("quiet", "ffffffffffff", _START, _START + 1, CLOCK, (), ()),
}

SENDERS = replace(
    WINDOWS["kinds"],
    groups=(
        replace(_SAME_TIMES, source_address=0),
        replace(_SAME_TIMES, source_address=255, raw=1 - _SAME_TIMES.raw),
        _SAME_TIMES,
    ),
)  # two groups with a J1939 sender, beside one without

TRIGGERS = replace(
    WINDOWS["kinds"],
    groups=(replace(_SAME_TIMES, trigger=1), _SAME_TIMES, replace(_SAME_TIMES, trigger=2**53 - 1)),
    events=WINDOWS["events"].events[:1],
)  # two groups that triggers send, beside one without, and an event in the same batch

CATALOGUE = catalogue_of(
    "all-kinds",
    "0123456789ab",
    [
        *zip(
            _KINDS.signals,
            ({}, {}, {0: "off", 1: "on", 3: "größer als möglich"}, {}, {}, {}, {}, {5: "off"}),
            strict=True,
        ),
        (signal("Unseen.Signal", bits=3), {0: "never", 7: "always"}),
    ],
)  # Other.One is left out, so a batch must describe it

if __name__ == "__main__":
    bodies = {name: encode_window(example) for name, example in WINDOWS.items()}
    bodies["senders"] = encode_window(SENDERS)
    bodies["triggers"] = encode_window(TRIGGERS)
    bodies["referring"] = encode_window(WINDOWS["kinds"], CATALOGUE)
    bodies["catalogue"] = encode_catalogue(CATALOGUE, _START, CLOCK)
    for name, body in bodies.items():
        path = Path(__file__).parent / "vectors" / f"{name}.batch"
        if not path.exists():
            path.write_bytes(body)
