"""Compares the release that the fleet wants with what each vehicle reports.

The release wanted is the newest version of the published targets, for every vehicle that is not revoked: a publication
that changes nothing for a vehicle reaches it all the same, under the new version.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from agent.errors import Permanent
from fleet.lake.location import Location
from fleet.lake.reported import Reported, reported
from fleet.lake.vehicles import Enrolled, enrolled_vehicles
from fleet.publishing.repository import read_state
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient
from fleet.state.registry import Registry

EXPIRES_SOON_DAYS: Final = 180
"""A certificate that ends within this time is named, because a car may be parked for months before it is renewed."""
SILENT_DAYS: Final = 30
"""A vehicle from which nothing was heard for this time is counted as silent."""


class State(StrEnum):
    """The state of a vehicle, compared with the release wanted.  The values are stable, because dashboards use them."""

    CURRENT = "current"
    """The release wanted is in force, and has passed its trial."""
    ON_TRIAL = "on_trial"
    """The release wanted is in force, on trial."""
    REFUSED = "refused"
    """The vehicle refused the release wanted, took it back, or does not trust what it gets."""
    BEHIND = "behind"
    """An earlier release is in force, or none, and nothing was refused."""
    NEVER_SEEN = "never_seen"
    """The lake has nothing from the vehicle."""
    REVOKED = "revoked"
    """The vehicle is revoked, so the fleet wants nothing of it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Holds one vehicle: what the registry says about it, and what it has reported, if anything.

    `sealing_key` is the id of the fleet's sealing key in use, or None if its file is not on this machine.
    """

    vehicle: str
    wanted: int
    enrolled: Enrolled
    reported: Reported | None
    sealing_key: str | None = None

    @property
    def seals_to_key_in_use(self) -> bool | None:
        """Return whether the vehicle has sealed a batch to the sealing key in use.  None means that it is not known."""
        if self.reported is None or self.sealing_key is None:
            return None
        return self.sealing_key in self.reported.sealing_keys

    @property
    def state(self) -> State:
        """Return the state of the vehicle."""
        if self.enrolled.revoked:
            return State.REVOKED
        if self.reported is None:
            return State.NEVER_SEEN
        if self.reported.release >= self.wanted:
            return State.ON_TRIAL if self.reported.on_trial else State.CURRENT
        refused = self.reported.refused
        return State.REFUSED if refused is not None and refused.version in (0, self.wanted) else State.BEHIND


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts the vehicles of a fleet, without the revoked ones except in `states`.

    `sealing_earlier` counts the vehicles that have never sealed a batch to the sealing key in use, of those heard.
    `releases` and `agents` count the vehicles for each release in force and each version of the agent.  `reasons`
    counts the vehicles that refuse the release wanted, by reason.  `expired` counts certificates that have
    expired, and `expiring` those that will within EXPIRES_SOON_DAYS.  `silent` counts vehicles from which nothing was
    heard for SILENT_DAYS.
    """

    wanted: int
    vehicles: int
    states: Mapping[State, int]
    releases: Mapping[int, int]
    agents: Mapping[str, int]
    reasons: Mapping[str, int]
    expired: int
    expiring: int
    silent: int
    sealing_earlier: int = 0


def standings(fleet: FleetFolder, lake: Location, only: Collection[str] = ()) -> list[Standing]:
    """Return the standing of all enrolled vehicles, or of those in `only`, by name.

    Raises: Permanent if a vehicle in `only` is not enrolled, or if the registry, the repository or the lake cannot be
    read.
    """
    wanted = read_state(fleet.metadata).versions.targets
    enrolled = enrolled_vehicles(lake, Registry(fleet.vehicles))
    for vehicle in only:
        if vehicle not in enrolled:
            raise Permanent(f"No vehicle {vehicle} is enrolled in {fleet.root}. Check the name of the vehicle.")
    heard = reported(lake)
    key = read_recipient(fleet).key_id if fleet.hpke_private.exists() else None
    return [
        Standing(vehicle, wanted, enrolled[vehicle], heard.get(vehicle), key)
        for vehicle in sorted(set(only) or enrolled)
    ]


def summary_of(found: Collection[Standing], now: datetime) -> Summary:
    """Count the vehicles of `found`, of which all want the same release.  `now` is the time, with a time zone."""
    active = [each for each in found if not each.enrolled.revoked]
    heard = [each.reported for each in active if each.reported is not None]
    refusing = [each.reported.refused for each in active if each.state is State.REFUSED and each.reported is not None]
    ends = [each.enrolled.certificate_expires for each in active if each.enrolled.certificate_expires is not None]
    expired = sum(end <= now for end in ends)
    return Summary(
        wanted=max((each.wanted for each in found), default=0),
        vehicles=len(active),
        states=Counter(each.state for each in found),
        releases=Counter(each.release for each in heard),
        agents=Counter(each.agent or "unknown" for each in heard),
        reasons=Counter(refusal.reason for refusal in refusing if refusal is not None),
        expired=expired,
        expiring=sum(end <= now + timedelta(days=EXPIRES_SOON_DAYS) for end in ends) - expired,
        silent=sum(each.last_seen < now - timedelta(days=SILENT_DAYS) for each in heard),
        sealing_earlier=sum(each.seals_to_key_in_use is False for each in active),
    )


def needs_attention(standing: Standing, now: datetime) -> bool:
    """Return whether a person should look at the vehicle.

    It refuses the release, it is silent or was never seen, or its certificate ends soon.
    """
    if standing.enrolled.revoked:
        return False
    ends = standing.enrolled.certificate_expires
    return (
        standing.state in (State.REFUSED, State.NEVER_SEEN)
        or (ends is not None and ends <= now + timedelta(days=EXPIRES_SOON_DAYS))
        or (standing.reported is not None and standing.reported.last_seen < now - timedelta(days=SILENT_DAYS))
    )
