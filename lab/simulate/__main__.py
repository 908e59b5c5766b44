"""`fleet simulate`: many virtual vehicles against real broker and receivers.

Exit status: 0 when the lake holds every sample once; 1 otherwise; 2 wrong use; 130 interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS
from agent.system.command_line import ended, printable
from agent.system.log import configure
from fleet import arguments
from fleet.state.folder import FleetFolder
from lab.simulate.figures import Plan
from lab.simulate.report import render
from lab.simulate.run import simulate


def main(argv: Sequence[str] | None = None) -> int:
    """Run one simulation and return the exit status."""
    return ended(lambda: _simulate(argv), _complain)


def _complain(problem: object) -> None:
    # A problem may have several lines: the end of a receiver's log is a list.
    print("\n".join(printable(line) for line in f"fleet: {problem}".splitlines()), file=sys.stderr)


def _simulate(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    configure("info")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        # A file that cannot be written must be found now, not after minutes of work.
        if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
            raise Permanent(f"--out {options.out}: cannot be written; name a file in a folder of yours")
    given = None if options.broker is None else (FleetFolder(options.fleet), *options.broker)
    figures = simulate(Plan(options.vehicles, options.minutes, options.period, options.receivers), given)
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures) if options.json else render(figures))
    return 0 if figures["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet simulate",
        description="Enrol N virtual vehicles and let them send for M minutes: own keys, own TLS connections, real\n"
        "sealing. Without --broker against a fleet, a broker and receivers made for it on loopback, all removed\n"
        "afterwards; with --broker against those of --fleet, where the vehicles are revoked afterwards. Says what it\n"
        "took and what larger fleets would need; fails where the lake lacks a sample or holds one twice.",
        epilog="example:\n  fleet simulate --vehicles 2000 --minutes 2 --out build/simulate.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fleet", type=Path, default=Path("fleet-data"), metavar="DIR", help="with --broker: its fleet"
    )
    parser.add_argument("--vehicles", type=arguments.whole(1, 1_000_000), required=True, metavar="N")
    parser.add_argument("--minutes", type=arguments.positive, default=2.0, metavar="M", help="(%(default)g)")
    parser.add_argument(
        "--period",
        type=arguments.positive,
        default=30.0,
        metavar="S",
        help="seconds between the batches of a vehicle (%(default)g: with it two cores carry 2,000 vehicles)",
    )
    parser.add_argument(
        "--receivers", type=arguments.whole(1, PARTITIONS), default=1, metavar="R", help="1 to 16 (%(default)s)"
    )
    parser.add_argument("--broker", type=arguments.address, metavar="HOST:PORT", help="of the fleet in --fleet")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON as well")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
