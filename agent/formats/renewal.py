"""The messages by which a vehicle renews its certificate.  Pure.

    hu/v1/sync/<vehicle>   vehicle -> fleet   JSON {format, vehicle, csr, signature}
    hu/v1/push/<vehicle>   fleet -> vehicle   the new certificate in PEM

`csr` is a PKCS#10 request in PEM, signed with the new key, which proves that the vehicle has the new key.  `signature`
(ECDSA P-256, base64) is by the device key in use, and covers the vehicle and the request.  Without it, a hostile broker
could have its own key certified in the name of a vehicle.  The answer needs no signature of its own: the certificate
is signed by the authority that the vehicle trusts, and names the vehicle and its new key.

Both topics also carry other messages.  A request begins with `{` and a request for pushes never does; a certificate
begins with `-----BEGIN` and a bundle never does.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import Untrusted

FORMAT: Final = 1
REQUEST_BYTES: Final = 4_096
"""The size limit of a request.  A request has some 800 bytes."""
CERTIFICATE_BYTES: Final = 8_192
"""The size limit of an answer.  A certificate has some 900 bytes in PEM."""
_DOMAIN: Final = b"hu/v1/renew\0"
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())


class RenewalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Holds a request whose signatures are not verified yet; see the module text."""

    format: int
    vehicle: str
    csr: str
    signature: bytes


def is_request(payload: bytes) -> bool:
    """Return whether a message on a sync topic is a request for a certificate, and not a request for pushes."""
    return payload.startswith(b"{")


def is_certificate(payload: bytes) -> bool:
    """Return whether a message on a push topic is a certificate, and not a bundle."""
    return payload.startswith(b"-----BEGIN")


def build_request(vehicle: str, new_key: ec.EllipticCurvePrivateKey, device_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the payload that asks for a certificate of `new_key`.  `device_key` is the key in use."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, vehicle)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(new_key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    signature = device_key.sign(_signed(vehicle, pem), _SIGNATURE)
    return msgspec.json.encode(RenewalRequest(FORMAT, vehicle, pem, signature))


def parse_request(payload: bytes) -> RenewalRequest:
    """Return the request in a payload.  Raises: Untrusted if the payload is malformed or too large."""
    if len(payload) > REQUEST_BYTES:
        raise Untrusted(f"The request for a certificate has {len(payload)} bytes; at most {REQUEST_BYTES} are allowed.")
    try:
        request = msgspec.json.decode(payload, type=RenewalRequest)
    except msgspec.DecodeError as error:
        raise Untrusted(f"The request for a certificate is malformed ({error}).") from error
    if request.format != FORMAT:
        raise Untrusted(
            f"The request for a certificate has format {request.format}, and this side reads format {FORMAT}."
        )
    return request


def requested_key(request: RenewalRequest) -> ec.EllipticCurvePublicKey:
    """Return the new key of a request.

    Raises: Untrusted if the signing request is malformed, its key is not EC P-256, or it is not signed with its key.
    """
    try:
        csr = x509.load_pem_x509_csr(request.csr.encode())
        key, valid = csr.public_key(), csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Untrusted(f"The signing request of vehicle {request.vehicle} is malformed ({error}).") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Untrusted(f"The signing request of vehicle {request.vehicle} has a key that is not EC P-256.")
    if not valid:
        raise Untrusted(f"The signing request of vehicle {request.vehicle} is not signed with its own key.")
    return key


def signer_of(request: RenewalRequest, device_keys: Iterable[ec.EllipticCurvePublicKey]) -> ec.EllipticCurvePublicKey:
    """Return the first of `device_keys` that signed the request.  Raises: Untrusted if none of them did."""
    for key in device_keys:
        try:
            key.verify(request.signature, _signed(request.vehicle, request.csr), _SIGNATURE)
        except InvalidSignature:
            continue
        return key
    raise Untrusted(f"No device key of vehicle {request.vehicle} has signed its request for a certificate.")


def read_certificate(
    payload: bytes, vehicle: str, key: ec.EllipticCurvePublicKey, authorities: Iterable[x509.Certificate]
) -> x509.Certificate:
    """Return the certificate in an answer.

    Raises: Untrusted unless one of `authorities` issued it to `vehicle` for `key`.
    """
    if len(payload) > CERTIFICATE_BYTES:
        raise Untrusted(f"The certificate has {len(payload)} bytes; at most {CERTIFICATE_BYTES} are allowed.")
    try:
        certificate = x509.load_pem_x509_certificate(payload)
        names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        fits = certificate.public_key() == key
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Untrusted(f"The new certificate is malformed ({error}).") from error
    if names != [vehicle] or not fits:
        raise Untrusted(
            "The new certificate is for another vehicle or for another key than the one that was asked for."
        )
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return certificate
    raise Untrusted("No authority that this vehicle trusts has issued the new certificate.")


def _signed(vehicle: str, csr: str) -> bytes:
    # A vehicle's name has no zero byte, so no other division of the same bytes has the same signature.
    return _DOMAIN + vehicle.encode() + b"\0" + csr.encode()
