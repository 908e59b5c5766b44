"""Works out from the lake what each vehicle has reported: its release, its agent, and when it was last heard.

Receipts are events (`agent/pushes/receipts.py`).  The versions of releases only rise, so the state of a vehicle follows
from the set of its receipts.  It does not depend on the order in which they arrived:

    the newest version with a receipt    the release in force is
    ---------------------------------    ---------------------------------------------------
    applied, not reverted                this version, on trial until `push_confirmed` comes
    reverted                             the newest version that was confirmed and not reverted

A vehicle that takes back two releases, one after the other and without a new one in between, has none in force.  Its
receipts do not tell this, so an earlier release is shown until the next one comes.

A version is refused if its documents were unusable, or if it was taken back.  A bundle that could not be trusted has
version 0.  Its refusal counts until a later success, by the time of receipt, because a vehicle's clock may be wrong.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fleet.lake.location import Location
from fleet.lake.opening import missing_tables
from fleet.lake.query import query, times_of

_EVENTS: Final = """
    WITH arrivals AS (SELECT digest, received FROM batches WHERE events > 0),
    news AS (
        SELECT events.vehicle, kind, reason, fields ->> 'detail' AS detail, fields ->> 'version' AS version, received,
               (received, events.seq, events.row) AS place
        FROM events JOIN arrivals USING (digest)
        WHERE kind IN ('agent_started', 'push_applied', 'push_refused', 'push_confirmed', 'push_reverted')
    )
"""

_AGENTS: Final = f"""{_EVENTS}
    SELECT vehicle, arg_max(version, place) AS agent FROM news WHERE kind = 'agent_started' GROUP BY vehicle
"""  # noqa: S608

_REPORTED: Final = f"""{_EVENTS},
    versions AS (
        SELECT vehicle, TRY_CAST(version AS BIGINT) AS version,
               bool_or(kind IN ('push_applied', 'push_confirmed')) AS applied,
               bool_or(kind = 'push_confirmed') AS confirmed,
               bool_or(kind = 'push_reverted') AS reverted,
               max(received) FILTER (kind IN ('push_refused', 'push_reverted')) AS failed,
               max(received) FILTER (kind IN ('push_applied', 'push_confirmed')) AS succeeded,
               arg_max(reason, place) FILTER (kind IN ('push_refused', 'push_reverted')) AS reason,
               arg_max(detail, place) FILTER (kind IN ('push_refused', 'push_reverted')) AS detail
        FROM news WHERE kind <> 'agent_started' GROUP BY ALL
    ),
    newest AS (
        SELECT vehicle, max(version) FILTER (applied OR reverted) AS top, max(succeeded) AS succeeded,
               max(version) FILTER (confirmed AND NOT reverted) AS good
        FROM versions GROUP BY vehicle
    ),
    in_force AS (
        SELECT vehicle, newest.succeeded,
               coalesce(CASE WHEN reverted THEN good ELSE top END, 0) AS release,
               (top IS NOT NULL AND NOT reverted AND NOT confirmed) AS on_trial
        FROM newest LEFT JOIN versions USING (vehicle) WHERE top IS NULL OR version = top
        GROUP BY ALL
    ),
    refusals AS (
        SELECT vehicle, arg_max({{'version': version, 'reason': reason, 'detail': detail, 'at': failed}},
                                (failed, version)) AS refused
        FROM versions JOIN in_force USING (vehicle)
        WHERE failed IS NOT NULL
          AND (version > release OR (version = 0 AND (in_force.succeeded IS NULL OR failed > in_force.succeeded)))
        GROUP BY vehicle
    ),
    heard AS (
        SELECT vehicle, max(received) AS last_seen, list(DISTINCT sealing_key) AS sealing_keys
        FROM batches GROUP BY vehicle
    ),
    agents AS (
        SELECT vehicle, arg_max(version, place) AS agent FROM news WHERE kind = 'agent_started' GROUP BY vehicle
    )
    SELECT vehicle, last_seen, agent, coalesce(release, 0) AS release, coalesce(on_trial, false) AS on_trial, refused,
           sealing_keys
    FROM heard LEFT JOIN in_force USING (vehicle) LEFT JOIN refusals USING (vehicle) LEFT JOIN agents USING (vehicle)
"""  # noqa: S608

_RECEIPTS: Final = f"""{_EVENTS}
    SELECT vehicle, TRY_CAST(version AS BIGINT) AS version,
           bool_or(kind IN ('push_refused', 'push_reverted')) AS failed,
           bool_or(kind = 'push_confirmed') AS confirmed,
           any_value(reason) FILTER (kind IN ('push_refused', 'push_reverted')) AS reason
    FROM news WHERE kind <> 'agent_started' AND TRY_CAST(version AS BIGINT) >= $since GROUP BY ALL
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Refusal:
    """Holds why a vehicle refused the release `version`, or took it back; 0 means a bundle that it did not trust."""

    version: int
    reason: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Reported:
    """Holds what one vehicle has reported.

    `release` is 0 if no release is in force, as far as the fleet knows.  `sealing_keys` are the ids of all keys to
    which the vehicle has sealed batches.
    """

    last_seen: datetime
    agent: str | None
    release: int
    on_trial: bool
    refused: Refusal | None
    sealing_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Receipt:
    """Holds the result of one release in one vehicle, or what is known of it so far.

    `failed` says whether the vehicle refused the release, or took it back, for `reason`.  `confirmed` says whether the
    release passed its trial.
    """

    vehicle: str
    version: int
    failed: bool
    confirmed: bool
    reason: str | None


def reported(lake: Location) -> dict[str, Reported]:
    """Return what each vehicle has reported, for all vehicles from which the lake has a batch.

    Raises: Permanent if the lake cannot be read.
    """
    if missing_tables(lake):
        return {}
    rows = query(lake, _REPORTED)
    names = ("vehicle", "agent", "release", "on_trial", "refused", "sealing_keys")
    columns = [rows[name].to_pylist() for name in names]
    return {
        vehicle: Reported(seen, agent, release, on_trial, _refusal(refused), frozenset(keys))
        for vehicle, agent, release, on_trial, refused, keys, seen in zip(
            *columns, times_of(rows["last_seen"]), strict=True
        )
        if seen is not None
    }


def receipts_since(lake: Location, version: int) -> list[Receipt]:
    """Return the receipts of the releases from `version` on, one for each vehicle and release.

    Raises: Permanent if the lake cannot be read.
    """
    if missing_tables(lake):
        return []
    found = query(lake, _RECEIPTS, {"since": version})
    columns = (found[name].to_pylist() for name in ("vehicle", "version", "failed", "confirmed", "reason"))
    return [Receipt(*row) for row in zip(*columns, strict=True)]


def agents_of(lake: Location) -> dict[str, str]:
    """Return the version of the agent that each vehicle has reported last.

    The question reads all events of the lake.  Raises: Permanent if the lake cannot be read.
    """
    if missing_tables(lake):
        return {}
    rows = query(lake, _AGENTS).to_pylist()
    return {row["vehicle"]: row["agent"] for row in rows if row["agent"] is not None}


def _refusal(row: dict[str, object] | None) -> Refusal | None:
    if row is None:
        return None
    version, at = row["version"], row["at"]
    assert isinstance(version, int)
    assert isinstance(at, datetime)
    return Refusal(version, str(row["reason"] or ""), str(row["detail"] or ""), at)
