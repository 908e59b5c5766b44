"""Renews the certificates of vehicles that ask for it (agent/formats/renewal.py).

The receiver verifies each request.  Where the authority's key is in the fleet folder, it signs at once.  Otherwise it
keeps the request in `renewals/`, and `fleet keys sign` signs all of them where the key is.  The vehicle asks again
every hour and on each connection, and then gets the certificate from its record.

Invariants:

- A certificate is only issued to a key whose holder also has the device key that is in use.
- A request that comes twice, even years later from a hostile broker, never brings back an earlier key.
- The record is durable before the vehicle gets the certificate, so the fleet accepts all that the new key signs.
"""

import contextlib
from datetime import datetime, timedelta
from typing import Final

from agent.errors import Permanent, Untrusted
from agent.formats.renewal import RenewalRequest, parse_request, requested_key, signer_of
from agent.system.durable import make_folder, remove, write_file
from fleet.admin.enrol import Issuer
from fleet.state.authorities import issuing_authority
from fleet.state.certificates import CLOCK_SKEW
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_certificate
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord

EARLIEST: Final = 1 / 2
"""The fleet renews a certificate when less than this share of its validity is left, so that no vehicle floods it.

Vehicles ask when a third is left.  The difference allows for clocks that are wrong.
"""


class Renewals:
    """Answers requests for certificates, for one fleet."""

    def __init__(self, fleet: FleetFolder) -> None:
        self._fleet = fleet
        self._registry = Registry(fleet.vehicles)

    def answer(self, vehicle: str, payload: bytes, now: datetime) -> bytes | None:
        """Return the certificate for the request `payload` of `vehicle`, or None if it has yet to be signed.

        Raises: Untrusted if the request is refused; Permanent if a file of the fleet is damaged.
        """
        request = parse_request(payload)
        if request.vehicle != vehicle:
            raise Untrusted(f"A request in the name of vehicle {request.vehicle} came on the topic of {vehicle}.")
        record = self._checked(request, now)
        if record.device_keys()[0] == requested_key(request):
            return record.certificate_pem.encode()
        try:
            issuing_authority(self._fleet)
        except Permanent:
            self._keep(vehicle, payload)
            return None
        return self._issue(request, record, now).certificate_pem.encode()

    def sign_pending(self, now: datetime) -> tuple[list[str], list[str]]:
        """Sign all requests that wait; return the vehicles whose requests were signed, and why the others were refused.

        Requests that are refused are removed, because no later signature would be right.

        Raises: Permanent if the authority's key is not here.
        """
        issuing_authority(self._fleet)
        signed, refused = [], []
        for path in sorted(self._fleet.renewals.glob("*.json")):
            try:
                if self.answer(path.stem, path.read_bytes(), now) is not None:
                    signed.append(path.stem)
            except Untrusted as error:
                refused.append(str(error))
            with contextlib.suppress(OSError):
                remove(path)
        return signed, refused

    def _checked(self, request: RenewalRequest, now: datetime) -> VehicleRecord:
        """Return the record of the vehicle, if the fleet may give it a certificate.  Raises: Untrusted if not."""
        record = self._registry.read(request.vehicle)
        if record is None or record.revoked:
            found = "not enrolled" if record is None else "revoked"
            raise Untrusted(f"Vehicle {request.vehicle} is {found}, so it gets no certificate.")
        present, *earlier = record.device_keys()
        wanted = requested_key(request)
        signer = signer_of(request, (present, *earlier))
        if wanted == present:
            return record  # The answer was lost, so the vehicle asks again.
        if wanted in earlier or signer != present:
            raise Untrusted(f"The request of vehicle {request.vehicle} is older than its present certificate.")
        newest = record.certificates[0]
        left, whole = newest.not_valid_after_utc - now, newest.not_valid_after_utc - newest.not_valid_before_utc
        if left / whole > EARLIEST and newest.issuer == read_certificate(self._fleet.ca_certificate).subject:
            raise Untrusted(f"The certificate of vehicle {request.vehicle} is still good for {left.days} days.")
        return record

    def _issue(self, request: RenewalRequest, record: VehicleRecord, now: datetime) -> VehicleRecord:
        newest, key = record.certificates[0], requested_key(request)
        days = max(
            1, round((newest.not_valid_after_utc - newest.not_valid_before_utc - CLOCK_SKEW) / timedelta(days=1))
        )
        certificate = Issuer.of(self._fleet).certify(request.vehicle, key, days=days, now=now)

        def renewed(present: VehicleRecord) -> VehicleRecord:
            if present != record:
                raise Untrusted(
                    f"The record of vehicle {request.vehicle} has changed meanwhile. The vehicle asks again."
                )
            return record.with_certificate(certificate)

        return self._registry.change(request.vehicle, renewed)

    def _keep(self, vehicle: str, payload: bytes) -> None:
        # The request is verified, and each enrolled vehicle has one file, so no vehicle can fill the disk.
        make_folder(self._fleet.renewals)
        write_file(self._fleet.renewals / f"{vehicle}.json", payload)
