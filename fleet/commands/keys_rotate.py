"""`fleet keys rotate`: replace the sealing key."""

import argparse
from datetime import UTC, datetime
from typing import Final

from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "replace the sealing key"
EXAMPLE: Final = "fleet keys rotate sealing"
DESCRIPTION: Final = """\
sealing    Make a new sealing key and publish it to all vehicles. They switch when they connect next. Batches that were
           sealed before can still be opened, because the receiver keeps all sealing keys. Back up the folder keys/
           before you run the command, and again afterwards."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet keys rotate`."""
    parser.add_argument("what", choices=("sealing",), help="the key to replace")
    parser.add_argument(
        "--suite",
        choices=("MLKEM768_X25519", "X25519"),
        help="type of the new sealing key (default: that of the key in use)",
    )


def run(args: argparse.Namespace) -> int:
    """Replace the key, and print what vehicles will do."""
    from fleet.admin.rotate_sealing import rotate_sealing

    rotated = rotate_sealing(FleetFolder(args.fleet), suite=args.suite, now=datetime.now(UTC))
    begun = "An earlier rotation was interrupted, and is now complete. " if rotated.resumed else ""
    report(
        args,
        {
            "key_id": rotated.key_id,
            "before": rotated.before,
            "resumed": rotated.resumed,
            "targets": rotated.published.versions.targets,
        },
        f"{begun}Vehicles seal to key {rotated.key_id} from release {rotated.published.versions.targets} on. "
        "The earlier keys stay in keys/. Back up the folder keys/ now.",
    )
    return 0
