"""Read and write the times in documents and settings: ISO 8601 with a time zone.  Pure."""

from datetime import UTC, datetime

from agent.errors import Permanent


def ns_of_iso(text: str, where: str) -> int:
    """Return the time `text` as nanoseconds since the Unix epoch, rounded to whole microseconds.

    `where` is the file and the key that error messages name.

    Raises: Permanent if `text` is not a time or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Permanent(f"{where}: {text!r} is not an ISO 8601 time; write it like 2026-07-01T08:00:00Z") from error
    if moment.tzinfo is None:
        raise Permanent(f"{where}: {text!r} has no time zone; append Z for UTC")
    return round(moment.timestamp() * 1_000_000) * 1_000


def iso_of_ns(t_ns: int) -> str:
    """Return the Unix time `t_ns` as ISO 8601 text in UTC, with microseconds and a final Z."""
    moment = datetime.fromtimestamp(t_ns // 10**9, UTC).replace(microsecond=t_ns % 10**9 // 1_000)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
