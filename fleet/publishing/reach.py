"""Finds which enrolled vehicles an audience reaches, so that a publisher sees a mistake in it at once."""

from dataclasses import dataclass

from agent.errors import Permanent
from agent.formats.down.audience import Audience, selects
from fleet.state.registry import Registry


@dataclass(frozen=True, slots=True)
class Reach:
    """Holds the vehicles that an audience reaches.

    `enrolled` is the number of all vehicles that are enrolled and not revoked, without those whose records cannot be
    read.  `unreadable` holds an error message for each of these records.
    """

    vehicles: tuple[str, ...]
    enrolled: int
    unreadable: tuple[str, ...]


def reach_of(registry: Registry, audience: Audience, name: str) -> Reach:
    """Return the vehicles that `audience` reaches now.  `name` is the path of the document's own name.

    The audience will also reach matching vehicles that are enrolled later.
    """
    reached: list[str] = []
    unreadable: list[str] = []
    enrolled = 0
    for vehicle in registry.names():
        try:
            record = registry.read(vehicle)
        except Permanent as error:
            unreadable.append(str(error))
            continue
        if record is not None and not record.revoked:
            enrolled += 1
            if selects(audience, record.attributes, name):
                reached.append(vehicle)
    return Reach(tuple(reached), enrolled, tuple(unreadable))
