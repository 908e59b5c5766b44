"""The option `--config`, shared by all commands that read the configuration of the agent."""

import argparse
from pathlib import Path
from typing import Final

DEFAULT_CONFIG: Final = Path("/etc/headunit-agent/agent.toml")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option `--config`; its default is the file that the service uses."""
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="F",
        help=f"configuration file (default: {DEFAULT_CONFIG})",
    )
