"""The command line `headunit-agent`: reads arguments, calls one function, prints its result.

Exit status: 0 success, 1 the work failed (one line on stderr says why), 2 wrong use, 130 interrupted.  Heavy modules
are imported by the command that needs them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.system import log
from agent.system.command_line import bus_and_file, ended, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.decode import DecodeSummary
    from agent.settings.settings import Loaded

DEFAULT_CONFIG = Path("/etc/headunit-agent/agent.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return ended(lambda: _command_of(arguments), _complain)


def _command_of(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command == "demo":  # the demonstration has a command line of its own
        return _demo(rest)
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    log.configure()
    return int(options.run(options))


def _complain(problem: object) -> None:
    """One line, whatever the words of a library, or of a log that is echoed, hold."""
    print(f"headunit-agent: {printable(' '.join(str(problem).split()))}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headunit-agent",
        description="On-vehicle edge agent: CAN telemetry to the fleet, signed toggles back.",
        epilog="'headunit-agent COMMAND --help' shows each command with an example.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(commands, "run", "run the agent (what the service does)", "headunit-agent run --config agent.toml")
    _config(run)
    run.set_defaults(run=_run)

    check = _command(
        commands,
        "check",
        "validate a configuration and all it names",
        "headunit-agent check --config agent.toml --json",
    )
    _config(check)
    _json(check)
    check.set_defaults(run=_check)

    status = _command(
        commands,
        "status",
        "what the agent is doing, and where every batch is; exit status 1 where none runs",
        "headunit-agent status --json",
    )
    _config(status)
    status.add_argument(
        "--ledger",
        action="store_true",
        help="every sequence number of a batch: delivered, waiting, or lost and why; as `fleet query ledger` has it",
    )
    _json(status)
    status.set_defaults(run=_status)

    decode = _command(
        commands,
        "decode",
        "decode a recorded log into a table of samples",
        "headunit-agent decode --dbc can0=powertrain.dbc --dbc can1=body.dbc --log drive.log.zst --out drive.parquet",
    )
    decode.add_argument(
        "--log", type=Path, required=True, metavar="F", help="candump, ASC, BLF, TRC, MF4, ...; plain or compressed"
    )
    _databases(decode)
    decode.add_argument("--bus", action="append", metavar="BUS", help="only this bus of the log; may be repeated")
    decode.add_argument(
        "--out", type=Path, metavar="F", help="*.parquet or *.csv, written anew; without it frames are only counted"
    )
    _json(decode)
    decode.set_defaults(run=_decode)

    replay = _command(
        commands,
        "replay",
        "run the configured agent on a recorded log; ends when all of it is delivered",
        "headunit-agent replay --config agent.toml --log drive.log --speed 10",
    )
    _config(replay)
    replay.add_argument("--log", type=Path, required=True, metavar="F", help="the log that takes the sources' place")
    replay.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="times real time; 0: as fast as possible"
    )
    replay.set_defaults(run=_replay)

    commands.add_parser("demo", add_help=False, help="the whole product in one drive, checked sample by sample")

    version = _command(commands, "version", "the version", "headunit-agent version --json")
    _json(version)
    version.set_defaults(run=_version)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="F", help=f"configuration file ({DEFAULT_CONFIG})"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _databases(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dbc",
        type=bus_and_file,
        action="append",
        required=True,
        metavar="[BUS=]F",
        help="a database (DBC, ARXML, KCD, SYM) for one bus, or for all; may be repeated, the first wins",
    )
    parser.add_argument(
        "--match",
        choices=("exact", "pgn"),
        default="exact",
        help="by whole identifier, or by J1939 parameter group number",
    )


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not speed >= 0.0:  # nan neither
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return speed


def _run(options: argparse.Namespace) -> int:
    from agent.settings import settings

    return _run_agent(lambda: settings.load(options.config))


def _replay(options: argparse.Namespace) -> int:
    from agent.settings import settings

    def read() -> settings.Loaded:
        return settings.with_replay(settings.load(options.config), options.log, options.speed)

    return _run_agent(read, until_delivered=True)


def _run_agent(read: "Callable[[], Loaded]", *, until_delivered: bool = False) -> int:
    """Buses first: the rings listen from here on, and what comes waits in them while the rest is imported and built."""
    from agent.runtime.listen import listen
    from agent.system.descriptors import Descriptors, inherited
    from agent.system.memory import give_back_freed
    from agent.system.sd_notify import Notifier

    give_back_freed()
    loaded, descriptors = read(), Descriptors(Notifier(), inherited())
    listen(loaded.settings, descriptors)

    import asyncio

    from agent.runtime import supervisor

    return asyncio.run(supervisor.run(loaded, read, descriptors, until_delivered=until_delivered))


def _check(options: argparse.Namespace) -> int:
    from agent.commands.check import check

    report = check(options.config)
    for problem in report.problems:
        _complain(problem)
    print(json.dumps(report.as_dict(), indent=2) if options.json else report)
    return 0 if report.ok else 1


def _status(options: argparse.Namespace) -> int:
    from agent.commands.status import fetch, ledger, render, render_ledger
    from agent.settings import settings

    if options.ledger:
        lines = ledger(settings.load(options.config))
        print(json.dumps(lines, indent=2) if options.json else render_ledger(lines))
        return 0
    status = fetch(settings.load(options.config))
    print(json.dumps(status, indent=2) if options.json else render(status))
    return 0 if status["running"] else 1


def _decode(options: argparse.Namespace) -> int:
    from agent.commands.decode import decode_log
    from can_dbc.plan import Match

    databases: dict[str | None, list[Path]] = {}
    for bus, file in options.dbc:
        databases.setdefault(bus, []).append(file)
    summary = decode_log(
        options.log, databases, options.out, match=Match(options.match), buses=options.bus, progress=True
    )
    print(json.dumps(summary.as_dict(), indent=2) if options.json else _decoded(summary))
    return 0


def _decoded(summary: "DecodeSummary") -> str:
    """What became of a log, for a person: the frames that did not decode by reason, bus and message."""
    lines = [
        f"{summary.log}: {summary.frames:,} frames, {summary.decoded:,} decoded, {summary.samples:,} samples "
        f"in {summary.seconds:.1f} s"
    ]
    if summary.containers:
        lines.append(f"{summary.containers:,} frames are containers: the {summary.pdus:,} PDUs in them count as frames")
    for reason, buses in {"unknown": summary.unknown, **summary.errors}.items():
        for bus, frames in buses.items():
            named = ", ".join(f"{name} ({count:,})" for name, count in sorted(frames.items()))
            lines.append(f"{reason:<10}{bus}: {named}")
    return "\n".join(map(printable, [*lines, *(f"note: {note}" for note in summary.notes)]))


def _demo(rest: Sequence[str]) -> int:
    import importlib.util
    import subprocess

    # The cloud side runs as programs of its own; the agent imports nothing of it.
    if importlib.util.find_spec("deltalake") is None or importlib.util.find_spec("matplotlib") is None:
        print(
            "headunit-agent: the demonstration needs the extras: pip install 'headunit-agent[fleet,demo]'",
            file=sys.stderr,
        )
        return 1
    with subprocess.Popen([sys.executable, "-m", "lab.demo", *rest]) as demonstration:
        while True:
            try:
                return demonstration.wait()
            except KeyboardInterrupt:  # the terminal tells the demonstration, too: it puts away its programs
                continue


def _version(options: argparse.Namespace) -> int:
    from importlib.metadata import version as distribution_version

    number = distribution_version("headunit-agent")
    print(json.dumps({"version": number}) if options.json else f"headunit-agent {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
