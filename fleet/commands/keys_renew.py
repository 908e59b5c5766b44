"""`fleet keys renew`: renew the certificate of the broker or of the receivers."""

import argparse
from datetime import UTC, datetime
from typing import Final

from fleet.admin.renew_services import SERVICE_DAYS, renew_broker, renew_receiver
from fleet.commands.arguments import add_broker_names_argument, add_days_argument
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "renew the certificate of the broker or of the receivers"
EXAMPLE: Final = "fleet keys renew broker"
DESCRIPTION: Final = """\
broker     Issue a new certificate for the broker's key and names. The command needs the authority's key.
receiver   The broker accepts only certificates of receivers that it knows, so run the command twice. The first run
           makes the new certificate, and lists it for the broker beside the old one. Install the list on the broker,
           restart the broker, and run the command again, which puts the new certificate into use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet keys renew`."""
    parser.add_argument("what", choices=("broker", "receiver"), help="the certificate to renew")
    add_days_argument(parser, default=SERVICE_DAYS)
    add_broker_names_argument(parser, help_text="a further host name or IP address of the broker")


def run(args: argparse.Namespace) -> int:
    """Renew the certificate, and print what to install."""
    fleet, now = FleetFolder(args.fleet), datetime.now(UTC)
    if args.what == "broker":
        renewed = renew_broker(fleet, names=args.broker_name, days=args.days, now=now)
        todo = f"Install {fleet.broker.certificate} on the broker, and restart the broker."
    else:
        renewed = renew_receiver(fleet, days=args.days, now=now)
        todo = (
            "Receivers use it when they connect next."
            if renewed.in_use
            else f"Install {fleet.broker.accepted_receivers} on the broker, restart the broker, and run this command "
            "again."
        )
    report(
        args,
        {"what": args.what, "expires": renewed.expires.isoformat(), "in_use": renewed.in_use},
        f"The new certificate is valid until {renewed.expires:%Y-%m-%d}. {todo}",
    )
    return 0
