"""`fleet enrol`: give a vehicle its identity."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.system.arguments import whole
from fleet.commands.arguments import add_days_argument
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "enrol a vehicle"
EXAMPLE: Final = "fleet enrol --out vehicles/one --brand Demo --model Hatch --market EU --model-year 2026"
DESCRIPTION: Final = """\
Give a vehicle a random pseudonym, a key and a certificate, and write all files that it needs into one folder.
The pseudonym says nothing about the car. If you must know which VIN it belongs to, keep that record elsewhere."""

# A certificate is valid for fifteen years, the service life of a car.  Vehicles renew it by themselves after ten years,
# and a vehicle that is off during the five years after that can still connect.
DAYS: Final = 15 * 365


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet enrol`."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the vehicle folder; it must be new or empty"
    )
    parser.add_argument(
        "--brand", default="unknown", metavar="TEXT", help="brand; a push can select vehicles by it (default: unknown)"
    )
    parser.add_argument(
        "--model", default="unknown", metavar="TEXT", help="model; a push can select vehicles by it (default: unknown)"
    )
    parser.add_argument(
        "--market",
        default="unknown",
        metavar="TEXT",
        help="market, for example EU; a push can select vehicles by it (default: unknown)",
    )
    parser.add_argument(
        "--model-year",
        type=whole(1900, 9999),
        default=datetime.now(UTC).year,
        metavar="YEAR",
        help="model year; a push can select vehicles by it (default: this year)",
    )
    add_days_argument(parser, default=DAYS)
    parser.add_argument(
        "--csr",
        type=Path,
        metavar="FILE",
        help="signing request (PEM, EC P-256) from a device that keeps its own key; no private key is written then",
    )


def run(args: argparse.Namespace) -> int:
    """Enrol the vehicle and print its pseudonym."""
    from fleet.admin.enrol import Model, enrol

    model = Model(args.brand, args.model, args.market, args.model_year)
    record = enrol(FleetFolder(args.fleet), args.out, model, days=args.days, now=datetime.now(UTC), csr=args.csr)
    report(
        args,
        {"vehicle": record.vehicle, "partition": record.partition, "out": str(args.out)},
        f"Vehicle {record.vehicle} (partition {record.partition}) is enrolled. Its folder is {args.out}.",
    )
    return 0
