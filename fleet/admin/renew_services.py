"""Renew the certificates of the broker and of the receivers.

The broker's certificate is replaced in one step: vehicles trust its authority and not the certificate itself.

The receivers' certificate takes two steps, because the broker trusts this very certificate:

    1. Make the new one, and list both for the broker (`broker/receivers.crt.pem`).  Receivers go on with the old one.
    2. When the broker has the list, put the new one into use.  The old one stays on the list until the next renewal.

Each step can be interrupted at any moment and is then run again.  The keys stay, so that each step replaces one file.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from agent.system.durable import remove
from fleet.state import certificates, keys
from fleet.state.authorities import issuing_authority
from fleet.state.folder import FleetFolder
from fleet.state.key_lock import key_lock

SERVICE_DAYS: Final = 5 * 365
"""Validity of the certificates of broker and receiver in days.  An operator can replace these certificates any day."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """Holds the expiry of a new certificate, and whether it is in use.  If not, run the command again."""

    expires: datetime
    in_use: bool


def renew_broker(fleet: FleetFolder, *, names: list[str], days: int = SERVICE_DAYS, now: datetime) -> Renewed:
    """Issue a new certificate for the broker's key, with the names of the old one and the further `names`.

    Raises: Permanent if the authority's key is not here, or if a file is damaged.
    """
    with key_lock(fleet):
        return issue_broker(fleet, names=names, days=days, now=now)


def issue_broker(fleet: FleetFolder, *, names: list[str], days: int, now: datetime) -> Renewed:
    """Do the work of `renew_broker` for a caller that holds the lock of the keys."""
    before = keys.read_certificate(fleet.broker_certificate)
    authority = issuing_authority(fleet)
    known = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    all_names = dict.fromkeys([*(str(name.value) for name in known), *names])
    certificate = certificates.issue_server(
        authority.certificate,
        authority.key,
        keys.read_p256(fleet.broker_key).public_key(),
        names=tuple(all_names),
        now=now,
        days=days,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(fleet.broker_certificate, certificate)
    return Renewed(certificate.not_valid_after_utc, in_use=True)


def renew_receiver(fleet: FleetFolder, *, days: int = SERVICE_DAYS, now: datetime) -> Renewed:
    """Take the next step of renewing the receivers' certificate; see the module text.

    Raises: Permanent if a file is missing or damaged.
    """
    with key_lock(fleet):
        present = keys.read_certificate(fleet.receiver_certificate)
        if not fleet.next_receiver_certificate.exists():
            return _list_next(fleet, present, _next_receiver(fleet, days, now))
        following = keys.read_certificate(fleet.next_receiver_certificate)
        if following not in keys.read_certificates(fleet.accepted_receivers):
            # The first step was interrupted, so the broker cannot know the new certificate yet.
            return _list_next(fleet, present, following)
        if following != present:  # equal if the second step was interrupted at its end
            keys.write_certificates(fleet.accepted_receivers, [following, present])
            keys.write_certificate(fleet.receiver_certificate, following)
        remove(fleet.next_receiver_certificate)
        return Renewed(following.not_valid_after_utc, in_use=True)


def _next_receiver(fleet: FleetFolder, days: int, now: datetime) -> x509.Certificate:
    certificate = certificates.create_client(
        keys.read_p256(fleet.receiver_key),
        common_name="receiver",
        now=now,
        days=days,
        serial=x509.random_serial_number(),
    )
    keys.write_certificate(fleet.next_receiver_certificate, certificate)
    return certificate


def _list_next(fleet: FleetFolder, present: x509.Certificate, certificate: x509.Certificate) -> Renewed:
    keys.write_certificates(fleet.accepted_receivers, [present, certificate])
    return Renewed(certificate.not_valid_after_utc, in_use=False)
