"""An encoder of CAN frames from decoders of FleetWise, bit by bit, and what such a decoder gives for a frame.

It is the oracle of the databases that `fleet import fleetwise` writes, and shares no code with them.  It walks as
FleetWise's guide says: `startBit` is the least significant bit, counted from the least significant bit of byte 0.  In
a little-endian signal the next bit is the next one of the byte and then of the next byte.  In a big-endian signal the
next byte is the byte before.
"""

import struct
from typing import Any


def places(layout: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (byte, bit) of each bit of a signal, the least significant first.  A byte may be negative."""
    byte, bit = divmod(layout["startBit"], 8)
    step = -1 if layout["isBigEndian"] else 1
    found = []
    for _ in range(layout["length"]):
        found.append((byte, bit))
        bit += 1
        if bit == 8:
            byte, bit = byte + step, 0
    return found


def put(data: bytearray, layout: dict[str, Any], pattern: int) -> None:
    """Write the bits of `pattern` into a frame."""
    for index, (byte, bit) in enumerate(places(layout)):
        if pattern >> index & 1:
            data[byte] |= 1 << bit
        else:
            data[byte] &= ~(1 << bit)


def value(data: bytes, layout: dict[str, Any]) -> float:
    """Return the physical value of a signal in a frame."""
    pattern = sum((data[byte] >> bit & 1) << index for index, (byte, bit) in enumerate(places(layout)))
    raw: float = pattern
    if layout.get("signalValueType") == "FLOATING_POINT":
        kind, size = ("<f", 4) if layout["length"] == 32 else ("<d", 8)
        raw = struct.unpack(kind, pattern.to_bytes(size, "little"))[0]
    elif layout["isSigned"] and pattern >> (layout["length"] - 1):
        raw = pattern - (1 << layout["length"])
    return raw * layout["factor"] + layout["offset"]
