"""The option `--config`, which every command that reads the agent's configuration has."""

import argparse
from pathlib import Path
from typing import Final

DEFAULT_CONFIG: Final = Path("/etc/headunit-agent/agent.toml")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config` with the file that the service uses as default."""
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="F", help=f"configuration file ({DEFAULT_CONFIG})"
    )
