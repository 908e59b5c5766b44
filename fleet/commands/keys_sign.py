"""`fleet keys sign`: sign the requests of vehicles for certificates, where the authority's key is."""

import argparse
from datetime import UTC, datetime
from typing import Final

from agent.system.words import counted
from fleet.admin.renewal import Renewals
from fleet.commands.output import complain, report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "sign the requests of vehicles that renew their certificates"
EXAMPLE: Final = "fleet keys sign"
DESCRIPTION: Final = """\
Vehicles ask for a new certificate when a third of the old one's validity is left. Where the authority's key is in the
fleet folder, the receiver signs at once, and this command has nothing to do. Otherwise the receiver verifies the
requests and keeps them. Bring the key for the time of this command: it signs all of them. Each vehicle gets its
certificate when it asks again, within an hour or when it connects next."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the command has only those that all verbs have."""


def run(args: argparse.Namespace) -> int:
    """Sign the requests, and print how many were signed."""
    signed, refused = Renewals(FleetFolder(args.fleet).require()).sign_pending(datetime.now(UTC))
    for reason in refused:
        complain(reason)
    report(
        args,
        {"signed": signed, "refused": refused},
        f"Signed: {counted(len(signed), 'certificate')}. Refused: {counted(len(refused), 'request')}.",
    )
    return 0
