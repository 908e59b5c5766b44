"""`fleet compact`: keep the lake in shape."""

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Final

from agent.errors import Permanent
from agent.system.arguments import whole
from fleet.commands.arguments import MAX_DAYS, add_lake_arguments, is_enrolled, lake_of
from fleet.commands.output import table

SUMMARY: Final = "keep the lake in shape"
EXAMPLE: Final = "fleet compact --keep-days 90 --dry-run"
DESCRIPTION: Final = """\
Join small files, delete samples that are older than --keep-days, and delete files that no version has needed for
--unneeded-hours. The command may run beside receivers, as often as you like. The table of batches and the losses
stay whole: they hold no measured value, and they explain every sequence number. Days before 2020 come from vehicles
whose clock was not set; --keep-days leaves them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet compact`."""
    add_lake_arguments(parser)
    parser.add_argument(
        "--target-mb",
        type=whole(1, 1_000_000),
        default=128,
        metavar="MB",
        help="size up to which files are joined (%(default)s)",
    )
    parser.add_argument(
        "--keep-days", type=whole(1, MAX_DAYS), metavar="N", help="delete samples of earlier days (UTC)"
    )
    parser.add_argument("--campaign", metavar="NAME", help="delete only samples of this campaign (with --keep-days)")
    parser.add_argument("--vehicle", metavar="VEHICLE", help="delete only samples of this vehicle (with --keep-days)")
    parser.add_argument(
        "--unneeded-hours",
        type=whole(1, MAX_DAYS * 24),
        default=168,
        metavar="H",
        help="hours for which replaced files stay, for queries that still read them (%(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(args: argparse.Namespace) -> int:
    """Compact the lake and print a line for each table."""
    from fleet.lake.compact import Work, compact, retention_of

    if args.keep_days is None and (args.campaign or args.vehicle):
        raise Permanent("--campaign and --vehicle restrict what --keep-days deletes: give --keep-days as well")
    if args.vehicle is not None and not is_enrolled(args.fleet, args.vehicle):
        raise Permanent(f"no vehicle {args.vehicle} is enrolled in {args.fleet}: nothing would be deleted")
    retention = None
    if args.keep_days is not None:
        today = datetime.now(UTC).date()
        retention = retention_of(args.keep_days, today, campaign=args.campaign, vehicle=args.vehicle)
    work = Work(args.target_mb * 1_000_000, args.unneeded_hours, retention, args.dry_run)
    tables = compact(lake_of(args), work, lambda text: print(f"  {text} ...", file=sys.stderr))
    if args.json:
        print(json.dumps(tables))
    else:
        print(table(tuple(tables[0]), [tuple(each.values()) for each in tables]))
    return 0
