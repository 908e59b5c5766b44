"""`fleet keys reinstate`, `reissue` and `reenrol`: the certificates of one vehicle."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.system.durable import write_file
from fleet.admin.enrol import enrol_again
from fleet.admin.enrol import reissue as issue_again
from fleet.admin.revocation import reinstate as take_back
from fleet.commands.arguments import EXAMPLE_VEHICLE, add_days_argument
from fleet.commands.enrol import DAYS
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

INSTALL_LIST: Final = "Install {file} on the broker, and restart the broker."


class Reinstate:
    """Takes back the revocation of a vehicle."""

    SUMMARY: Final = "take back the revocation of a vehicle"
    EXAMPLE: Final = f"fleet keys reinstate {EXAMPLE_VEHICLE}"
    DESCRIPTION: Final = """\
Let a revoked vehicle connect, send batches and get pushes again. What it collected meanwhile and still has in its spool
arrives as well."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the vehicle."""
        parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Reinstate the vehicle, and print what to install."""
        fleet = FleetFolder(args.fleet)
        record = take_back(fleet, args.vehicle, datetime.now(UTC))
        text = f"Vehicle {record.vehicle} is reinstated. {INSTALL_LIST.format(file=fleet.broker.revocation_list)}"
        report(args, {"vehicle": record.vehicle, "revoked": False}, text)
        return 0


class Reissue:
    """Issues a new certificate for the key that a vehicle has."""

    SUMMARY: Final = "issue a new certificate for a vehicle whose certificate has expired"
    EXAMPLE: Final = f"fleet keys reissue {EXAMPLE_VEHICLE} --out device.crt.pem"
    DESCRIPTION: Final = """\
Issue a new certificate for the key that the vehicle has. Vehicles that are online renew their certificates by
themselves. This command is for a vehicle that was off until its certificate had expired: bring the file to the vehicle
as identity/device.crt.pem, for example in the workshop. The file is public, so any way of transport will do."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the vehicle, the file and the validity."""
        parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file of the new certificate")
        add_days_argument(parser, default=DAYS)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Issue the certificate, and print until when it is valid."""
        record = issue_again(FleetFolder(args.fleet), args.vehicle, days=args.days, now=datetime.now(UTC))
        write_file(args.out, record.certificate_pem.encode(), mode=0o644)
        until = record.certificates[0].not_valid_after_utc
        report(
            args,
            {"vehicle": record.vehicle, "out": str(args.out), "expires": until.isoformat()},
            f"The new certificate of vehicle {record.vehicle} is valid until {until:%Y-%m-%d}. Bring {args.out} to the "
            "vehicle as identity/device.crt.pem, and restart the agent.",
        )
        return 0


class Reenrol:
    """Gives the identity of a vehicle to its new head unit."""

    SUMMARY: Final = "enrol a vehicle again after its head unit was replaced"
    EXAMPLE: Final = f"fleet keys reenrol {EXAMPLE_VEHICLE} --out vehicles/one-again"
    DESCRIPTION: Final = """\
Write a new identity folder for a vehicle that keeps its pseudonym, brand, model, market and model year. From then on
nothing accepts the old head unit: its certificates are on the broker's revocation list, and receivers refuse batches
that its key signed, including those that are still in its spool."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the vehicle, the folder, the signing request and the validity."""
        parser.add_argument("vehicle", metavar="VEHICLE", help="pseudonym of the vehicle")
        parser.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="the folder; it must be new or empty"
        )
        parser.add_argument(
            "--csr", type=Path, metavar="FILE", help="signing request of a device that keeps its own key"
        )
        add_days_argument(parser, default=DAYS)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Write the folder, and print what to install."""
        fleet, now = FleetFolder(args.fleet), datetime.now(UTC)
        record = enrol_again(fleet, args.vehicle, args.out, days=args.days, now=now, csr=args.csr)
        report(
            args,
            {"vehicle": record.vehicle, "out": str(args.out)},
            f"Copy {args.out} to the new head unit of vehicle {record.vehicle}. "
            f"{INSTALL_LIST.format(file=fleet.broker.revocation_list)}",
        )
        return 0
