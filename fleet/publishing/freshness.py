"""Keeps the timestamp of the repository fresh, so that vehicles go on accepting what is published.

A vehicle takes no push whose timestamp has expired, because an attacker may be withholding newer ones.  A fleet that
publishes rarely must therefore sign the timestamp anew from time to time.  The receiver does so by itself when a third
of the timestamp's validity has passed, with the same validity as before.

Invariant: a new timestamp names the snapshot that is published already, so it changes nothing that vehicles apply.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.formats.down.bundle import SIGNED_AT
from fleet.publishing import repository
from fleet.publishing.bins import first_expiry
from fleet.publishing.publish import EXPIRY_DAYS
from fleet.publishing.repository import State
from fleet.state.folder import FleetFolder

RENEW_AFTER: Final = 1 / 3
"""The timestamp is signed anew when this share of its validity has passed.

Each new timestamp costs each vehicle one verification, so this is not done daily.  Two thirds of the validity, 60 days
with the default, remain to repair a receiver that cannot sign.
"""
WARN: Final = timedelta(days=30)
"""Metadata that expires within this time and cannot be signed here is an error in the log."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Says which published metadata file expires first, when, and whether it has just been signed again."""

    expires: datetime
    file: str
    signed: bool

    def is_urgent(self, now: datetime) -> bool:
        """Return whether people must act now."""
        return self.expires - now < WARN


def keep_fresh(folder: FleetFolder, now: datetime) -> Freshness:
    """Sign the timestamp anew if it is due, and return what expires first.

    Targets and snapshot live three years and are signed by `fleet publish` only, because their keys may be elsewhere.

    Raises: Permanent if the repository is damaged or the key of the timestamp is not here; Transient if a publisher is
    at work.
    """
    if not _is_due(repository.read_state(folder.metadata), now):
        return _freshness(folder, signed=False)
    with repository.locked(folder):
        # Another receiver may have signed it meanwhile.
        state = repository.read_state(folder.metadata)
        due = _is_due(state, now)
        if due:
            repository.refresh(folder, state, now=now, expiry_days=_validity_days(state))
    return _freshness(folder, signed=due)


def _is_due(state: State, now: datetime) -> bool:
    validity = timedelta(days=_validity_days(state))
    return state.timestamp.expires - now < validity * (1 - RENEW_AFTER)


def _validity_days(state: State) -> int:
    """Return for how many days the present timestamp was signed, but not more than the default.

    A new fleet's first timestamp lives three years, because its vehicles have nothing to fetch yet.
    """
    signed_at = state.timestamp.unrecognized_fields.get(SIGNED_AT)
    if not isinstance(signed_at, int):
        return EXPIRY_DAYS
    days = round((state.timestamp.expires.timestamp() - signed_at) / 86_400)
    return min(max(days, 1), EXPIRY_DAYS)


def _freshness(folder: FleetFolder, *, signed: bool) -> Freshness:
    state = repository.read_state(folder.metadata)
    root = repository.read_root(folder.metadata).signed
    found = {
        "timestamp": state.timestamp.expires,
        "snapshot": state.snapshot.expires,
        "targets": state.targets.expires,
        "root": root.expires,
    }
    bins = first_expiry(folder, state)
    if bins is not None:
        found["bins"] = bins
    file = min(found, key=lambda name: found[name])
    return Freshness(found[file], file, signed)
