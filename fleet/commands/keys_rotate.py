"""`fleet keys rotate`: replace the sealing key or the certificate authority."""

import argparse
from datetime import UTC, datetime
from typing import Final

from agent.errors import Permanent
from agent.system.words import counted
from fleet.commands.output import report
from fleet.state.folder import FleetFolder

SUMMARY: Final = "replace the sealing key or the certificate authority"
EXAMPLE: Final = "fleet keys rotate sealing"
DESCRIPTION: Final = """\
sealing    Make a new sealing key and publish it to all vehicles. They switch when they connect next. Batches that were
           sealed before can still be opened, because the receiver keeps all sealing keys. Back up the folder keys/
           before you run the command, and again afterwards.
authority  Take the next of three steps towards a new certificate authority; run the command three times, with weeks in
           between. The first makes vehicles and broker accept both authorities. The second lets the new one issue
           certificates, and vehicles renew theirs by themselves. The third ends the old authority; it is refused while
           vehicles still need it. Install broker/*.pem on the broker after each step, and restart the broker."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet keys rotate`."""
    parser.add_argument("what", choices=("sealing", "authority"), help="the key to replace")
    parser.add_argument(
        "--suite",
        choices=("MLKEM768_X25519", "X25519"),
        help="type of the new sealing key (default: that of the key in use)",
    )
    parser.add_argument(
        "--leave-behind",
        action="store_true",
        help="finish the rotation of the authority although vehicles that were off cannot connect afterwards",
    )


def run(args: argparse.Namespace) -> int:
    """Replace the key, and print what vehicles will do."""
    if args.what == "authority":
        return _authority(args)
    if args.leave_behind:
        raise Permanent("--leave-behind belongs to `fleet keys rotate authority`.")
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


def _authority(args: argparse.Namespace) -> int:
    from fleet.admin.rotate_authority import rotate_authority

    if args.suite is not None:
        raise Permanent("--suite belongs to `fleet keys rotate sealing`.")
    fleet = FleetFolder(args.fleet)
    step = rotate_authority(fleet, now=datetime.now(UTC), leave_behind=args.leave_behind)
    report(
        args,
        {"step": step.name, "issuing": step.issuing, "targets": step.targets, "waiting": step.waiting},
        f"The new authority is {step.name}; authority {step.issuing} issues certificates. Certificates "
        f"of another one: {counted(step.waiting, 'vehicle')}. Install {fleet.broker.folder}/*.pem on the broker, and "
        "restart the broker.",
    )
    return 0
