"""Mutates valid seeds.  The same state of `chance` gives the same bytes."""

import random
import re
from collections.abc import Callable, Sequence

MAX_BYTES = 64 * 1024
_NUMBER = re.compile(rb"\d+")
_NUMBERS = [
    b"0", b"1", b"-1", b"255", b"256", b"65535", b"65536", b"2147483648", b"4294967295", b"4294967296",
    b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809", b"1e308", b"1e999", b"-1e-400", b"nan",
    b"inf", b"9" * 30, b"9" * 400, b"0x10", b"1.5", b"\xd9\xa3",
]  # fmt: skip
_BYTES = [0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x22, 0x2C, 0x3A]

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutated(chance: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """Return a seed with one to six changes, cut to MAX_BYTES.  `tokens` are words of the format to insert."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        if tokens and chance.random() < 0.15:
            _insert(chance, content, chance.choice(tokens))
        else:
            chance.choice(_MUTATIONS)(chance, content, seeds)
    return bytes(content[:MAX_BYTES])


def overwritten(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed of the same length with one to six fields changed.

    In formats whose blocks link to each other, inserted bytes would only break the first link.
    """
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        width = chance.choice((1, 1, 2, 4, 8, 8))
        place = chance.randrange(0, len(content) - width + 1, width)
        other = chance.randrange(0, len(content) - width + 1, width)
        number = int.from_bytes(content[place : place + width], "little")
        value = chance.choice(
            (
                content[other : other + width],
                chance.randbytes(width),
                _field(number ^ 1 << chance.randrange(8 * width), width),
                _field(number + chance.choice((-8, -1, 1, 8)), width),
                _field(chance.choice((0, 1, -1, len(content), 1 << chance.randrange(8 * width))), width),
            )
        )
        content[place : place + width] = value
    return bytes(content)


def _field(number: int, width: int) -> bytes:
    return (number % (1 << 8 * width)).to_bytes(width, "little")


def _place(chance: random.Random, content: bytearray) -> int:
    return chance.randrange(len(content) + 1)


def _span(chance: random.Random, content: bytearray) -> slice:
    start = _place(chance, content)
    return slice(start, start + chance.choice((1, 1, 2, 4, 8, 16, chance.randrange(1, 200))))


def _insert(chance: random.Random, content: bytearray, inserted: bytes) -> None:
    at = _place(chance, content)
    content[at:at] = inserted


def _flip(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    if content:
        content[chance.randrange(len(content))] = chance.choice((*_BYTES, chance.randrange(256)))


def _truncate(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    del content[_place(chance, content) :]


def _delete(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    del content[_span(chance, content)]


def _duplicate(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    _insert(chance, content, bytes(content[_span(chance, content)]) * chance.choice((1, 1, 2, 20)))


def _noise(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    content[_span(chance, content)] = chance.randbytes(chance.randrange(12))


def _splice(chance: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    other = bytearray(chance.choice(seeds))
    content[_place(chance, content) :] = other[_place(chance, other) :]


def _borrow(chance: random.Random, content: bytearray, seeds: Sequence[bytes]) -> None:
    other = bytearray(chance.choice(seeds))
    _insert(chance, content, bytes(other[_span(chance, other)]))


def _number(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    numbers = list(_NUMBER.finditer(content))
    if numbers:
        found = chance.choice(numbers)
        content[found.start() : found.end()] = chance.choice((*_NUMBERS, str(chance.randrange(100)).encode()))


def _line(chance: random.Random, content: bytearray, _: Sequence[bytes]) -> None:
    lines = content.split(b"\n")
    number = chance.randrange(len(lines))
    if chance.random() < 0.5:
        lines.insert(chance.randrange(len(lines) + 1), lines[number])
    else:
        del lines[number]
    content[:] = b"\n".join(lines)


_MUTATIONS: Sequence[Mutation] = (
    _flip, _flip, _set, _truncate, _delete, _duplicate, _noise, _splice, _borrow, _number, _number, _line,
)  # fmt: skip
