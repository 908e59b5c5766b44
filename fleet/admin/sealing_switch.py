"""Says how far the vehicles have followed a rotation of the sealing key, and whether an earlier key is still needed."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agent.errors import Permanent
from fleet.lake.location import Location
from fleet.lake.sealed_to import sealed_to
from fleet.lake.vehicles import enrolled_vehicles
from fleet.state.certificates import CLOCK_SKEW
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient
from fleet.state.registry import Registry
from fleet.state.sealing_keys import made_at


@dataclass(frozen=True, slots=True)
class SealingSwitch:
    """Counts the vehicles that are not revoked.

    `switched` have sealed a batch to the key in use.  `waiting` have not, and `never_heard` were enrolled before that
    key was made and have sent nothing.  `incomplete` have switched, and batches from before are missing.
    `last_received` has, for each key, the time at which the last batch arrived that was sealed to it.
    """

    switched: int
    waiting: int
    never_heard: int
    incomplete: int
    last_received: dict[str, datetime]

    @property
    def is_complete(self) -> bool:
        """Return whether no vehicle needs an earlier key."""
        return not (self.waiting or self.never_heard or self.incomplete)

    def verdict(self, key_id: str) -> str:
        """Say whether the earlier key `key_id` is still needed, and by what."""
        if self.is_complete:
            last = self.last_received.get(key_id)
            since = "no batch was sealed to it" if last is None else f"the last batch came on {last:%Y-%m-%d}"
            return f"No vehicle needs it any more ({since}). Move it to the offline backup."
        counts = (
            (self.waiting, "have not switched"),
            (self.never_heard, "were never heard"),
            (self.incomplete, "may still hold batches from before"),
        )
        reasons = [f"{count:,} {what}" for count, what in counts if count]
        return f"Keep it. Of the vehicles, {', '.join(reasons)} (fleet status --all --json)."


def sealing_switch(fleet: FleetFolder, lake: Location) -> SealingSwitch:
    """Return how far the vehicles have followed.  The question reads the ledger of the whole fleet.

    Raises: Permanent if the lake or the registry cannot be read.
    """
    current = read_recipient(fleet).key_id
    registry = Registry(fleet.vehicles)
    active = {name for name, each in enrolled_vehicles(lake, registry).items() if not each.revoked}
    found = sealed_to(lake, current)
    switched = {name for name in active if found.has_switched(name)}
    heard = active & found.keys.keys()
    made = made_at(fleet.hpke_private)
    return SealingSwitch(
        len(switched),
        len(heard - switched),
        sum(enrolled < made for enrolled in _enrolled(registry, active - heard)),
        len(found.incomplete & active),
        found.last_received,
    )


def _enrolled(registry: Registry, names: Iterable[str]) -> Iterable[datetime]:
    """Yield when each vehicle got its first certificate, which is when it got the sealing key of that time."""
    for name in names:
        try:
            record = registry.read(name)
        except Permanent:  # the list of keys names damaged records
            continue
        if record is not None:
            yield min(certificate.not_valid_before_utc for certificate in record.certificates) + CLOCK_SKEW
