"""`fleet keys`: list, renew and replace the keys and certificates of the fleet."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from agent.system.arguments import add_command
from fleet.commands import keys_list, keys_renew, keys_root, keys_rotate, keys_sign, keys_vehicle
from fleet.commands.arguments import add_fleet_argument

SUMMARY: Final = "list, renew and replace keys and certificates"
EXAMPLE: Final = "fleet keys list"
DESCRIPTION: Final = """\
List every key and certificate of the fleet, and renew or replace them while vehicles drive. docs/keys.md is the
runbook: it says which command to use for which event, and in which order."""
_VERBS: Final[Mapping[str, Any]] = {
    "list": keys_list,
    "renew": keys_renew,
    "rotate": keys_rotate,
    "root": keys_root,
    "sign": keys_sign,
    "reinstate": keys_vehicle.Reinstate,
    "reissue": keys_vehicle.Reissue,
    "reenrol": keys_vehicle.Reenrol,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each verb."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, verb in _VERBS.items():
        added = add_command(verbs, name, summary=verb.SUMMARY, description=verb.DESCRIPTION, example=verb.EXAMPLE)
        # These options may stand before or after the verb.  SUPPRESS keeps a value that was given before the verb.
        add_fleet_argument(added, default=argparse.SUPPRESS)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
        verb.add_arguments(added)
        added.set_defaults(run_verb=verb.run)


def run(args: argparse.Namespace) -> int:
    """Run the chosen verb, and return its exit status."""
    status: int = args.run_verb(args)
    return status
