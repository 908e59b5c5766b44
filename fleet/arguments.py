"""What the words of a command line may be: types for argparse, whose refusals say what to write instead.  Pure."""

import argparse
import ipaddress
import re
from collections.abc import Callable

from agent.errors import Permanent
from fleet.receiving.share import Share, parse_share

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets or not."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r}: write HOST:PORT, with a port of 1 to 65535")
    return host.strip("[]"), int(port)


def host_name(text: str) -> str:
    """What a certificate may be issued to: a DNS name in ASCII, or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no host name: write it without port and in ASCII (IDNs as xn--...), or an IP address"
            ) from None
    return text


def share(text: str) -> Share:
    """Partitions, as `fleet.receiving.share` writes them."""
    try:
        return parse_share(text)
    except Permanent as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole(first: int, last: int) -> Callable[[str], int]:
    """A whole number from `first` to `last`, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,15}", text) or not first <= int(text) <= last:
            raise argparse.ArgumentTypeError(f"{text!r}: choose a whole number from {first:,} to {last:,}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """A number above 0 and below a million."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
