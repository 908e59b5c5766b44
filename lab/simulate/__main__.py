"""The command line of the simulation.  `fleet simulate` runs this module as `python -m lab.simulate`."""

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
sealing. Without --broker, the command makes a fleet, a broker and receivers on loopback, and removes them afterwards.
With --broker, it uses the fleet in --fleet and that broker, and revokes the vehicles afterwards. The report shows the
costs of this run and the estimated needs of larger fleets. The command fails if a sample is missing in the lake or is
there twice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulation and return its exit status."""
    return ended(lambda: _run(_parser().parse_args(argv)), complain)


def _run(args: argparse.Namespace) -> int:
    log.configure()
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        # The path is checked before the run, because the run may take an hour.
        if args.out.is_dir() or not os.access(args.out.parent, os.W_OK):
            raise Permanent(
                f"--out {args.out}: This file cannot be written. Name a file in a folder that you may write."
            )
    if args.nudge and args.broker is not None:
        raise Permanent("--nudge publishes a document, so it cannot be used together with --broker. Leave one out.")
    given = None if args.broker is None else (FleetFolder(args.fleet), *args.broker)
    figures = simulate(Plan(args.vehicles, args.minutes, args.period, args.receivers, args.nudge), given)
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
    parser.add_argument("--vehicles", type=whole(1, 1_000_000), required=True, metavar="N", help="number of vehicles")
    parser.add_argument(
        "--minutes",
        type=positive,
        default=2.0,
        metavar="M",
        help="minutes for which the vehicles send (default: %(default)g)",
    )
    parser.add_argument(
        "--period",
        type=positive,
        default=30.0,
        metavar="S",
        help="seconds between two batches of a vehicle (default: %(default)g, enough for 2,000 vehicles on two cores)",
    )
    parser.add_argument(
        "--receivers",
        type=whole(1, PARTITIONS),
        default=1,
        metavar="R",
        help="number of receivers, 1 to 16 (default: %(default)s)",
    )
    parser.add_argument(
        "--broker",
        type=address,
        metavar="HOST:PORT",
        help="use this running broker of the fleet that --fleet names, at the port that the broker opens for vehicles",
    )
    parser.add_argument("--nudge", action="store_true", help="let all vehicles ask for a new release halfway through")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report to this file, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
