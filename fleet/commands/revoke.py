"""`fleet revoke`: reject the batches of a vehicle from now on."""

import argparse
from typing import Final

from fleet.commands.arguments import EXAMPLE_VEHICLE
from fleet.commands.output import report
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

SUMMARY: Final = "refuse the batches of a vehicle from now on"
EXAMPLE: Final = f"fleet revoke {EXAMPLE_VEHICLE}"
DESCRIPTION: Final = """\
Mark a vehicle as revoked. From then on the receiver refuses and quarantines its batches. The lake keeps the batches
that it sent before."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet revoke`."""
    parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")


def run(args: argparse.Namespace) -> int:
    """Revoke the vehicle and print a confirmation."""
    record = Registry(FleetFolder(args.fleet).require().vehicles).revoke(args.vehicle)
    report(
        args,
        {"vehicle": record.vehicle, "revoked": True},
        f"Vehicle {record.vehicle} is revoked. The receiver refuses its batches from now on.",
    )
    return 0
