"""Corners of the language and of names, written by hand: the agent reads them as the slow evaluator does."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conditions.rows import Frame
from tests.conditions.triples import Triple, play
from tests.conditions.worlds import World

WORLD = World(
    {
        "can0": """VERSION ""

BS_:

BU_: N

BO_ 256 A: 8 N
 SG_ S : 0|8@1+ (1,0) [0|0] "" N
 SG_ T : 8|8@1- (1,0) [0|0] "" N

BO_ 257 Vehicle: 8 N
 SG_ S : 0|8@1+ (1,0) [0|0] "" N
"""
    },
    frozenset(),
)
SAID = (0, 1, 2, 3, 4, 5, 0, 0, 1, 1, 2, 3, 0, 5, 6, 7) * 3
FRAMES = tuple(
    Frame(
        10**10 + number * 100_000, "can0", 257 if number % 5 == 4 else 256, False, bytes((value, 7 * value, *[0] * 6))
    )
    for number, value in enumerate(SAID)
)
A = "$variable.`A.S`"
EDGES = "custom_function('MULTI_RISING_EDGE_TRIGGER', "
CORNERS = json.loads((Path(__file__).parent / "corners.json").read_text())


def triple(expression: str, names: tuple[str, ...], **more: Any) -> Triple:
    document = {
        "name": "c",
        "collectionScheme": {"conditionBasedCollectionScheme": {"expression": expression}},
        "signalsToCollect": [{"name": name} for name in names],
    }
    return Triple(document | more, WORLD, FRAMES, (3, 4, 4, 20))


@pytest.mark.parametrize("expression", CORNERS["read"])
def test_an_expression_means_the_same_to_both(expression: str) -> None:
    outcome = play(triple(expression, ("A.S", "Vehicle.MultiRisingEdgeTrigger")))
    assert not outcome.refused
    assert outcome.difference is None


@pytest.mark.parametrize("expression", CORNERS["refused"])
def test_an_expression_is_refused_by_both_at_the_same_place(expression: str) -> None:
    outcome = play(triple(expression, ("A.S",)))
    assert outcome.refused
    assert outcome.difference is None


@pytest.mark.parametrize(
    "names",
    [
        ("A.S", "Vehicle.A.S"),
        ("Vehicle.*",),
        ("Vehicle.S",),
        ("Vehicle.Vehicle.S", "*"),
        ("*.S", "A.*"),
        ("Vehicle.?.S",),
        ("A.[!S]",),
        ("*.s",),
        ("MultiRisingEdgeTrigger",),
        ("Vehicle.Multi*",),
        (),
    ],
)
def test_a_name_or_pattern_collects_the_same_in_both(names: tuple[str, ...]) -> None:
    outcome = play(triple(f"{EDGES}'up', {A} > 2)", names, postTriggerCollectionDuration=300))
    assert outcome.triggers > 3
    assert outcome.difference is None
