"""The two ways in which flagd's libraries put a value into a share, written from their public descriptions.

murmur3 is that of Austin Appleby (MurmurHash3_x86_32, seed 0).  The older way hashes the text itself, and the newer
way hashes its CBOR (RFC 8949).  Neither shares code with the product.
"""

from collections.abc import Callable
from typing import Any

_WORD = 0xFFFFFFFF


def murmur3(data: bytes) -> int:
    whole = len(data) // 4 * 4
    value = 0
    for at in range(0, whole, 4):
        value ^= _scrambled(int.from_bytes(data[at : at + 4], "little"))
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & _WORD
    value ^= _scrambled(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        value = ((value ^ (value >> shift)) * factor) & _WORD
    return value


def _scrambled(word: int) -> int:
    return (_rotated((word * 0xCC9E2D51) & _WORD, 15) * 0x1B873593) & _WORD


def _rotated(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _WORD


def cbor(value: str | list[str]) -> bytes:
    content = value.encode() if isinstance(value, str) else b"".join(cbor(item) for item in value)
    kind, size = (3, len(content)) if isinstance(value, str) else (4, len(value))
    if size < 24:
        return bytes([kind << 5 | size]) + content
    assert size < 256
    return bytes([kind << 5 | 24, size]) + content


def by_text(flag: str, key: str | None, by: Any) -> bytes | None:
    """Return what flagd and its libraries for Go, JavaScript, .NET, Rust and PHP hash."""
    if by is not None:
        return by.encode() if isinstance(by, str) else None
    return f"{flag}{key}".encode() if key else None


def by_cbor(flag: str, key: str | None, by: Any) -> bytes | None:
    """Return what the library for Python hashes since 2.0."""
    if by is not None:
        return cbor(by) if isinstance(by, str) else None
    return cbor([flag, key]) if key else None


def fractional(hashed: Callable[[str, str | None, Any], bytes | None]) -> Callable[..., Any]:
    """Return the operator `fractional` that hashes what `hashed` says."""

    def operator(data: Any, *arguments: Any) -> Any:
        has_rule = not isinstance(arguments[0], list)
        shares = arguments[1:] if has_rule else arguments
        by = arguments[0] if has_rule else None
        if has_rule and by is None:
            return None
        content = hashed(data["$flagd"]["flagKey"], data.get("targetingKey"), by)
        if content is None:
            return None
        weights = [max(0, share[1]) if len(share) == 2 else 1 for share in shares]
        if sum(weights) >= 2**31:
            return None
        place, reached = murmur3(content) * sum(weights) >> 32, 0
        for share, weight in zip(shares, weights, strict=True):
            reached += weight
            if place < reached:
                return share[0]
        return None

    return operator
