"""The receiver signs the timestamp anew long before it expires, and changes nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.errors import Permanent
from agent.pushes.freshness import expiry_of, must_warn
from fleet.publishing import repository
from fleet.publishing.freshness import keep_fresh
from fleet.publishing.publish import publish
from fleet.state.folder import FleetFolder

NOW = datetime.now(UTC).replace(microsecond=0)


def after(days: float) -> datetime:
    return NOW + timedelta(days=days)


def test_a_third_of_its_life_passes_before_the_timestamp_is_signed_anew(fleet: FleetFolder) -> None:
    before = publish(fleet, now=NOW).versions
    assert not keep_fresh(fleet, after(29)).signed
    found = keep_fresh(fleet, after(31))
    assert (found.signed, found.file, found.expires) == (True, "timestamp", after(31 + 90))
    versions = repository.read_state(fleet.metadata).versions
    assert (versions.targets, versions.snapshot, versions.timestamp) == (
        before.targets,
        before.snapshot,
        before.timestamp + 1,
    )
    assert not keep_fresh(fleet, after(31)).signed


def test_a_validity_that_was_chosen_is_kept(fleet: FleetFolder) -> None:
    publish(fleet, expiry_days=9, now=NOW)
    assert not keep_fresh(fleet, after(2)).signed
    assert keep_fresh(fleet, after(4)).expires == after(4 + 9)


def test_a_receiver_that_was_off_for_a_year_signs_at_once(fleet: FleetFolder) -> None:
    publish(fleet, now=NOW)
    assert keep_fresh(fleet, after(400)).expires == after(490)


def test_what_the_receiver_cannot_sign_is_urgent_a_month_before(fleet: FleetFolder) -> None:
    publish(fleet, now=NOW)
    expires = repository.read_state(fleet.metadata).targets.expires
    found = keep_fresh(fleet, expires - timedelta(days=29))
    assert (found.file in ("targets", "snapshot"), found.is_urgent(expires - timedelta(days=29))) == (True, True)
    assert not keep_fresh(fleet, after(40)).is_urgent(after(40))


def test_without_the_key_the_message_names_it(fleet: FleetFolder) -> None:
    publish(fleet, now=NOW)
    fleet.key("timestamp").unlink()
    with pytest.raises(Permanent, match=r"timestamp\.pem"):
        keep_fresh(fleet, after(31))


def test_the_vehicle_knows_when_the_signature_expires_and_warns_a_month_before(fleet: FleetFolder) -> None:
    publish(fleet, now=NOW)
    expires = expiry_of({"timestamp.json": (fleet.metadata / "timestamp.json").read_bytes()})
    assert expires == after(90)
    assert not must_warn(expires, after(59))
    assert must_warn(expires, after(61))
    assert expiry_of({}) is None
    assert expiry_of({"timestamp.json": b"damaged"}) is None
