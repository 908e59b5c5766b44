"""`fleet keys list`: show every key and certificate, who holds it, when it expires, and what to do."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from fleet.admin.key_list import KeyList, Vehicles, list_keys
from fleet.commands.arguments import add_lake_arguments, lake_of
from fleet.commands.output import complain, table
from fleet.state.folder import FleetFolder
from fleet.state.sealing_keys import retired_files

SUMMARY: Final = "show every key and certificate, its holder and its expiry"
EXAMPLE: Final = "fleet keys list --json"
DESCRIPTION: Final = """\
Show every key and certificate of the fleet: who holds it, when it expires, and what to do about it now. An id is the
beginning of the key id or of the certificate's SHA-256. The command reads no private key except the sealing keys.
After a rotation of the sealing key, the lake tells how many vehicles have switched, and what still needs an earlier
key."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the lake."""
    add_lake_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, and return 0 even if a line asks for action."""
    fleet = FleetFolder(args.fleet)
    # A fleet folder on the publisher has no lake of its own; the list is useful there too.
    has_lake = args.lake is not None or any(fleet.lake.glob("*"))
    found = list_keys(fleet, datetime.now(UTC), lake_of(args) if has_lake and retired_files(fleet.require()) else None)
    if args.json:
        print(json.dumps(asdict(found), default=str))
    else:
        print(_text(found))
    for problem in found.vehicles.unreadable:
        complain(problem)
    return 0


def _text(found: KeyList) -> str:
    rows = [(line.name, line.purpose, line.holder, line.id, _day(line.expires), line.action) for line in found.lines]
    text = f"{table(('key', 'purpose', 'held by', 'id', 'expires', 'action'), rows)}\n{_vehicles(found.vehicles)}"
    if found.sealing is not None:
        text += f" {found.sealing.switched:,} vehicles have switched to the sealing key in use."
    return text


def _vehicles(vehicles: Vehicles) -> str:
    text = f"Vehicles: {vehicles.enrolled:,} enrolled, {vehicles.revoked:,} revoked."
    if vehicles.soonest is not None:
        text += f" The next certificate expires on {_day(vehicles.soonest)}."
    if vehicles.expire_soon:
        text += (
            f" {vehicles.expire_soon:,} certificates expire within 90 days; vehicles that are online renew them by "
            "themselves."
        )
    if vehicles.expired:
        text += f" {vehicles.expired:,} certificates have expired; see `fleet keys reissue`."
    return text


def _day(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d}"
