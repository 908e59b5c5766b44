"""Finds the fleet's certificate authorities and their keys, and keeps the broker's revocation lists.

    ca.crt.pem                    the issuing authority: it signs every new certificate
    broker/authorities.crt.pem    all accepted authorities, the issuing one first
    broker/revoked.crl.pem        one revocation list of each accepted authority
    keys/ca.key.pem               the key of the issuing authority
    keys/ca-<fingerprint>.key.pem the key of any other authority, during a rotation

Invariant: replacing `ca.crt.pem` is what switches to another authority.  The key of the authority in that file is found
under both names, so a power cut during a rotation leaves a certificate together with its key.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from fleet.state import keys
from fleet.state.certificates import create_revocation_list, fingerprint
from fleet.state.folder import FleetFolder


@dataclass(frozen=True, slots=True)
class Authority:
    """Holds the certificate and the private key of an authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_trust(fleet: FleetFolder, authority: Authority, receiver: x509.Certificate, now: datetime) -> None:
    """Write what the broker of a new fleet accepts: vehicles of `authority`, none of them revoked, and `receiver`."""
    keys.write_certificate(fleet.broker.accepted_receivers, receiver)
    keys.write_certificate(fleet.broker.authorities, authority.certificate)
    # The list is empty.  It exists so that the broker's configuration can name its file from the start.
    empty = create_revocation_list(authority.certificate, authority.key, {}, now=now, number=1)
    keys.write_revocation_lists(fleet.broker.revocation_list, [empty])


def issuing_authority(fleet: FleetFolder) -> Authority:
    """Return the authority that signs new certificates.  Raises: Permanent, as `authority_of` does."""
    return authority_of(fleet, keys.read_certificate(fleet.ca_certificate))


def authority_of(fleet: FleetFolder, certificate: x509.Certificate) -> Authority:
    """Return the authority with this certificate.  Raises: Permanent if its key is not here or is damaged."""
    usual, other = fleet.key("ca.key"), fleet.key(f"ca-{fingerprint(certificate)}.key")
    for path in (other, usual):
        if path.exists():
            key = keys.read_p256(path)
            if key.public_key() == certificate.public_key():
                return Authority(certificate, key)
    raise Permanent(
        f"The private key {usual} of the authority {fingerprint(certificate)} is not here. Run the command where the "
        "authority's key is kept, or bring the file from its safe for the time of the command."
    )


def accepted_authorities(fleet: FleetFolder) -> list[x509.Certificate]:
    """Return the certificates of all accepted authorities, the issuing one first."""
    issuing = keys.read_certificate(fleet.ca_certificate)
    return [issuing, *(each for each in keys.read_certificates(fleet.broker.authorities) if each != issuing)]


def update_revocation_lists(
    fleet: FleetFolder,
    *,
    add: Iterable[x509.Certificate] = (),
    remove: Collection[int] = (),
    now: datetime,
) -> None:
    """Write the broker's revocation lists with the certificates in `add`, and without the serial numbers in `remove`.

    Only lists that change are signed anew.  A certificate of an authority that is no longer accepted is left out.

    Raises: Permanent if the key of an authority whose list changes is not here.
    """
    lists = {each.issuer: each for each in keys.read_revocation_lists(fleet.broker.revocation_list)}
    added = list(add)

    def rewritten(authority: x509.Certificate) -> x509.CertificateRevocationList:
        before = lists.get(authority.subject)
        known = {} if before is None else {each.serial_number: each.revocation_date_utc for each in before}
        wanted = {serial: since for serial, since in known.items() if serial not in remove}
        for certificate in added:
            if certificate.issuer == authority.subject:
                wanted.setdefault(certificate.serial_number, now)
        if before is not None and wanted == known:
            return before
        signer = authority_of(fleet, authority)
        return create_revocation_list(authority, signer.key, wanted, now=now, number=_number_after(before))

    keys.write_revocation_lists(fleet.broker.revocation_list, [rewritten(each) for each in accepted_authorities(fleet)])


def _number_after(before: x509.CertificateRevocationList | None) -> int:
    if before is None:
        return 1
    return before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
