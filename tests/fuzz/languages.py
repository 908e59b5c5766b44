"""Targets of the fuzzer for mappings and their formulas."""

import json
import random

import numpy as np

from agent.errors import Permanent
from agent.formats.down.mapping.entries import finite
from agent.formats.down.mapping.formula import parse_formula
from agent.formats.down.mapping.reading import parse_mapping
from agent.formats.down.mapping.tokens import FormulaError
from agent.formats.down.strict import read_object
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.collect.vss import VssSampler
from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.frames import FrameBlock
from tests.fuzz.mutate import mutated

FORMULAS = (
    b"x * 0.25 - 40",
    b"if(x == 'Open', 1, 0) + max(x, 2, 7) ^ 2",
    b"-x^2 % 3 + round(sqrt(abs(x))) / (PI + E)",
    b"concat('a', x, \"b\") || 'c' and not (x in (1, 2, 3)) or x xor 5",
    b"log(x) / fac(4) /* note */ + sind(x) ** 2 >= pyt(3, 4)",
)
FORMULA_WORDS = (
    b"x",
    b"(",
    b")",
    b",",
    b"^",
    b"**",
    b"||",
    b"in ",
    b"not ",
    b"and ",
    b"fac(",
    b"'",
    b"/*",
    b"9" * 30,
    b"1e5",
)
MAPPING = json.dumps(
    {
        "Vehicle": {
            "type": "branch",
            "children": {
                "Speed": {"datatype": "float", "dbc2vss": {"signal": "Speed", "interval_ms": 5}},
                "Gear": {
                    "datatype": "string",
                    "dbc2vss": {
                        "signal": "M.Gear",
                        "on_change": True,
                        "transform": {"mapping": [{"from": "Park", "to": 0}, {"from": 2, "to": "two"}]},
                    },
                },
                "Slip": {
                    "datatype": "float",
                    "dbc2vss": {"signals": {"a": "Speed", "b": "Gear"}, "transform": {"math": "if(b == 'Park', 0, a)"}},
                },
                "Warm": {"datatype": "uint8", "dbc": {"signal": "Speed", "transform": {"math": "floor(x*15+0.5)"}}},
            },
        }
    }
).encode()
MAPPING_WORDS = (
    b'"signal"',
    b'"transform"',
    b'"math"',
    b'"children"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"true",
    b"null",
    b"\\u0000",
)
_DBC = b"""BO_ 1 M: 8 X
 SG_ Speed : 0|16@1- (0.01,0) [-100|300] "km/h" X
 SG_ Gear : 16|3@1+ (1,0) [0|3] "" X
VAL_ 1 Gear 0 "Park" 7 "Invalid";
"""
_TABLES = SignalTables(("can0",), {"can0": compile_plan([parse(_DBC, "dbc", "fuzzed.dbc")])})
FORMULA_ERRORS = (FormulaError,)
MAPPING_ERRORS = (Permanent,)


def make_formula(chance: random.Random) -> bytes:
    """Return a damaged formula."""
    return mutated(chance, FORMULAS, FORMULA_WORDS)


def read_formula(content: bytes) -> None:
    """Check that a formula that can be read has a finite value or none, for numbers and texts."""
    formula = parse_formula(content.decode(errors="replace"), ["x"])
    for x in (0, -7, 2.5, 3276.7, "Open"):
        finite(formula.value({"x": x}))


def make_mapping(chance: random.Random) -> bytes:
    """Return a damaged mapping."""
    return mutated(chance, [MAPPING], MAPPING_WORDS)


def read_mapping(content: bytes) -> None:
    """Check that a mapping that can be read gives the same samples for a drive in one piece and frame by frame."""
    mapping = parse_mapping(read_object(content, "fuzzed.json", "a mapping"), "fuzzed.json")
    drive = _drive(random.Random(content))
    assert _sampled(mapping, [drive]) == _sampled(mapping, [drive.slice(n, n + 1) for n in range(len(drive))])


def _sampled(mapping: object, blocks: list[FrameBlock]) -> list[tuple[int, str, str]]:
    sampler = VssSampler(mapping, _TABLES)  # type: ignore[arg-type]
    decoder = _TABLES.decoder(sampler.wants)
    found = [sample for b in blocks for sample in sampler.take_blocks(_TABLES.blocks(decoder.decode(b).columns))]
    return [(sample.t_us, sample.path, repr(sample.value)) for sample in found]


def _drive(chance: random.Random) -> FrameBlock:
    count = 12
    times = np.cumsum(
        [chance.choice([0, 1_000, 4_000_000, 5_000_000, 10**9, -(10**8), -70 * 10**9]) for _ in range(count)]
    )
    return FrameBlock(
        times.astype(np.int64) + 10**18,
        np.zeros(count, np.uint8),
        np.ones(count, np.uint32),
        np.zeros(count, np.bool_),
        np.full(count, 8),
        np.frombuffer(chance.randbytes(8 * count), np.uint8).reshape(count, 8) & 0x87,
        ("can0",),
    )
