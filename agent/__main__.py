"""The command line `headunit-agent`: runs one command.

Each command is one file in `agent.commands` with `run(options)`, and with `add_arguments(parser)` unless it is in
`PASSED_ON`.  Only the file of the requested command is imported, so no command loads the libraries of another.

Exit status: 0 if the command succeeded, 1 if its work failed, 2 after wrong use, 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from agent import __version__
from agent.system import log
from agent.system.arguments import add_command, add_version
from agent.system.command_line import complain, ended


class _Command(NamedTuple):
    """Holds the help of one command: a summary for the list of commands, and an example of a whole command line."""

    summary: str
    example: str


COMMANDS: Final = {
    "run": _Command("run the agent, as the service does", "headunit-agent run --config agent.toml"),
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
        "run the configured agent on a recorded log until everything is delivered, under campaigns named replay:NAME",
        "headunit-agent replay --config agent.toml --log drive.log --speed 10",
    ),
    "estimate": _Command(
        "say what campaigns would send in an hour, from a recorded log",
        "headunit-agent estimate --campaign driving.json --dbc can0=powertrain.dbc --log drive.log.zst",
    ),
    "demo": _Command("demonstrate vehicle and cloud in one drive, and check every sample", "headunit-agent demo"),
    "version": _Command("show the version", "headunit-agent version --json"),
}
PASSED_ON: Final = {"demo"}
"""Commands that pass all their arguments, even `--help`, to a program of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return ended(lambda: _run_command(words), lambda problem: complain("headunit-agent", problem))


def _run_command(words: list[str]) -> int:
    # The command is the first word that is not an option, because no option of the program itself takes a value.
    name = next((word for word in words if not word.startswith("-")), "")
    parser = _parser(name)
    # argparse cannot pass all further words to a subcommand, because REMAINDER as a first argument rejects options
    # (bpo-17050).  Therefore `rest` receives the words that the parser does not know.
    options, rest = parser.parse_known_args(words)
    if rest and options.command not in PASSED_ON:
        options.command_parser.error(f"the command does not know {' '.join(rest)}; --help shows all its options")
    options.passed_on = rest
    # The settings have not been read yet.  The agent configures the log again after it has read them.
    log.configure()
    return int(import_module(f"agent.commands.{options.command}").run(options))


def _parser(asked: str) -> argparse.ArgumentParser:
    """Return the parser of the program; it knows all commands, but only the arguments of the command `asked`."""
    parser = argparse.ArgumentParser(
        prog="headunit-agent",
        description="Send CAN data to the fleet, and apply the signed toggles and campaigns of the fleet.",
        epilog="'headunit-agent COMMAND --help' shows each command with an example.",
    )
    add_version(parser, __version__)
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
