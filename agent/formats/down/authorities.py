"""Parses `authorities.pem`: the certificate authorities by which vehicles recognise their broker.  Pure.

The document has certificates in PEM.  The first is the authority that issues certificates to vehicles: a vehicle whose
own certificate comes from another one asks for a new certificate.  While a release with this document is in force, the
vehicle trusts these authorities only, as soon as it has connected with them once.  Otherwise it trusts the authority
from its enrolment.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from agent.errors import Permanent

DOCUMENT_BYTES: Final = 16_384
"""The size limit of the document.  A certificate has some 700 bytes in PEM."""
MOST: Final = 8
"""The greatest number of authorities.  A rotation needs two."""

_FAULTS: Final = (
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
)
"""The errors of `cryptography` for a certificate that is malformed, or not signed with its own key."""


def parse_authorities(document: bytes, source: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates in `document`.

    Raises: Permanent naming `source` if there is none, if there are too many, or if one is not a self-signed authority.
    """
    try:
        found = x509.load_pem_x509_certificates(document)
    except ValueError as error:
        raise Permanent(f"{source}: this is not a list of certificates in PEM ({error}).") from error
    if not 1 <= len(found) <= MOST:
        raise Permanent(f"{source}: the document has {len(found)} authorities; it may have 1 to {MOST}.")
    for number, certificate in enumerate(found, 1):
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            certificate.verify_directly_issued_by(certificate)
        except _FAULTS as error:
            raise Permanent(f"{source}: certificate {number} is not a self-signed authority ({error}).") from error
        if not is_authority:
            raise Permanent(f"{source}: certificate {number} may not issue certificates, so it is not an authority.")
    return tuple(found)
