"""Compile the databases of each bus to plans, and keep the plans in a cache in the state folder (`can_dbc.cache`).

    python -m agent.settings.plans CONFIG        compile the databases that CONFIG names, store the plans, and end

A missing plan is compiled in a child process, because reading a database, and importing cantools for
formats other than DBC, would leave memory allocated in the agent.
If the child process cannot store the plan, for example on a full disk, the agent compiles the plan itself.
"""

import subprocess
import sys
from pathlib import Path

import structlog

from agent.errors import AgentError, Permanent
from agent.settings import settings
from agent.settings.settings import Loaded
from agent.system.durable import write_file
from agent.system.secrecy import forbid_dumps
from can_dbc.cache import PlanCache
from can_dbc.compile import compile_plan
from can_dbc.database import load, needs_encoding
from can_dbc.errors import DatabaseError
from can_dbc.plan import BusPlan, Match

_log = structlog.get_logger()


def bus_plans(loaded: Loaded) -> dict[str, BusPlan]:
    """Return the plan of each bus, and block while missing plans are compiled.

    Raises: Permanent that names the file and the remedy.
    """
    cache = PlanCache(_folder(loaded), write_file, lambda: _compile_apart(loaded.file))
    plans = {name: bus_plan(loaded, name, cache) for name in loaded.settings.bus}
    if cache.problem is not None:
        _log.warning("plans_not_kept", reason=cache.problem)
    return plans


def bus_plan(loaded: Loaded, bus: str, cache: PlanCache | None = None, encoding: str | None = None) -> BusPlan:
    """Return the plan of one bus.

    The plan comes from `cache` if the cache has it.  Otherwise the databases are compiled.  `encoding` is for the
    databases whose encoding is named neither in the configuration nor in the file.

    Raises: Permanent, which names the file and the remedy.
    """
    table = loaded.settings.bus[bus]
    files, match_by = [loaded.path(database.file) for database in table.databases], Match(table.match)
    encodings = {
        file: named
        for file, database in zip(files, table.databases, strict=True)
        if (named := database.encoding or (encoding if needs_encoding(file) else None)) is not None
    }
    try:
        if cache is not None:
            return cache.plan(files, match_by, encodings)
        return compile_plan([load(file, encodings.get(file)) for file in files], match_by)
    except DatabaseError as error:
        raise Permanent(f"{loaded.file}: bus.{bus}.dbc: {error}") from error


def _folder(loaded: Loaded) -> Path:
    return loaded.path(loaded.settings.state.folder) / "plans"


def _compile_apart(config: Path) -> None:
    # The exit status does not matter: the caller compiles every plan that the child did not store, and reports errors.
    command, silent = [sys.executable, "-P", "-m", "agent.settings.plans", str(config)], subprocess.DEVNULL
    try:
        subprocess.run(command, check=False, stdin=silent, stdout=silent, stderr=silent)
    except OSError as error:
        _log.warning("plans_not_compiled_apart", reason=error.strerror)


def main(config: Path) -> int:
    """Compile and store the plans of all databases that `config` names, and return the exit status."""
    try:
        loaded = settings.load(config)
        cache = PlanCache(_folder(loaded), write_file)
        for bus in loaded.settings.bus:
            bus_plan(loaded, bus, cache)
    except AgentError:
        return 1
    return 0


if __name__ == "__main__":
    forbid_dumps()
    sys.exit(main(Path(sys.argv[1])))
