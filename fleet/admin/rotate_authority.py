"""Rotate the certificate authority, in three steps that may be months apart.

    1. announce   A new authority is made.  Vehicles and the broker accept certificates of both.
    2. switch     The new authority issues certificates.  Vehicles ask for one of the new authority by themselves.
    3. finish     The broker's certificate comes from the new authority, and nothing accepts the old one any more.

Each call takes the next step, which follows from the files.  An interrupted step is completed by taking it again: the
release is the last thing that a step publishes, so a step whose authorities are not published was interrupted.

Invariant: the broker's certificate changes in the last step only, because a vehicle that has not heard of the new
authority could not recognise the broker.  A vehicle that is off from before step 1 until after step 3 cannot come back
by itself; docs/keys.md says how it is brought back.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import Permanent
from agent.formats.down.documents import AUTHORITIES
from agent.system.durable import remove
from agent.system.words import counted
from fleet.admin.announced import is_announced, was_announced
from fleet.admin.renew_services import SERVICE_DAYS, issue_broker
from fleet.publishing.places import refuse_staged
from fleet.publishing.publish import Publication, publish
from fleet.rollout.book import documents_in_rollout
from fleet.state import certificates, keys
from fleet.state.authorities import accepted_authorities, authority_of, issuing_authority, update_revocation_lists
from fleet.state.certificates import fingerprint
from fleet.state.folder import FleetFolder
from fleet.state.key_lock import key_lock
from fleet.state.registry import Registry

AUTHORITY_DAYS: Final = 30 * 365
"""Validity of an authority's certificate in days.

It is longer than the service life of a car, because vehicles recognise their broker by this certificate.
"""

_NAME: Final = "headunit fleet authority"
ANNOUNCED, SWITCHED, FINISHED = "announced", "switched", "finished"


@dataclass(frozen=True, slots=True)
class Step:
    """Holds the step that was taken, the issuing authority after it, and the version of the release that announces it.

    `waiting` is the number of vehicles whose newest certificate still comes from another authority.
    """

    name: str
    issuing: str
    targets: int
    waiting: int


def rotate_authority(fleet: FleetFolder, *, now: datetime, leave_behind: bool = False) -> Step:
    """Take the next step of the rotation.

    The last step is refused while vehicles still have certificates of the old authority, unless `leave_behind` is set.

    Raises: Permanent if a key is not here, a vehicle would be left behind or a roll-out publishes authorities;
    Transient if a publisher is at work.
    """
    with key_lock(fleet):
        refuse_staged([AUTHORITIES.pattern], documents_in_rollout(fleet))
        issuing, *others = accepted_authorities(fleet)
        interrupted = _is_interrupted(fleet, issuing, others)
        if not others:
            return _end(fleet, issuing, now) if interrupted else _announce(fleet, issuing, now)
        (other,) = others
        if _number(other) > _number(issuing):
            return (
                _step(fleet, ANNOUNCED, [issuing, other], now) if interrupted else _switch(fleet, issuing, other, now)
            )
        return _switch(fleet, other, issuing, now) if interrupted else _finish(fleet, issuing, now, leave_behind)


def _is_interrupted(fleet: FleetFolder, issuing: x509.Certificate, others: Sequence[x509.Certificate]) -> bool:
    """Return whether the last step was not completed: vehicles have not been told the authorities of these files."""
    if not others and not was_announced(fleet, AUTHORITIES.pattern):
        return False  # a fleet that never rotated
    return not is_announced(fleet, AUTHORITIES.pattern, _document([issuing, *others]))


def _announce(fleet: FleetFolder, issuing: x509.Certificate, now: datetime) -> Step:
    issuing_authority(fleet)  # The key must be here before anything changes.
    key = ec.generate_private_key(ec.SECP256R1())
    # Authorities need different names, because certificates and revocation lists name their issuer.
    following = certificates.create_authority(
        key,
        name=f"{_NAME} {_number(issuing) + 1}",
        now=now,
        days=AUTHORITY_DAYS,
        serial=x509.random_serial_number(),
    )
    # If the power fails after this line, the key is of no use, and the next attempt makes another.
    keys.write_private(fleet.key(f"ca-{fingerprint(following)}.key"), key)
    return _step(fleet, ANNOUNCED, [issuing, following], now)


def _switch(fleet: FleetFolder, old: x509.Certificate, new: x509.Certificate, now: datetime) -> Step:
    authority, before = authority_of(fleet, new), authority_of(fleet, old)
    keys.write_private(fleet.key(f"ca-{fingerprint(old)}.key"), before.key)
    # This file is the switch: from here on, the new authority signs.
    keys.write_certificate(fleet.ca_certificate, new)
    keys.write_private(fleet.key("ca.key"), authority.key)
    return _step(fleet, SWITCHED, [new, old], now)


def _finish(fleet: FleetFolder, issuing: x509.Certificate, now: datetime, leave_behind: bool) -> Step:
    waiting = _waiting(fleet, issuing)
    if waiting and not leave_behind:
        raise Permanent(
            f"Certificates of the old authority are still in use in {counted(waiting, 'vehicle')}, which could not "
            "connect any more. Vehicles renew them when they connect. Wait for this, or give --leave-behind "
            "(docs/keys.md says how such a vehicle comes back)."
        )
    issue_broker(fleet, names=[], days=SERVICE_DAYS, now=now)
    return _end(fleet, issuing, now)


def _end(fleet: FleetFolder, issuing: x509.Certificate, now: datetime) -> Step:
    # An interrupted switch may have left the key of the issuing authority under its second name only.
    keys.write_private(fleet.key("ca.key"), authority_of(fleet, issuing).key)
    for path in fleet.keys.glob("ca-*.key.pem"):
        remove(path)
    return _step(fleet, FINISHED, [issuing], now)


def _step(fleet: FleetFolder, name: str, accepted: Sequence[x509.Certificate], now: datetime) -> Step:
    """Let broker and receivers accept these authorities, the issuing one first, and tell the vehicles."""
    keys.write_certificates(fleet.broker.authorities, accepted)
    update_revocation_lists(fleet, now=now)
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / AUTHORITIES.pattern
        document.write_bytes(_document(accepted))
        published = publish(fleet, Publication(files=[(AUTHORITIES.name, document)]), now=now)
    return Step(name, fingerprint(accepted[0]), published.versions.targets, _waiting(fleet, accepted[0]))


def _document(accepted: Sequence[x509.Certificate]) -> bytes:
    """Return the document that tells vehicles which authorities to accept."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in accepted)


def _number(authority: x509.Certificate) -> int:
    """Return the number of an authority, which is in its name.  The first authority has none, and counts as 1."""
    name = str(authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    number = name.removeprefix(_NAME).strip()
    return int(number) if number.isdecimal() else 1


def _waiting(fleet: FleetFolder, issuing: x509.Certificate) -> int:
    registry = Registry(fleet.vehicles)
    records = (registry.read(name) for name in registry.names())
    return sum(
        record.certificates[0].issuer != issuing.subject
        for record in records
        if record is not None and not record.revoked
    )
