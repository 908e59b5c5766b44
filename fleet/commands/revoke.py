"""`fleet revoke`: lock a vehicle out of the receiver, of pushes and of the broker."""

import argparse
from datetime import UTC, datetime
from typing import Final

from fleet.admin.revocation import revoke
from fleet.commands.arguments import EXAMPLE_VEHICLE
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "lock a vehicle out of receiver, pushes and broker"
EXAMPLE: Final = f"fleet revoke {EXAMPLE_VEHICLE}"
DESCRIPTION: Final = """\
Mark a vehicle as revoked. From then on the receiver refuses and quarantines its batches, and sends it no pushes. The
lake keeps the batches that it sent before. The command also adds the vehicle's certificates to the broker's revocation
list, for which it needs the authority's key. `fleet keys reinstate` takes the revocation back."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet revoke`."""
    parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")


def run(args: argparse.Namespace) -> int:
    """Revoke the vehicle and print a confirmation."""
    record = revoke(FleetFolder(args.fleet), args.vehicle, datetime.now(UTC))
    report(
        args,
        {"vehicle": record.vehicle, "revoked": True},
        f"Vehicle {record.vehicle} is revoked. The receiver refuses its batches and requests from now on. "
        f"Install {FleetFolder(args.fleet).broker.revocation_list} on the broker and restart the broker, which ends "
        "its connection.",
    )
    return 0
