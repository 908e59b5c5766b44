"""`fleet keys list`: show every key and certificate, who holds it, when it expires, and what to do."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from fleet.admin.key_list import KeyList, Vehicles, list_keys
from fleet.commands.output import complain, table
from fleet.state.folder import FleetFolder

SUMMARY: Final = "show every key and certificate, its holder and its expiry"
EXAMPLE: Final = "fleet keys list --json"
DESCRIPTION: Final = """\
Show every key and certificate of the fleet: who holds it, when it expires, and what to do about it now. An id is the
beginning of the key id or of the certificate's SHA-256. The command reads no private key except the sealing keys."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the command has only those that all verbs have."""


def run(args: argparse.Namespace) -> int:
    """Print the list, and return 0 even if a line asks for action."""
    found = list_keys(FleetFolder(args.fleet), datetime.now(UTC))
    if args.json:
        print(json.dumps(asdict(found), default=str))
    else:
        print(_text(found))
    for problem in found.vehicles.unreadable:
        complain(problem)
    return 0


def _text(found: KeyList) -> str:
    rows = [(line.name, line.purpose, line.holder, line.id, _day(line.expires), line.action) for line in found.lines]
    return f"{table(('key', 'purpose', 'held by', 'id', 'expires', 'action'), rows)}\n{_vehicles(found.vehicles)}"


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
