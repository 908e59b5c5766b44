"""`headunit-agent run`: runs the agent until SIGTERM.

The buses come first: packet rings listen before the rest of the agent is imported, and the frames of that time wait in
them.  So this file imports no more at its top than the settings and the rings.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.commands.config_option import add_config
from agent.runtime.listen import listen
from agent.settings import settings
from agent.settings.settings import Loaded
from agent.system.descriptors import Descriptors, inherited
from agent.system.memory import return_freed_memory
from agent.system.sd_notify import Notifier

if TYPE_CHECKING:
    from agent.runtime.limits import Limits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Run the agent and return the exit status.  Raises: AgentError if it cannot start or go on."""
    return start(lambda: settings.load(options.config))


def start(read: Callable[[], Loaded], *, until_delivered: bool = False, limits: "Limits | None" = None) -> int:
    """Start the agent with the configuration that `read` returns, and return its exit status when it has ended.

    `read` is called again on SIGHUP.  `limits` replaces the limits that no configuration sets (`agent.runtime.limits`).
    """
    return_freed_memory()
    notifier = Notifier()
    loaded, descriptors = read(), Descriptors(notifier, inherited())
    listen(loaded.settings, descriptors)

    # From here on the rings hold what the buses bring, so the rest of the agent may take its time.
    import asyncio

    from agent.runtime import supervisor

    process = supervisor.Process(notifier, descriptors, limits)
    return asyncio.run(supervisor.run(loaded, read, process, until_delivered=until_delivered))
