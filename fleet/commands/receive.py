"""`fleet receive`: store the telemetry of vehicles in the lake."""

import argparse
from dataclasses import asdict
from typing import Final

from agent.system.memory import return_freed_memory
from fleet.commands.arguments import add_lake_arguments, address, lake_of, share
from fleet.commands.output import report
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder

SUMMARY: Final = "store the telemetry of vehicles in the lake"
EXAMPLE: Final = "fleet receive --broker mqtt.example.com:8884 --partitions 0-3/16"
DESCRIPTION: Final = """\
Verify, open, deduplicate and store the batches of vehicles, acknowledge them, and answer vehicles that ask for pushes.
The receiver runs until SIGTERM or SIGINT. If the connection to the broker is lost, it reconnects as often as
necessary. You may kill the receiver at any moment: when it is started again, it continues without loss."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet receive`."""
    parser.add_argument(
        "--broker",
        type=address,
        default=("localhost", 8884),
        metavar="HOST:PORT",
        help="the broker, with its port for the fleet's programs (default: localhost:8884)",
    )
    parser.add_argument(
        "--partitions",
        type=share,
        default=Share(),
        metavar="A-B/16",
        help="partitions of vehicles to serve, if several receivers share the fleet (default: all)",
    )
    add_lake_arguments(parser)
    parser.add_argument(
        "--accept-lake",
        action="store_true",
        help="use this lake although the inbox knows another one, for example because that one was lost",
    )
    parser.add_argument("--verbose", action="store_true", help="log every commit")


def run(args: argparse.Namespace) -> int:
    """Receive batches until SIGTERM or SIGINT, and then print how many were stored, refused and so on."""
    # The Delta library writes with many threads, and glibc would keep the freed memory of each.
    return_freed_memory()
    from fleet.receiving.service import receive

    host, port = args.broker
    totals = receive(FleetFolder(args.fleet), host, port, args.partitions, lake_of(args), accept_lake=args.accept_lake)
    counts = asdict(totals)
    report(args, counts, ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0
