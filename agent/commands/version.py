"""`headunit-agent version`: prints the version of the installed distribution."""

import argparse
import json
from importlib.metadata import version

from agent.system.arguments import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the version and return 0."""
    number = version("headunit-agent")
    print(json.dumps({"version": number}) if options.json else f"headunit-agent {number}")
    return 0
