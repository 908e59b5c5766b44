"""Describes what a staged roll-out publishes: its share of the vehicles, and what was published before.  Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agent.formats.down.audience import Audience

WHOLE: Final = 100.0
"""The share of the last stage, in percent."""


class Earlier(msgspec.Struct, frozen=True):
    """Holds a target as it was before the roll-out: its path, SHA-256 (hex), length and `custom` field."""

    path: str
    sha256: str
    length: int
    custom: dict[str, Any] | None = None


def share_name(names: Sequence[str]) -> str:
    """Return the name that decides which vehicles belong to a share: that of the document, if there is only one."""
    return "\n".join(sorted(names))


def within(audience: Audience, percent: float) -> Audience:
    """Return `audience`, restricted to `percent` percent of its vehicles (100: unchanged)."""
    if percent >= WHOLE:
        return audience
    return [{**rule, "percent": (percent,)} for rule in audience or ({},)]
