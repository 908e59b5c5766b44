"""`headunit-agent version`: prints the version of the installed distribution, like the option `--version`."""

import argparse
import json

from agent import __version__
from agent.system.arguments import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the version and return 0."""
    print(json.dumps({"version": __version__}) if options.json else f"headunit-agent {__version__}")
    return 0
