"""Defines what the fleet knows about one vehicle, and which certificates of the vehicle it accepts.  Pure."""

from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from fleet.state.certificates import pem_of

EARLIER_CERTIFICATES: Final = 16
"""The number of earlier certificates that a record keeps: one a year over the service life of a car.

Each costs a verification of every batch that no newer key signed.
"""


class VehicleRecord(msgspec.Struct, frozen=True):
    """Holds the fleet's record of one vehicle.

    `certificate_pem` is the newest certificate that the fleet issued to the vehicle, in PEM.  `earlier_pems` are the
    certificates before, newest first: the vehicle may still connect with them until they expire, and its spool may hold
    batches that it signed with their keys.  `withdrawn_serials` are the serial numbers (decimal) of certificates that
    nothing accepts any more, for example because they were on a head unit that was replaced.

    `software` is the version of its software that the vehicle reported last, or "" if it has never reported one.
    """

    vehicle: str
    certificate_pem: str
    brand: str
    model: str
    market: str
    model_year: int
    partition: int
    revoked: bool
    software: str = ""
    earlier_pems: tuple[str, ...] = ()
    withdrawn_serials: tuple[str, ...] = ()

    @property
    def attributes(self) -> Attributes:
        """Return the attributes that decide which documents are for the vehicle."""
        return Attributes(self.vehicle, self.brand, self.model, self.market, self.model_year, self.software)

    def with_certificate(self, certificate: x509.Certificate) -> "VehicleRecord":
        """Return a copy with a newer certificate.  The present one becomes the newest of the earlier ones."""
        earlier = (self.certificate_pem, *self.earlier_pems)[:EARLIER_CERTIFICATES]
        return msgspec.structs.replace(self, certificate_pem=pem_of(certificate), earlier_pems=earlier)

    def with_only(self, certificate: x509.Certificate) -> "VehicleRecord":
        """Return a copy with this certificate, from which all others are withdrawn."""
        serials = tuple(str(each.serial_number) for each in self.certificates)
        return msgspec.structs.replace(
            self,
            certificate_pem=pem_of(certificate),
            earlier_pems=(),
            withdrawn_serials=(*self.withdrawn_serials, *serials),
        )

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Return the certificates that the vehicle may use, newest first.

        Raises: Permanent if a certificate in the record is damaged.
        """
        try:
            return tuple(
                x509.load_pem_x509_certificate(pem.encode()) for pem in (self.certificate_pem, *self.earlier_pems)
            )
        except ValueError as error:
            raise Permanent(
                f"The certificate in the record of vehicle {self.vehicle} is damaged ({error}). "
                "Restore the record from the fleet's backup."
            ) from error

    def device_keys(self) -> tuple[ec.EllipticCurvePublicKey, ...]:
        """Return the public keys that verify this vehicle's batches, newest first.

        Raises: Permanent if a certificate in the record is damaged.
        """
        keys = []
        for certificate in self.certificates:
            try:
                key = certificate.public_key()
            except (ValueError, UnsupportedAlgorithm) as error:
                raise Permanent(
                    f"The certificate in the record of vehicle {self.vehicle} is damaged ({error}). "
                    "Restore the record from the fleet's backup."
                ) from error
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise Permanent(
                    f"The certificate in the record of vehicle {self.vehicle} holds no EC key. "
                    "Restore the record from the fleet's backup."
                )
            keys.append(key)
        return tuple(keys)
