"""`fleet init`: create a fleet."""

import argparse
from datetime import UTC, datetime
from typing import Final

from fleet.commands.arguments import host_name
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "create a fleet"
EXAMPLE: Final = "fleet init --broker-name mqtt.example.com"
DESCRIPTION: Final = """\
Create a fleet: all of its keys, the certificates of broker and receiver, and the repository of pushes.

Afterwards take these keys OFFLINE (for example to two encrypted sticks in two safes) and delete them from this folder:
  keys/root1.pem keys/root2.pem keys/root3.pem   Two of them together can replace every other push key.
                                                 They are needed only to change keys; keep them apart from one another.
  keys/ca.key.pem                                This key can enrol vehicles and pose as the broker.
                                                 `fleet enrol` needs it: keep it where you enrol, and nowhere else.
Keep a BACKUP of keys/hpke.json: without it the telemetry that waits in vehicles cannot be opened. A thief who has it
can read all telemetry. The other keys work online: `fleet publish` uses targets, snapshot and timestamp, and
`fleet receive` uses acks and hpke.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet init`."""
    parser.add_argument(
        "--suite",
        choices=("MLKEM768_X25519", "X25519"),
        default="MLKEM768_X25519",
        help="HPKE key of the fleet: hybrid post-quantum, 1,136 bytes a batch (default), or classical, 48 bytes",
    )
    parser.add_argument(
        "--broker-name",
        type=host_name,
        metavar="NAME",
        action="append",
        default=[],
        help="host name or address of the broker, in addition to localhost and 127.0.0.1; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Create the fleet and print where it is."""
    from fleet.admin.create import create_fleet

    folder = FleetFolder(args.fleet)
    create_fleet(folder, suite=args.suite, broker_names=args.broker_name, now=datetime.now(UTC))
    names = ["localhost", "127.0.0.1", *args.broker_name]
    report(
        args,
        {"fleet": str(args.fleet), "suite": args.suite, "broker_names": names},
        f"The fleet is created in {args.fleet}. Now read in `fleet init --help` which keys to take offline.",
    )
    return 0
