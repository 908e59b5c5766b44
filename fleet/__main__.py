"""`fleet`: the command line of the cloud side.

The exit status is 0 for success, 1 if the work failed, 2 for wrong use, and 130 if the command was interrupted.
`fleet.commands` has one file for each command.  A command imports modules that need the `fleet` extra (deltalake,
duckdb, pyarrow, PyYAML) only when it runs.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Final, NoReturn

from agent.errors import Permanent
from agent.system import log
from agent.system.arguments import add_command, add_json, add_version
from agent.system.command_line import ended
from fleet.commands import (
    compact,
    enrol,
    import_documents,
    init,
    keys,
    publish,
    query,
    receive,
    revoke,
    rollout,
    simulate,
    status,
)
from fleet.commands.arguments import INSTALL, add_fleet_argument
from fleet.commands.output import complain
from fleet.state.exposed_keys import exposed_keys
from fleet.state.folder import FleetFolder

_EXTRA: Final = {"deltalake", "duckdb", "pyarrow", "yaml"}
_COMMANDS: Final[Mapping[str, ModuleType]] = {
    "init": init,
    "enrol": enrol,
    "revoke": revoke,
    "keys": keys,
    "publish": publish,
    "rollout": rollout,
    "status": status,
    "receive": receive,
    "compact": compact,
    "query": query,
    "import": import_documents,
}


def program() -> NoReturn:
    """Run the command of the command line, and exit with its status.

    If argparse ends the command, for example after `--help`, the interpreter ends as usual.
    """
    status = main()
    if sys.stderr is not None:
        sys.stderr.flush()
    # Threads of Arrow may still read ahead from an object store.  They would hang or crash an interpreter that ends
    # (fleet.lake.data_set), so the process exits at once.  `main` has flushed the output.
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return ended(lambda: _run(argv), complain)


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    args.rest = rest
    if rest and args.run is not simulate.run:
        hint = getattr(args, "unknown_hint", "")
        args.command_parser.error(f"unknown arguments: {' '.join(rest)}{hint}")
    log.configure("debug" if getattr(args, "verbose", False) else "info")
    for problem in exposed_keys(FleetFolder(args.fleet)) if hasattr(args, "fleet") else ():
        complain(problem)
    command: Callable[[argparse.Namespace], int] = args.run
    try:
        return command(args)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise Permanent(f"The package {error.name} is not installed. {INSTALL}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet",
        description="Run the cloud side of headunit-agent: keys, vehicles, pushes and telemetry.",
        epilog="'fleet COMMAND --help' explains a command and shows an example.",
    )
    add_version(parser, version("headunit-agent"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        added = add_command(
            commands, name, summary=command.SUMMARY, description=command.DESCRIPTION, example=command.EXAMPLE
        )
        add_fleet_argument(added)
        add_json(added)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    # The simulation parses its own command line, including `--help`.
    commands.add_parser("simulate", add_help=False, help=simulate.SUMMARY).set_defaults(run=simulate.run)
    return parser


if __name__ == "__main__":
    program()
