"""`headunit-agent replay`: runs the configured agent on a recorded log until everything is delivered.

Its samples reach the fleet's lake under the names `replay:NAME` in place of the campaigns' own names, because a
recorded drive must not look like one that the vehicle has just made.

With `--what-if`, it tries campaigns on the log instead (`agent/commands/what_if.py`).

Root becomes the user to whom the state folder belongs, because the service could not read files of root there.
"""

import argparse
from pathlib import Path

from agent.commands import what_if
from agent.commands.config_option import add_config
from agent.commands.run import start
from agent.settings import settings
from agent.settings.settings import Loaded
from agent.system import folder_owner
from agent.system.arguments import add_log_timezone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        "--log", type=Path, required=True, metavar="F", help="the recorded log, which replaces all configured sources"
    )
    what_if.add_arguments(parser)
    add_log_timezone(parser)
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="replay at N times real time (default 1); 0 is as fast as possible",
    )


def run(options: argparse.Namespace) -> int:
    """Replay the log, and return 0 if everything was delivered, else 1.  With `--what-if`, return 0.

    Raises: AgentError if the agent cannot start, or if a component fails for good.
    """
    if options.what_if:
        return what_if.run(options)
    return start(
        lambda: settings.with_replay(settings.load(options.config), options.log, options.speed, options.log_timezone),
        prepare=_become_owner,
        until_delivered=True,
    )


def _become_owner(loaded: Loaded) -> None:
    owner = folder_owner.owner(loaded.path(loaded.settings.state.folder))
    if owner is not None:
        folder_owner.become(*owner, loaded.path(loaded.settings.state.runtime_folder))


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    # The comparison is also false if the number is NaN.
    if not speed >= 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number that is 0 or greater")
    return speed
