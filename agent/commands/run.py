"""`headunit-agent run`: runs the agent until SIGTERM.

The packet rings start to listen before the rest of the agent is imported, so they keep the frames that arrive during
the imports.  For this reason, the top of this file imports little more than the settings and the rings.
"""

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.commands.config_option import add_config
from agent.errors import Permanent
from agent.runtime.listen import listen
from agent.settings import settings
from agent.settings.settings import Loaded
from agent.system import folder_owner
from agent.system.descriptors import Descriptors, inherited
from agent.system.memory import return_freed_memory
from agent.system.sd_notify import Notifier
from agent.system.secrecy import forbid_dumps

if TYPE_CHECKING:
    from agent.runtime.limits import Limits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Run the agent and return the exit status.  Raises: AgentError if the agent cannot start or continue."""
    return start(lambda: settings.load(options.config), prepare=_refuse_root)


def start(
    read: Callable[[], Loaded],
    *,
    prepare: Callable[[Loaded], None] = lambda loaded: None,
    until_delivered: bool = False,
    limits: "Limits | None" = None,
) -> int:
    """Run the agent with the configuration that `read` returns, and return its exit status.

    `read` is called again on SIGHUP.  `prepare` is called once, before anything is written.  With
    `until_delivered`, the agent ends when everything is delivered.  `limits` replaces the default limits of
    `agent.runtime.limits`, which no configuration can set.
    """
    # The device key is read later, so no moment is left in which a crash could write it to the disk.
    started_s = time.monotonic()
    loaded = read()
    prepare(loaded)
    forbid_dumps()
    return_freed_memory()
    notifier = Notifier()
    descriptors = Descriptors(notifier, inherited())
    listen(loaded, descriptors)

    # From here on the rings keep the frames, so the slow imports of the rest of the agent do no harm.
    import asyncio

    from agent.runtime import supervisor

    process = supervisor.Process(notifier, descriptors, started_s, limits)
    return asyncio.run(supervisor.run(loaded, read, process, until_delivered=until_delivered))


def _refuse_root(loaded: Loaded) -> None:
    """Refuse to run as root on the state of another user.  Raises: Permanent that names the command to use."""
    folder = loaded.path(loaded.settings.state.folder)
    owner = folder_owner.owner(folder)
    if owner is not None:
        user = folder_owner.user_name(owner[0])
        raise Permanent(
            f"{folder} belongs to the user {user}, whose agent could not read the files that root would leave there. "
            f"Start the service: systemctl start headunit-agent. Or run the agent as its user: runuser -u {user} -- "
            f"headunit-agent run --config {loaded.file}"
        )
