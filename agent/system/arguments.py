"""Provide types of arguments and other helpers for argparse, which the agent and `fleet` share.

A type is a function that turns the text of an argument into a value.  For a wrong text it raises
argparse.ArgumentTypeError with a remedy, and argparse ends the program with status 2.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a type for whole numbers from `low` to `high`, both included."""

    def parse(text: str) -> int:
        # int() alone would accept "1_000", " 7" and digits of other scripts.
        if not re.fullmatch("[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used; choose a whole number from {low:,} to {high:,}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """Return the number in `text`, which must be above 0 and below a million."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # The comparison is false for "nan" as well.
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used; choose a number above 0 and below 1,000,000")
    return value


def bus_and_file(text: str) -> tuple[str | None, Path]:
    """Return bus and file of `[BUS=]FILE`.  Without a bus, the file is for every bus and the first value is None."""
    bus, equals, file = text.partition("=")
    # No bus has a slash in its name, so an "=" after a slash belongs to the path, as in /data/a=b/x.dbc.
    if not equals or "/" in bus:
        return None, Path(text)
    if not bus or not file:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not [BUS=]FILE; write a file, or a bus and a file as in can0=x.dbc"
        )
    return bus, Path(file)


def file_and_encoding(text: str) -> tuple[Path | None, str]:
    """Return file and encoding of `[FILE=]ENCODING`.  Without a file, the encoding is for every file."""
    file, equals, encoding = text.rpartition("=")
    if not encoding or (equals and not file):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not [FILE=]ENCODING; write an encoding, or a file and an encoding as in x.dbc=gbk"
        )
    return (Path(file) if equals else None), encoding


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Add the option `--strict`, which makes an error of every note on a database."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse databases with mistakes, which are otherwise repaired or left out with a note",
    )


def add_log_timezone(parser: argparse.ArgumentParser) -> None:
    """Add `--log-timezone`."""
    parser.add_argument(
        "--log-timezone",
        default="",
        metavar="ZONE",
        help="the time zone of the dates in ASC, BLF and TRC logs and in candump -tA, which name none and are local "
        "time: Europe/Berlin, +02:00, UTC, ...; default: the zone of this machine.  Other logs have Unix time",
    )


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    *,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add the command `name` to a program and return its parser.

    `summary` appears in the program's list of commands.  `description` and `example` (a whole command line) appear in
    the help of the command, with their line breaks.  The parsed arguments have the parser as `command_parser`.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command_parser=parser)
    return parser


def add_version(parser: argparse.ArgumentParser, version: str) -> None:
    """Add the option `--version`, which prints the program's name and the `version` of the installed distribution."""
    parser.add_argument("--version", action="version", version=f"{parser.prog} {version}", help="print the version")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json`, which makes a command print its result as JSON."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
