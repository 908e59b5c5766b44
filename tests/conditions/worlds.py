"""Makes small random databases: several buses, one by PGN, multiplexed messages, both byte orders, IEEE floats."""

from dataclasses import dataclass
from functools import cached_property
from random import Random

import cantools

from can_dbc import database
from can_dbc.compile import compile_plan
from can_dbc.plan import BusPlan, Match
from tests.conditions.rows import Bus, Rows

MESSAGES = ("A", "B", "Vehicle", "Wheel_1")
SIGNALS = ("S", "T", "U", "Speed")
_FACTORS = ("1", "1", "1", "0.5", "0.1", "0.01", "0.001", "0.0005", "-1", "-0.25", "1000")
_OFFSETS = ("0", "0", "0", "0", "-40", "0.5", "100", "-1e-3")
_BITS = (1, 1, 2, 3, 4, 8, 8, 12, 16)


@dataclass(frozen=True)
class World:
    """The buses of a vehicle: the text of the DBC of each, and which are compared by PGN."""

    databases: dict[str, str]
    by_pgn: frozenset[str]

    @cached_property
    def rows(self) -> Rows:
        """Decode with cantools."""
        buses = {}
        for bus, text in self.databases.items():
            read = cantools.database.load_string(text, "dbc", strict=False)
            assert isinstance(read, cantools.database.Database)
            buses[bus] = Bus((read,), bus in self.by_pgn)
        return Rows(buses)

    @cached_property
    def plans(self) -> dict[str, BusPlan]:
        """Decode with the agent's decoder."""
        return {
            bus: compile_plan(
                [database.parse(text.encode(), "dbc", f"{bus}.dbc")], Match.PGN if bus in self.by_pgn else Match.EXACT
            )
            for bus, text in self.databases.items()
        }


def random_world(random: Random) -> World:
    """Return one to three buses.  Messages on several buses may have one name."""
    buses = [f"can{number}" for number in range(random.choice((1, 2, 2, 3)))]
    by_pgn = frozenset(bus for bus in buses if random.random() < 0.4)
    return World({bus: _database(random, bus in by_pgn) for bus in buses}, by_pgn)


def _database(random: Random, by_pgn: bool) -> str:
    names = random.sample(MESSAGES, random.randint(1, len(MESSAGES) - 1))
    text = 'VERSION ""\n\nBS_:\n\nBU_: N\n'
    endings = ""
    for number, name in enumerate(names):
        # On a bus by PGN, one message may keep a standard identifier.
        extended = by_pgn and (number != 1 or random.random() < 0.7)
        can_id = _pgn_id(random, number) | 1 << 31 if extended else 0x100 + number
        body, kinds = _message(random, can_id)
        text += f"\nBO_ {can_id} {name}: 8 N\n{body}"
        endings += kinds
    return f"{text}\n{endings}"


def _pgn_id(random: Random, number: int) -> int:
    # PDU1 (the low byte of the PGN is a destination) or PDU2.
    pgn = (0x10 + number) << 8 if random.random() < 0.3 else 0xF000 + number + 0x100 * random.randint(0, 9)
    return 6 << 26 | pgn << 8 | 0xFE


def _message(random: Random, can_id: int) -> tuple[str, str]:
    big = random.random() < 0.3
    lines, endings, place = "", "", 0
    names = random.sample(SIGNALS, random.randint(1, len(SIGNALS)))
    multiplexed = random.random() < 0.25
    if multiplexed:
        lines += _signal("Mode", " M", 0, 2, big, False, "1", "0")
        place = 2
    for number, name in enumerate(names):
        selected = f" m{number % 3}" if multiplexed and random.random() < 0.8 else ""
        factor, offset = random.choice(_FACTORS), random.choice(_OFFSETS)
        if number == 0 and not multiplexed and random.random() < 0.12:
            bits = random.choice((32, 64))
            lines += _signal(name, "", 0, bits, False, True, factor, offset)
            endings += f"SIG_VALTYPE_ {can_id} {name} : {bits // 32};\n"
            place = bits
        elif number == 0 and not multiplexed and random.random() < 0.1:
            lines += _signal(name, "", 0, 64, big, random.random() < 0.5, factor, offset)
            place = 64
        else:
            bits = random.choice(_BITS)
            if place + bits > 64:
                break
            lines += _signal(name, selected, place, bits, big, random.random() < 0.3, factor, offset)
            place += bits
    return lines, endings


def _signal(name: str, role: str, place: int, bits: int, big: bool, signed: bool, factor: str, offset: str) -> str:
    start = 8 * (place // 8) + 7 - place % 8 if big else place
    kind = f"{'0' if big else '1'}{'-' if signed else '+'}"
    return f' SG_ {name}{role} : {start}|{bits}@{kind} ({factor},{offset}) [0|0] "" N\n'
