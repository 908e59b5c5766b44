"""The command line `headunit-agent`: registers the commands and runs the one that was asked for.

Each command is one file in `agent.commands` with `add_arguments(parser)` and `run(options)`. Only the file of the
command that was asked for is imported, so that no command pays for the libraries of another.

Exit status: 0 success, 1 the work failed (one line on stderr says why), 2 wrong use, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from agent.system import log
from agent.system.arguments import add_command
from agent.system.command_line import complain, ended


class _Command(NamedTuple):
    """The help of one command: one line for the list of commands, and a whole command line as example."""

    summary: str
    example: str


COMMANDS: Final = {
    "run": _Command("run the agent (what the service does)", "headunit-agent run --config agent.toml"),
    "check": _Command(
        "validate a configuration and everything it names", "headunit-agent check --config agent.toml --json"
    ),
    "status": _Command(
        "show what the agent is doing and where every batch is; exit status 1 if no agent answers",
        "headunit-agent status --json",
    ),
    "decode": _Command(
        "decode a recorded log into a table of samples",
        "headunit-agent decode --dbc can0=powertrain.dbc --dbc can1=body.dbc --log drive.log.zst --out drive.parquet",
    ),
    "replay": _Command(
        "run the configured agent on a recorded log; ends when everything is delivered",
        "headunit-agent replay --config agent.toml --log drive.log --speed 10",
    ),
    "demo": _Command("play the whole product in one drive, checked sample by sample", "headunit-agent demo"),
    "version": _Command("show the version", "headunit-agent version --json"),
}
PASSED_ON: Final = {"demo"}
"""Commands that hand their arguments to a program of their own, which also answers `--help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return ended(lambda: _run_command(words), lambda problem: complain("headunit-agent", problem))


def _run_command(words: list[str]) -> int:
    # The command is the first word that is no option: the options of the program itself have no values.
    name = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(name)
    # argparse cannot hand "all further words, options as well" to a subcommand: REMAINDER as its first argument rejects
    # them (bpo-17050).  So what the parser does not know comes back in `rest`.
    options, rest = parser.parse_known_args(words)
    if rest and options.command not in PASSED_ON:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.passed_on = rest
    # The settings have not been read yet: the agent configures the log again once they have.
    log.configure()
    return int(import_module(f"agent.commands.{options.command}").run(options))


def _parser(asked: str) -> argparse.ArgumentParser:
    """Make the parser of the program, which knows the arguments of the command `asked` only."""
    parser = argparse.ArgumentParser(
        prog="headunit-agent",
        description="On-vehicle edge agent: CAN telemetry to the fleet, signed toggles back.",
        epilog="'headunit-agent COMMAND --help' shows each command with an example.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, example) in COMMANDS.items():
        if name in PASSED_ON:
            commands.add_parser(name, help=summary, add_help=False)
            continue
        description = f"{summary[0].upper()}{summary[1:]}."
        command = add_command(commands, name, summary=summary, description=description, example=example)
        if name == asked:
            import_module(f"agent.commands.{name}").add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
