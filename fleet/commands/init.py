"""`fleet init`: create a fleet."""

import argparse
from datetime import UTC, datetime
from typing import Final

from fleet.commands.arguments import add_broker_names_argument
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "create a fleet"
EXAMPLE: Final = "fleet init --broker-name mqtt.example.com"
DESCRIPTION: Final = """\
Create a fleet: all of its keys, the certificates of broker and receiver, and the repository of pushes.

Afterwards take these keys OFFLINE (for example to encrypted sticks in several safes) and delete them from this folder:
  keys/root1.pem keys/root2.pem keys/root3.pem   Any two of these keys can replace every other push key.
                                                 You need them only for `fleet keys root`. Keep the three apart.
  keys/ca.key.pem                                This key can enrol vehicles and pose as the broker.
                                                 `fleet enrol` and `fleet keys` need it. Keep it only on that machine.
Keep a BACKUP of keys/hpke.json. Without this key you cannot open telemetry that vehicles have already sealed. A thief
with this key can read all telemetry. The other keys stay online: `fleet publish` uses targets, snapshot and timestamp,
and `fleet receive` uses acks, hpke and timestamp. docs/keys.md says how each key is replaced.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet init`."""
    parser.add_argument(
        "--suite",
        choices=("MLKEM768_X25519", "X25519"),
        default="MLKEM768_X25519",
        help="type of the fleet's HPKE key: hybrid post-quantum (default), which adds 1,136 bytes to each batch, or "
        "classical X25519, which adds 48 bytes",
    )
    add_broker_names_argument(
        parser, help_text="host name or IP address of the broker, in addition to localhost and 127.0.0.1"
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
        f"The fleet was created in {args.fleet}. `fleet init --help` explains which keys you must now take offline.",
    )
    return 0
