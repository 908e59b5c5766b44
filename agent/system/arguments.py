"""Helpers for argparse that both programs share: types of values, and how a command is added to its program.

A type takes the words of the command line and returns the value.  Raises: argparse.ArgumentTypeError, whose message
says what to write instead; argparse ends the program with status 2 on it.
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
            raise argparse.ArgumentTypeError(f"{text!r}: choose a whole number from {low:,} to {high:,}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """Read a number above 0 and below a million."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # The comparison is false for "nan" as well.
    if not 0.0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1,000,000")
    return value


def bus_and_file(text: str) -> tuple[str | None, Path]:
    """Read `[BUS=]FILE`; without a bus the file is for every bus, and the first value is None."""
    bus, equals, file = text.partition("=")
    # No bus has a slash in its name, so an "=" behind a slash belongs to the path, as in /data/a=b/x.dbc.
    if not equals or "/" in bus:
        return None, Path(text)
    if not bus or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not [BUS=]FILE")
    return bus, Path(file)


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    *,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add the command `name` to a program and return its parser.

    `summary` stands in the program's list of commands, `description` and `example` (a whole command line) in the help
    of the command.  Line breaks stay as they are written.
    """
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, which every command that reports something has."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
