"""`fleet compact`: join small files of the lake and delete old samples."""

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Final

from agent.errors import Permanent
from agent.system.arguments import whole
from fleet.commands.arguments import MAX_DAYS, add_lake_arguments, is_enrolled, lake_of
from fleet.commands.output import table

SUMMARY: Final = "join small files of the lake and delete old samples"
EXAMPLE: Final = "fleet compact --keep-days 90 --dry-run"
DESCRIPTION: Final = """\
Join small files, delete samples and events that are older than --keep-days, and delete files that no version has
needed for --unneeded-hours. The command may run at any time, even while receivers run. The table of batches and the
loss events stay complete, because they explain every sequence number and hold no measured value. --keep-days does not
delete days before 2020, because they come from vehicles whose clock was not set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet compact`."""
    add_lake_arguments(parser)
    parser.add_argument(
        "--target-mb",
        type=whole(1, 1_000_000),
        default=128,
        metavar="MB",
        help="join files up to this size (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-days",
        type=whole(1, MAX_DAYS),
        metavar="N",
        help="delete samples and events that are older than N days (UTC)",
    )
    parser.add_argument("--campaign", metavar="NAME", help="delete only samples of this campaign (with --keep-days)")
    parser.add_argument("--vehicle", metavar="VEHICLE", help="delete only data of this vehicle (with --keep-days)")
    parser.add_argument(
        "--unneeded-hours",
        type=whole(1, MAX_DAYS * 24),
        default=168,
        metavar="H",
        help="keep replaced files for H hours, for queries that still read them (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only show what would be done")


def run(args: argparse.Namespace) -> int:
    """Compact the lake and print a line for each table."""
    from fleet.lake.compact import Work, compact
    from fleet.lake.retention import retention_of

    if args.keep_days is None and (args.campaign or args.vehicle):
        raise Permanent("--campaign and --vehicle only restrict what --keep-days deletes. Give --keep-days as well.")
    if args.vehicle is not None and not is_enrolled(args.fleet, args.vehicle):
        raise Permanent(
            f"Nothing was deleted, because no vehicle {args.vehicle} is enrolled in {args.fleet}. Check --vehicle."
        )
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
