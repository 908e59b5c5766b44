"""Write times as text for people and for JSON.  Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def utc_text(moment: datetime) -> str:
    """Return `moment`, which is in UTC, as ISO 8601 text such as `2025-10-09 08:53:20.500000Z`."""
    return moment.replace(tzinfo=None).isoformat(sep=" ") + "Z"


def utc_text_of(t_us: int) -> str:
    """Return `t_us`, in microseconds since the Unix epoch, as text in the format of `utc_text`."""
    # datetime.fromtimestamp takes a float, which cannot hold microseconds of every year exactly.
    return utc_text(_UNIX_EPOCH + timedelta(microseconds=t_us))
