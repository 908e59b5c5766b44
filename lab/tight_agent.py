"""Runs the agent with limits that replace those of `agent.runtime.limits`.  Low limits are reached in a short test.

Example: python -m lab.tight_agent run --config agent.toml --limit pending_max_bytes=4000 --limit silence_s=2
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from agent.commands.config_option import add_config
from agent.commands.run import start
from agent.runtime.limits import Limits
from agent.settings import settings
from agent.system import log
from agent.system.command_line import complain, ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until SIGTERM, and return its exit status."""
    return ended(lambda: _run(arguments), lambda problem: complain("tight_agent", problem))


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="tight_agent", description="Run the agent with other limits.")
    parser.add_argument("command", choices=["run"])
    add_config(parser)
    parser.add_argument(
        "--limit", type=_limit, action="append", default=[], metavar="NAME=N", help="replace a limit; may be repeated"
    )
    options = parser.parse_args(arguments)
    log.configure()
    limits = Limits(**dict(options.limit))
    return start(lambda: settings.load(options.config), limits=limits)


def _limit(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    known = [field.name for field in fields(Limits)]
    if name not in known:
        raise argparse.ArgumentTypeError(f"{name!r} is not the name of a limit; choose one of {', '.join(known)}")
    return name, float(number) if name.endswith("_s") else int(number)


if __name__ == "__main__":
    sys.exit(main())
