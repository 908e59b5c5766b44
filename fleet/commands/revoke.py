"""`fleet revoke`: refuse a vehicle from now on."""

import argparse
from typing import Final

from fleet.commands.arguments import EXAMPLE_VEHICLE
from fleet.commands.output import report
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

SUMMARY: Final = "refuse a vehicle from now on"
EXAMPLE: Final = f"fleet revoke {EXAMPLE_VEHICLE}"
DESCRIPTION: Final = """\
Mark a vehicle as revoked: the receiver refuses its batches and quarantines them. What it sent before stays."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet revoke`."""
    parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")


def run(args: argparse.Namespace) -> int:
    """Revoke the vehicle and say so."""
    record = Registry(FleetFolder(args.fleet).require().vehicles).revoke(args.vehicle)
    report(
        args,
        {"vehicle": record.vehicle, "revoked": True},
        f"Vehicle {record.vehicle} is revoked: the receiver refuses its batches from now on.",
    )
    return 0
