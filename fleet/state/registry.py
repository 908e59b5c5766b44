"""The fleet's vehicles: one JSON file for each, read again when it changes.

Invariant: a vehicle that is not here, or is revoked here, gets nothing into the lake.  A running receiver sees
enrolments and revocations at once, because each look-up compares the time and the size of the file.
"""

import json
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Permanent
from agent.formats.topics import is_vehicle
from agent.system.durable import write_file


class VehicleRecord(msgspec.Struct, frozen=True):
    """The fleet's record of one vehicle.  `certificate_pem` is the certificate that it was enrolled with."""

    vehicle: str
    certificate_pem: str
    brand: str
    model: str
    market: str
    model_year: int
    partition: int
    revoked: bool

    def device_key(self) -> ec.EllipticCurvePublicKey:
        """Return the key that verifies this vehicle's batches.  Raises: Permanent where the record is damaged."""
        try:
            key = x509.load_pem_x509_certificate(self.certificate_pem.encode()).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Permanent(f"the certificate of vehicle {self.vehicle} is damaged: {error}; enrol it again") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Permanent(f"the certificate of vehicle {self.vehicle} holds no EC key; enrol it again")
        return key


class Registry:
    """The records in `folder`.  Each is parsed once for each version of its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsed: dict[str, tuple[tuple[int, int], VehicleRecord, ec.EllipticCurvePublicKey]] = {}

    def find(self, vehicle: str) -> tuple[VehicleRecord, ec.EllipticCurvePublicKey] | None:
        """Return record and device key of `vehicle`, or None where it is not enrolled.

        Raises: Permanent where the file is damaged or cannot be read.
        """
        # The name may come from the network, and must not become a path such as `../keys/x`.
        if not is_vehicle(vehicle):
            return None
        path = self._path(vehicle)
        try:
            status = path.stat()
            # The size as well, because two changes may fall into one tick of the file system's clock.
            version = (status.st_mtime_ns, status.st_size)
            known = self._parsed.get(vehicle)
            if known is None or known[0] != version:
                record = _parse(path)
                known = (version, record, record.device_key())
                self._parsed[vehicle] = known
        except FileNotFoundError:
            # The record was deleted while this process ran: the vehicle is not enrolled any more.
            self._parsed.pop(vehicle, None)
            return None
        except OSError as error:
            raise Permanent(f"cannot read {path}: {error.strerror}; mend its permissions or the disk") from error
        return known[1], known[2]

    def add(self, record: VehicleRecord) -> None:
        """Store `record` durably, replacing an earlier one of the same vehicle."""
        document = json.dumps(msgspec.to_builtins(record), indent=2) + "\n"
        write_file(self._path(record.vehicle), document.encode())

    def revoke(self, vehicle: str) -> VehicleRecord:
        """Mark `vehicle` as revoked, and return its record.  Raises: Permanent where it is not enrolled."""
        found = self.find(vehicle)
        if found is None:
            raise Permanent(f"vehicle {vehicle} is not enrolled in {self._folder}")
        revoked = msgspec.structs.replace(found[0], revoked=True)
        self.add(revoked)
        return revoked

    def _path(self, vehicle: str) -> Path:
        return self._folder / f"{vehicle}.json"


def _parse(path: Path) -> VehicleRecord:
    try:
        return msgspec.json.decode(path.read_bytes(), type=VehicleRecord)
    except msgspec.DecodeError as error:
        raise Permanent(f"{path}: {error}; restore the vehicle's record from the backup") from error
