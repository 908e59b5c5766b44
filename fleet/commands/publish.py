"""`fleet publish`: sign toggles and campaigns, and put them where vehicles fetch them."""

import argparse
from typing import Final

from fleet.commands.output import report
from fleet.publishing import publish
from fleet.state.folder import FleetFolder

SUMMARY: Final = "sign toggles and campaigns"
EXAMPLE: Final = "fleet publish --toggles toggles.json --broker localhost:8883"
DESCRIPTION: Final = """\
Check, sign and publish toggles and campaigns. Vehicles fetch them when they connect or when they are nudged.
Without a document the command signs the repository anew, so that vehicles know it to be current."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet publish`."""
    publish.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Publish the documents and print the versions that are now in force."""
    result = publish.run(args, FleetFolder(args.fleet).require())
    report(args, result, "\n".join(f"{name}: {_text(value)}" for name, value in result.items()))
    return 0


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
