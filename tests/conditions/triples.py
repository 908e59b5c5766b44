"""A triple is a campaign document, the frames of a drive, and the cuts into blocks; both evaluators play it."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np

from agent.errors import Permanent
from agent.telemetry.collect.conditions.records import records_of
from can_dbc.frames import EXTENDED, FrameBlock
from tests.conditions.compare import Record, difference
from tests.conditions.documents import random_document
from tests.conditions.drives import cut, random_cuts, random_drive
from tests.conditions.language import Refused
from tests.conditions.machine import SlowCampaign
from tests.conditions.rows import Frame
from tests.conditions.worlds import World, random_world

TRIPLES_A_WORLD = 100
_PLACE = re.compile(r"character (\d+)")


@dataclass(frozen=True)
class Triple:
    document: Mapping[str, Any]
    world: World
    frames: tuple[Frame, ...]
    cuts: tuple[int, ...]

    def blocks(self) -> Iterator[FrameBlock]:
        buses = tuple(sorted({*self.world.databases, *(frame.bus for frame in self.frames)}))
        first = 0
        for frames in cut(self.frames, self.cuts):
            yield _block(frames, buses, first)
            first += len(frames)

    def to_json(self) -> str:
        content = {
            "document": self.document,
            "databases": self.world.databases,
            "by_pgn": sorted(self.world.by_pgn),
            "frames": [[f.t_us, f.bus, f.can_id, f.extended, f.data.hex()] for f in self.frames],
            "cuts": self.cuts,
        }
        return json.dumps(content, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "Triple":
        content = json.loads(text)
        return Triple(
            content["document"],
            World(content["databases"], frozenset(content["by_pgn"])),
            tuple(Frame(t_us, bus, id_, ext, bytes.fromhex(data)) for t_us, bus, id_, ext, data in content["frames"]),
            tuple(content["cuts"]),
        )


@dataclass(frozen=True)
class Outcome:
    """What the slow evaluator says, and how the agent differs, or None if it agrees."""

    refused: bool
    triggers: int
    samples: int
    difference: str | None


def random_triple(seed: int, number: int) -> Triple:
    """Return triple `number` of a seed, which is the same in every process."""
    random = Random(f"{seed} triple {number}")
    world = _world(seed, number // TRIPLES_A_WORLD)
    frames = random_drive(random, world)
    rows = list(world.rows.decode(frames))
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for signal, _, value in row.samples:
            if math.isfinite(value):
                values[f"{row.message}.{signal}"].append(value)
    # Campaigns over signals that the drive has do something more often than others.
    known = sorted(values if values and random.random() < 0.9 else world.rows.known())
    document = random_document(random, known, values, [frame.t_us for frame in frames])
    return Triple(document, world, frames, random_cuts(random, len(frames)))


@lru_cache(maxsize=2)
def _world(seed: int, number: int) -> World:
    return random_world(Random(f"{seed} world {number}"))


def play(triple: Triple, make: Callable[..., SlowCampaign] = SlowCampaign) -> Outcome:
    """Play a triple by both evaluators and compare.  `make` is the slow one, or one with a planted fault."""
    try:
        slow = make(triple.document, triple.world.rows.known())
    except Refused as refused:
        return Outcome(True, 0, 0, _refused_too(triple, refused))
    for row in triple.world.rows.decode(triple.frames):
        slow.take(row)
    slow.end()
    triggers = sum(record["k"] == "trigger" for record in slow.records)
    return Outcome(False, triggers, len(slow.records) - triggers, _records_differ(triple, slow.records))


def _records_differ(triple: Triple, expected: Sequence[Record]) -> str | None:
    try:
        found = records_of(dict(triple.document), triple.world.plans, triple.blocks())
    except Permanent as error:
        return f"the agent refuses the document: {error}"
    except Exception as error:  # noqa: BLE001 - whatever the agent raises is a difference
        return f"the agent fails: {type(error).__name__}: {error}"
    return difference(expected, found)


def _refused_too(triple: Triple, refused: Refused) -> str | None:
    try:
        records_of(dict(triple.document), triple.world.plans, triple.blocks())
    except Permanent as error:
        message = str(error)
    except Exception as error:  # noqa: BLE001 - whatever else the agent raises is a difference
        return f"the agent fails: {type(error).__name__}: {error}"
    else:
        return f"the agent accepts what must be refused: {refused}"
    if refused.field not in message:
        return f"the refusal does not name the field: expected {refused}, found {message}"
    found = _PLACE.search(message)
    if not refused.allows(int(found[1]) if found else 0):
        return f"the refusal names another place: expected {refused}, found {message}"
    return None


def _block(frames: Sequence[Frame], buses: tuple[str, ...], first: int) -> FrameBlock:
    count = len(frames)
    data = np.zeros((count, 8), np.uint8)
    for number, frame in enumerate(frames):
        data[number, : len(frame.data)] = np.frombuffer(frame.data, np.uint8)
    return FrameBlock(
        np.array([frame.t_us * 1000 for frame in frames], np.int64).reshape(count),
        np.array([buses.index(frame.bus) for frame in frames], np.uint8).reshape(count),
        np.array([frame.can_id for frame in frames], np.uint32).reshape(count),
        np.array([EXTENDED if frame.extended else 0 for frame in frames], np.uint8).reshape(count),
        np.array([len(frame.data) for frame in frames], np.uint8).reshape(count),
        data,
        buses,
        first,
    )
