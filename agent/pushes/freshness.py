"""Says until when the fleet's newest signature holds.  Pure.

A vehicle refuses every push that comes with an expired timestamp.  The agent warns long before, because the cause is
usually at the fleet: its receiver renews the timestamp, and something keeps it from doing so.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

WARN: Final = timedelta(days=30)
"""The agent warns of a signature that expires within this time.  The fleet renews it when 60 of 90 days are left."""


class _Signed(msgspec.Struct, frozen=True):
    expires: datetime


class _Metadata(msgspec.Struct, frozen=True):
    signed: _Signed


def expiry_of(metadata: Mapping[str, bytes]) -> datetime | None:
    """Return when the trusted timestamp expires, or None if the vehicle has none.

    `metadata` is the trusted TUF metadata by file name (agent/pushes/store.py).
    """
    content = metadata.get("timestamp.json")
    if content is None:
        return None
    try:
        expires = msgspec.json.decode(content, type=_Metadata).signed.expires
    except msgspec.DecodeError:
        return None
    return expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)


def must_warn(expires: datetime | None, now: datetime) -> bool:
    """Return whether the signature expires soon, or has expired."""
    return expires is not None and expires - now < WARN
