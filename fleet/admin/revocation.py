"""Revoke a vehicle completely, and reinstate it.

The registry comes first: receivers refuse the vehicle's batches and leave its requests for pushes unanswered from the
next message on.  The broker's revocation list follows, which needs the authority's key.  If the key is not here,
receivers refuse the vehicle all the same, and the command must be run again where the key is kept.
"""

from datetime import datetime

from agent.errors import Permanent
from fleet.state.authorities import update_revocation_lists
from fleet.state.folder import FleetFolder
from fleet.state.key_lock import key_lock
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord


def revoke(fleet: FleetFolder, vehicle: str, now: datetime) -> VehicleRecord:
    """Revoke `vehicle`, and add all its certificates to the broker's revocation list.

    Raises: Permanent if the vehicle is not enrolled, or if the list could not be written (the vehicle is revoked then).
    """
    record = Registry(fleet.require().vehicles).revoke(vehicle)
    try:
        with key_lock(fleet):
            update_revocation_lists(fleet, add=record.certificates, now=now)
    except Permanent as error:
        raise Permanent(
            f"Receivers refuse vehicle {vehicle} from now on, but the broker still lets it connect, because the "
            f"revocation list could not be signed. {error} Then run `fleet revoke {vehicle}` again."
        ) from error
    return record


def reinstate(fleet: FleetFolder, vehicle: str, now: datetime) -> VehicleRecord:
    """Take back the revocation of `vehicle`.  Certificates that were withdrawn for another reason stay on the list.

    Raises: Permanent if the vehicle is not enrolled, or if the list could not be written (the vehicle stays revoked).
    """
    registry = Registry(fleet.require().vehicles)
    record = registry.require(vehicle)
    # The list comes first, so that a reinstated vehicle can also connect.
    with key_lock(fleet):
        update_revocation_lists(fleet, remove=[each.serial_number for each in record.certificates], now=now)
    return registry.reinstate(vehicle)
