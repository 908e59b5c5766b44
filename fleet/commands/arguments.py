"""Types and arguments that several commands of `fleet` share.

A type is a function that reads one word of the command line and returns its value.  The function raises
argparse.ArgumentTypeError for a wrong word, with a message that says what to write instead.
"""

import argparse
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from agent.system.arguments import whole
from fleet.receiving.share import Share, parse_share
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

if TYPE_CHECKING:
    from fleet.lake.location import Location

MAX_DAYS: Final = 100 * 365
"""The longest time in days that any command accepts.  Much longer times would overflow `datetime`."""

EXAMPLE_VEHICLE: Final = "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11"

INSTALL: Final = (
    "In a checkout, install the packages of the cloud side with: pip install --require-hashes -r requirements/fleet.txt"
)
"""The remedy for a missing package.  No package index has this distribution, so it is installed from a checkout."""

# The lengths are those of RFC 1035.  The RFC allows no underscores in host names, but they are accepted here, because
# private networks often use them.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, and return host and port.  An IPv6 address may stand in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write HOST:PORT with a port from 1 to 65535")
    return host.strip("[]"), int(port)


def host_name(text: str) -> str:
    """Check that a certificate can hold the host name `text`, and return it unchanged.

    Valid names are DNS names in ASCII, and IP addresses.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a host name; write a name in ASCII and without a port (an IDN as xn--...), "
                "or write an IP address"
            ) from None
    return text


def share(text: str) -> Share:
    """Read a share of the partitions, such as `0-3/16`."""
    try:
        return parse_share(text)
    except Permanent as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_fleet_argument(parser: argparse.ArgumentParser, *, default: object = Path("fleet-state")) -> None:
    """Add `--fleet`, the option that every command has."""
    parser.add_argument(
        "--fleet", type=Path, default=default, metavar="DIR", help="the fleet folder (default: fleet-state)"
    )


def add_days_argument(parser: argparse.ArgumentParser, *, default: int) -> None:
    """Add `--days`, the validity of the certificate that a command issues."""
    parser.add_argument(
        "--days",
        type=whole(1, MAX_DAYS),
        default=default,
        metavar="N",
        help="days for which the certificate is valid (default: %(default)s)",
    )


def add_broker_names_argument(parser: argparse.ArgumentParser, *, help_text: str) -> None:
    """Add `--broker-name`, the names in the broker's certificate."""
    parser.add_argument(
        "--broker-name",
        type=host_name,
        metavar="NAME",
        action="append",
        default=[],
        help=f"{help_text}; may be repeated",
    )


def add_lake_arguments(parser: argparse.ArgumentParser, *, default: object = None) -> None:
    """Add `--lake` and `--lake-options` to a command that opens the lake.  Read their values with `lake_of`."""
    parser.add_argument(
        "--lake",
        metavar="URL",
        default=default,
        help="folder or URL (s3://, abfss://, gs://, file://) of the lake (default: lake in the fleet folder)",
    )
    parser.add_argument(
        "--lake-options",
        type=Path,
        metavar="FILE",
        default=default,
        help="TOML file with storage options of the Delta library, in addition to environment variables (AWS_*, "
        "AZURE_*, GOOGLE_*)",
    )


def lake_of(args: argparse.Namespace) -> "Location":
    """Return the lake's location: the one on the command line, or else the folder `lake` in the fleet folder.

    Raises: Permanent if the fleet folder holds no fleet, or if the file of options is not valid.
    """
    # The import stands here, because `fleet --help` and `fleet init` must work without the extra that the lake needs.
    from fleet.lake.location import read_location

    own = str(FleetFolder(args.fleet).require().lake)
    return read_location(args.lake or own, args.lake_options)


def is_enrolled(fleet: Path, vehicle: str) -> bool:
    """Return whether `vehicle` was ever enrolled.

    Commands check this, so that a misspelt name does not look like a vehicle without data.
    """
    return Registry(FleetFolder(fleet).vehicles).find(vehicle) is not None
