"""Builds the certificates of the fleet: of its authority, of vehicles and the broker, and of its receivers.

The authority issues the certificates of vehicles and of the broker.  All certificates use EC P-256.

Pure: times and serial numbers are arguments.

The curve is P-256 because TPMs, secure elements and every MQTT broker support it.  The common name of a vehicle's
certificate is the vehicle's pseudonym, which the broker takes as the user name for its access list.  The extended key
usage differs between servers and clients, so a client's certificate cannot be used to pose as a server.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(days=1)
"""A certificate becomes valid this long before its issue, because the clock of a new vehicle may be slow."""

# The library requires every usage to be named, including those that are not granted.
_SIGNING_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_AUTHORITY = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def create_authority(
    key: ec.EllipticCurvePrivateKey, *, name: str, now: datetime, days: int, serial: int
) -> x509.Certificate:
    """Return the self-signed certificate of the authority.  It cannot issue further authorities (path length 0)."""
    subject = _name(name)
    return (
        _builder(subject, subject, key.public_key(), now=now, days=days, serial=serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_AUTHORITY, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issue_client(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    common_name: str,
    now: datetime,
    days: int,
    serial: int,
) -> x509.Certificate:
    """Return the certificate of a vehicle, which is a TLS client.  `common_name` is its pseudonym."""
    return (
        _leaf(authority, public_key, common_name, now=now, days=days, serial=serial)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def create_client(
    key: ec.EllipticCurvePrivateKey, *, common_name: str, now: datetime, days: int, serial: int
) -> x509.Certificate:
    """Return a self-signed certificate of a TLS client.  A broker accepts it by naming this very certificate."""
    subject = _name(common_name)
    return (
        _builder(subject, subject, key.public_key(), now=now, days=days, serial=serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNING_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issue_server(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    names: Sequence[str],
    now: datetime,
    days: int,
    serial: int,
) -> x509.Certificate:
    """Return the certificate of a TLS server.

    `names` are the server's host names and IP addresses.  The first name is the certificate's common name.
    """
    return (
        _leaf(authority, public_key, names[0], now=now, days=days, serial=serial)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def create_revocation_list(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    revoked: Mapping[int, datetime],
    *,
    now: datetime,
    number: int,
) -> x509.CertificateRevocationList:
    """Return the authority's revocation list; `revoked` maps serial numbers to the time of their revocation.

    `number` must grow from list to list.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - CLOCK_SKEW)
        # A broker refuses every client once its list has expired, so a list lives as long as its authority.
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority_key, hashes.SHA256())


def pem_of(certificate: x509.Certificate) -> str:
    """Return the certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the first 16 hex digits of the certificate's SHA-256, as a short name for people."""
    return certificate.fingerprint(hashes.SHA256()).hex()[:16]


def _leaf(
    authority: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    common_name: str,
    *,
    now: datetime,
    days: int,
    serial: int,
) -> x509.CertificateBuilder:
    signer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(_name(common_name), authority.subject, public_key, now=now, days=days, serial=serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNING_ONLY, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    days: int,
    serial: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
