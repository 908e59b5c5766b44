"""`python -m lab.simulate`, which `fleet simulate` runs: the command line of the simulation."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS
from agent.system import log
from agent.system.arguments import add_json, positive, whole
from agent.system.command_line import ended
from fleet.commands.arguments import add_fleet_argument, address
from fleet.commands.output import complain, report
from fleet.state.folder import FleetFolder
from lab.simulate.figures import Plan
from lab.simulate.report import render
from lab.simulate.run import simulate

_DESCRIPTION = """\
Enrol N virtual vehicles and let them send for M minutes, with their own keys, their own TLS connections and real
sealing. Without --broker the command makes a fleet, a broker and receivers on loopback and removes them afterwards.
With --broker it uses the fleet in --fleet and its broker, and revokes the vehicles afterwards. The report says what
the run cost and what larger fleets would need; the command fails where the lake lacks a sample or holds one twice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulation and return its exit status."""
    return ended(lambda: _run(_parser().parse_args(argv)), complain)


def _run(args: argparse.Namespace) -> int:
    log.configure()
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        # Checked now, because the run may take an hour.
        if args.out.is_dir() or not os.access(args.out.parent, os.W_OK):
            raise Permanent(f"--out {args.out}: cannot be written; name a file in a folder of yours")
    given = None if args.broker is None else (FleetFolder(args.fleet), *args.broker)
    figures = simulate(Plan(args.vehicles, args.minutes, args.period, args.receivers), given)
    if args.out is not None:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
    report(args, figures, render(figures))
    return 0 if figures["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet simulate",
        description=_DESCRIPTION,
        epilog="example:\n  fleet simulate --vehicles 2000 --minutes 2 --out build/simulate.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_fleet_argument(parser)
    add_json(parser)
    parser.add_argument("--vehicles", type=whole(1, 1_000_000), required=True, metavar="N", help="how many vehicles")
    parser.add_argument("--minutes", type=positive, default=2.0, metavar="M", help="how long they send (%(default)g)")
    parser.add_argument(
        "--period",
        type=positive,
        default=30.0,
        metavar="S",
        help="seconds between the batches of a vehicle (%(default)g: two cores then carry 2,000 vehicles)",
    )
    parser.add_argument("--receivers", type=whole(1, PARTITIONS), default=1, metavar="R", help="1 to 16 (%(default)s)")
    parser.add_argument("--broker", type=address, metavar="HOST:PORT", help="the broker of the fleet in --fleet")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report to this file, too, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
